"""Nothing that runs is left behind."""

from tests.unit.dashboard.kit import stopped

__all__ = ["stopped"]
