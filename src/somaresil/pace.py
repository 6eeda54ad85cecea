"""One call that has ended, and the pace of one stream, as objectives hear of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from somaresil.outcome import Outcome

__all__ = ["Measured", "Pace"]


class Pace:
    """When the items of one stream came."""

    __slots__ = ("asked", "first", "longest")

    def __init__(self) -> None:
        """Nothing came yet."""
        self.first: float | None = None
        """When the first item was there, on the monotonic clock."""
        self.asked: float | None = None
        """Since when the next one is waited for; None: nobody waits. What the reader does in between is his own affair."""
        self.longest = 0.0
        """The longest wait for a further item, in seconds."""

    def came(self, now: float) -> None:
        """An item is there, or the end."""
        if self.first is None:
            self.first = now
        elif self.asked is not None:
            self.longest = max(self.longest, now - self.asked)
        self.asked = None


class Measured(NamedTuple):
    """One call that has ended."""

    outcome: Outcome
    elapsed: float
    injected: bool = False
    result: Any = None
    error: BaseException | None = None
    stream: bool = False
    """Whether it is a stream or a response."""
    first: float | None = None
    """Seconds to its first item; None: none came."""
    gap: float = 0.0
    """The longest wait for a further item."""
