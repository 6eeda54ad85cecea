"""A server that forks its workers after the application was loaded makes copies of everything, chance included."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

SCRIPT = """
import json, os, sys
from somaresil import Resilience
given = json.loads(sys.argv[1])
resilience = Resilience("shop", **given)
guard = resilience.guard("db", breaker=True)
parent = [resilience.instance, resilience.chance.seed, guard.breaker._u]
found = [parent]
for _ in range(2):
    reader, writer = os.pipe()
    if os.fork() == 0:
        os.write(writer, json.dumps([resilience.instance, resilience.chance.seed, guard.breaker._u]).encode())
        os._exit(0)
    os.wait()
    found.append(json.loads(os.read(reader, 4096)))
print(json.dumps(found))
"""


def family(**given: object) -> list[list[object]]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SOMARESIL_")}
    answer = subprocess.run(
        [sys.executable, "-c", SCRIPT, json.dumps(given)], capture_output=True, text=True, check=True, env=environment, timeout=60
    )
    return json.loads(answer.stdout)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform cannot fork")
def test_children_have_a_name_and_draws_of_their_own():
    """Or a fleet would probe in step, and a drill on one instance would strike all."""
    for what in zip(*family(), strict=True):
        assert len(set(what)) == 3


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform cannot fork")
def test_a_name_and_a_seed_that_were_given_stay():
    """Whoever gave them meant them."""
    names, seeds, _ = zip(*family(instance="pod-1", seed=7), strict=True)
    assert set(names) == {"pod-1"}
    assert set(seeds) == {"7"}
