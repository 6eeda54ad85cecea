"""A candidate beside an ASGI app: two apps behind one, and a growing share of the requests for the new one."""

from __future__ import annotations

from somaresil.canary_app.app import CanaryApp
from somaresil.canary_app.keys import CanaryCookie

__all__ = ["CanaryApp", "CanaryCookie"]
