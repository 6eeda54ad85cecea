"""Fuzz every target, one after the other: ``python tests/fuzz/everything.py 2000000 --seconds 90 --found FOLDER``.

Each target gets its share of the executions, by its weight, and at most so many seconds. It fails when a target fails, and when one did not
get its share though it had time left. A planted defect is looked for first: a fuzzer that does not find it finds nothing.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tests.fuzz.run import fuzz, loaded  # noqa: E402 - the path comes first

if TYPE_CHECKING:
    from tests.fuzz.harness import Target

LONGEST = 4_096
"""Bytes of an input: what takes more has more of the same in it, and each format has its own bound on that."""
MEMORY = 1_024
"""Megabytes that a target may take, with the interpreter and what the fuzzer knows."""


def _run(target: Target, found: Path, executions: int, seconds: int) -> tuple[int, int, float, str]:
    """Exit code, executions, seconds, and what was said. In a fork, for what is tried takes long to import."""
    options = [
        f"-artifact_prefix={found}/{target.name}-",
        f"-runs={executions}",
        f"-max_total_time={seconds}",
        f"-max_len={LONGEST}",
        f"-rss_limit_mb={MEMORY}",
        "-timeout=10",
        "-print_final_stats=1",
        "-seed=7",
    ]
    log, began = found / f"{target.name}.log", time.monotonic()
    sys.stdout.flush()
    child = os.fork()
    if not child:
        with log.open("wb") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        try:
            fuzz(target, found, *options)
        finally:
            os._exit(1)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    said = log.read_text(encoding="utf-8", errors="replace")
    counted = re.search(r"number_of_executed_units:\s*(\d+)", said)
    return code, int(counted[1]) if counted else 0, time.monotonic() - began, said


def told(text: str) -> None:
    """Say it at once: whoever waits for hours wants to know how far it is."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def _shares(targets: list[Target], executions: int) -> dict[str, int]:
    whole = sum(target.weight for target in targets)
    return {target.name: -(-executions * target.weight // whole) for target in targets}


def main(arguments: list[str] | None = None) -> int:
    """Run; 0 when nothing was found."""
    parser = argparse.ArgumentParser()
    parser.add_argument("executions", type=int, nargs="?", default=2_000_000)
    parser.add_argument("--seconds", type=int, default=90, help="that each target takes at most")
    parser.add_argument("--found", type=Path, required=True, help="where inputs go that found something")
    parser.add_argument("--only", nargs="*", help="names of targets")
    given = parser.parse_args(arguments)
    given.found.mkdir(parents=True, exist_ok=True)
    known = loaded()
    targets = [target for target in known.values() if target.name in (given.only or known) and target.name != "planted"]
    if _run(known["planted"], given.found, 50_000, given.seconds)[0] == 0:
        told("the planted defect was not found: this fuzzer finds nothing")
        return 1
    total, failed, cut = 0, [], []
    shares = _shares(targets, given.executions)
    # What some have left over because their time was up is for those that are fast: how many there are in all is a promise.
    rounds = [*((target, shares[target.name]) for target in targets), *((target, 0) for target in targets)]
    for target, of_it in rounds:
        share = of_it or min(given.executions - total, shares[target.name])
        if share <= 0 or (not of_it and (failed or target.name in cut)):
            continue
        code, done, seconds, said = _run(target, given.found, share, given.seconds)
        total += done
        verdict = "nothing unhandled"
        if code:
            verdict = f"FAILED ({code})\n{said[-3_000:]}"
            failed.append(target.name)
        elif done < share and seconds < given.seconds:
            verdict = f"FAILED: it ended after {done} of {share}"
            failed.append(target.name)
        elif done < share:
            verdict = f"nothing unhandled; its {given.seconds} s were over before its share of {share}"
            cut.append(target.name)
        told(f"{target.name}: {done} executions in {seconds:.0f} s: {verdict}")
    told(f"{total} executions of {len(targets)} targets, {len(failed)} failed; out of time: {', '.join(cut) or 'none'}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
