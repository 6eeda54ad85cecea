"""The seeds of the fuzzer, and what it once found, do no harm."""

from __future__ import annotations

import pytest

from tests.fuzz.targets import CORPUS, TARGETS

SEEDS = [(path.parent.name, path) for path in sorted(CORPUS.glob("*/*"))]


def test_each_target_has_seeds():
    """Without them a fuzzer spends its time before the first check."""
    assert {name for name, _ in SEEDS} == set(TARGETS)


@pytest.mark.parametrize(("name", "path"), SEEDS, ids=lambda value: getattr(value, "name", value))
def test_a_seed_does_no_harm(name, path):
    """It is read or refused."""
    TARGETS[name](path.read_bytes())
