"""The plugin's own suite, as a user would write one. Around each test it is looked whether anything was left behind."""

from __future__ import annotations

import asyncio
import gc
import os
import sys
import threading
import time
from collections import Counter
from datetime import datetime
from pathlib import Path

import pytest

from somaresil.resilience import alive

REAL = (time.monotonic, time.sleep, time.time, datetime.now.__self__)


def standing() -> dict[str, object]:
    """What a test must leave as it was."""
    gc.collect()
    return {
        "experiments": sorted(run.id for resilience in alive() for run in resilience.chaos.history if run.end_reason is None),
        "threads": sorted(thread.name for thread in threading.enumerate()),
        "descriptors": sum(1 for _ in Path("/proc/self/fd").iterdir()) if sys.platform == "linux" else 0,
        "tasks": sum(isinstance(thing, asyncio.Task) and not thing.done() for thing in gc.get_objects()),
        "environment": {name: value for name, value in os.environ.items() if name.startswith("SOMARESIL")},
        "clock": (time.monotonic, time.sleep, time.time, datetime.now.__self__) == REAL,
        "time": abs(time.time() - time.clock_gettime(time.CLOCK_REALTIME)) < 1.0,
    }


def worse(before: object, after: object) -> bool:
    """Whether something came that is still there. What others had left and is gone meanwhile is fine."""
    if isinstance(before, list) and isinstance(after, list):
        return bool(Counter(after) - Counter(before))
    if isinstance(before, int) and isinstance(after, int) and not isinstance(before, bool):
        return after > before
    return before != after


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item):
    """Compare before and after the whole test, its fixtures included; a difference ends the run, for nobody knows what it spoils."""
    if any("tests/plugin/" not in other.nodeid for other in item.session.items):
        # Among other tests, what these have left comes and goes meanwhile; `nox -s orders` runs this suite by itself.
        return (yield)
    before = standing()
    result = yield
    after = standing()
    differences = {name: (before[name], after[name]) for name in before if worse(before[name], after[name])}
    if differences:
        pytest.exit(f"{item.nodeid} has left something behind: {differences}", returncode=9)
    return result
