"""Processes in which chaos is allowed, with a control app."""

from __future__ import annotations

import pytest

from tests.unit.control.kit import Stand


@pytest.fixture(autouse=True)
def allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Allow chaos in the environment, name nothing else there."""
    for name in ("PRODUCTION", "ENVIRONMENT", "INSTANCE", "ZONE", "REGION", "SEED", "CHAOS_PRODUCTION"):
        monkeypatch.delenv(f"SOMARESIL_{name}", raising=False)
    monkeypatch.setenv("SOMARESIL_CHAOS", "1")


@pytest.fixture
def stand() -> Stand:
    """A process that has opted in, with a guard called ``llm.invoke`` and a control app."""
    return Stand()
