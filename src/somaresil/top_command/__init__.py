"""``somaresil top``: the dashboard of a service for people on a shell."""

from __future__ import annotations

from typing import Final

__all__ = ["TOKEN", "URL", "VERSION", "VIEWS"]

URL: Final = "SOMARESIL_DASHBOARD_URL"
TOKEN: Final = "SOMARESIL_DASHBOARD_TOKEN"  # noqa: S105 - the name of the variable
VERSION: Final = 1
"""Of the picture that is understood here."""
VIEWS: Final = ("overview", "slos", "guard", "chaos", "canary", "events")
