"""Processes in which chaos is allowed, and tests that see no setting of the machine they run on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.unit.chaos.kit import Stand

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture(autouse=True)
def allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Allow chaos in the environment, name nothing else there."""
    for name in ("PRODUCTION", "ENVIRONMENT", "INSTANCE", "ZONE", "REGION", "SEED"):
        monkeypatch.delenv(f"SOMARESIL_{name}", raising=False)
    monkeypatch.delenv("SOMARESIL_CHAOS_PRODUCTION", raising=False)
    monkeypatch.setenv("SOMARESIL_CHAOS", "1")


@pytest.fixture
def stand() -> Stand:
    """A process that has opted in, with a guard called ``llm.invoke``."""
    return Stand()


@pytest.fixture
def make() -> Callable[..., Stand]:
    """Make a process with options of its own."""
    return Stand
