"""Game days in the experiment format of the Chaos Toolkit, and back.

A game day is several experiments with phases, gates and abort conditions; the toolkit knows one experiment with a steady state before and
after its method. So an experiment of a game day becomes one of the toolkit, in its order, and what the toolkit cannot play is named:
it is refused, or listed when it was agreed to. The whole of it stands under ``extensions`` as well, so that it comes back as it was.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from somaresil.toolkit.exchange import ToolkitGameDay, from_toolkit, to_toolkit

__all__ = ["ToolkitGameDay", "from_toolkit", "to_toolkit"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from somaresil.toolkit import exchange

        return getattr(exchange, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
