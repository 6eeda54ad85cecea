"""R3 once more, with a hundred callers at once, again and again. `python benchmarks/half_open.py --check` does a thousand of each."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.behaviour.half_open import CALLERS, tasks_that_reach_it, threads_that_reach_it


@pytest.mark.parametrize("probes", [1, 3, 10])
def test_of_a_hundred_tasks_exactly_n_reach_the_dependency(probes):
    """Each time, and the others are refused while the probes are inside."""

    async def main():
        return {await tasks_that_reach_it(probes) for _ in range(10)}

    assert asyncio.run(main()) == {(probes, CALLERS - probes)}


@pytest.mark.parametrize("probes", [1, 3, 10])
def test_of_a_hundred_threads_exactly_n_reach_the_dependency(probes):
    """The same with threads that begin together."""
    with ThreadPoolExecutor(CALLERS) as crowd:
        assert {threads_that_reach_it(probes, crowd) for _ in range(4)} == {(probes, CALLERS - probes)}
