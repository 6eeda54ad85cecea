"""The project in which a test of the pytest plugin runs a pytest of its own."""

from __future__ import annotations

import pytest

from tests.unit.testing.suites import INI


@pytest.fixture
def project(pytester, monkeypatch):
    """A project with strict settings, and no setting of the machine."""
    for name in ("CLOCK", "PLANS", "SEED", "CHAOS"):
        monkeypatch.delenv(f"SOMARESIL_{name}", raising=False)
    monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)
    pytester.makefile(".ini", pytest=INI)
    return pytester
