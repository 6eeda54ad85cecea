"""Processes in which chaos is allowed, with a dashboard."""

from __future__ import annotations

import pytest

from tests.unit.dashboard.kit import stopped
from tests.unit.dashboard_app.kit import Stand

__all__ = ["allowed", "stand", "stopped"]


@pytest.fixture(autouse=True)
def allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Allow chaos in the environment, name nothing else there."""
    for name in ("PRODUCTION", "ENVIRONMENT", "INSTANCE", "ZONE", "REGION", "SEED", "CHAOS_PRODUCTION"):
        monkeypatch.delenv(f"SOMARESIL_{name}", raising=False)
    monkeypatch.setenv("SOMARESIL_CHAOS", "1")


@pytest.fixture
def stand():
    """A process with a guard called ``llm.invoke``, an approved plan called ``slow model``, and a dashboard."""
    made = Stand()
    yield made
    made.app.stop()
