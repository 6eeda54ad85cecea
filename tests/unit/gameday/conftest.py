"""Chaos is allowed in the environment, and nothing of the machine is seen."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Allow chaos, name nothing else."""
    for name in ("ENVIRONMENT", "INSTANCE", "ZONE", "REGION", "SEED", "CHAOS_PRODUCTION", "CONFIG"):
        monkeypatch.delenv(f"SOMARESIL_{name}", raising=False)
    monkeypatch.setenv("SOMARESIL_CHAOS", "1")
