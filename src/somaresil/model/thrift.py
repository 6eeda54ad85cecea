"""How much of what only helps a little may be spent, as the error budget runs out.

Retries, hedges and patience help single calls and load the dependency. While there is budget that is a fair trade; when it burns, the
dependency is what needs help (Google SRE book, "Addressing Cascading Failures"). The scale is 1 while at least half of the budget is left,
and falls evenly to 0.1 where nothing is left. Down it goes at once; up only in steps: a budget at the edge does not make it flutter.
"""

from __future__ import annotations

from typing import Final

__all__ = ["LEAST", "Thrift"]

LEAST: Final = 0.1
"""The scale when the budget is used up: enough to find out that the dependency is back."""
_UNTOUCHED: Final = 0.5
_STEP: Final = 0.1


class Thrift:
    """The scale of one guard."""

    __slots__ = ("scale",)

    def __init__(self) -> None:
        """Everything may be spent."""
        self.scale = 1.0

    def see(self, remaining: float | None) -> float:
        """The scale when ``remaining`` is left of the budget: 1 untouched, 0 or less used up, None not known, which changes nothing."""
        if remaining is not None:
            wanted = LEAST + (1.0 - LEAST) * min(1.0, max(0.0, remaining / _UNTOUCHED))
            if wanted < self.scale or wanted >= min(1.0, self.scale + _STEP):
                self.scale = wanted
        return self.scale
