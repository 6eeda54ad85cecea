"""Control and experiment: a share of the traffic gets the fault, an equal share does not, and both are counted apart.

This is what Netflix' ChAP does with clusters, done in one process. Which group a request belongs to is a pure function of the seed, the
name of the split and the key of the request, so it stays in its group for all of its calls, under any interleaving, and in every process
that has the same seed. What has no key, or a key outside both shares, is in neither group; it gets no fault and is not compared.
"""

from __future__ import annotations

from contextvars import ContextVar
from enum import StrEnum
from itertools import count
from typing import TYPE_CHECKING, Any, Final

from somaresil import callpath
from somaresil.priority import caller

if TYPE_CHECKING:
    from collections.abc import Callable, MutableMapping

    from somaresil.chance import Chance

__all__ = ["KEYS", "Side", "Split"]

KEYS: Final = ("request", "tenant")
"""What a group may be chosen by, besides a header."""
HEADER: Final = "header:"
_REQUEST_ID: Final = b"x-request-id"
_LONGEST_KEY: Final = 200


class Side(StrEnum):
    """Which group something belongs to."""

    __hash__ = str.__hash__

    EXPERIMENT = "experiment"
    """It gets the faults."""
    CONTROL = "control"
    """It does not, and is what the experiment group is compared with."""
    OUTSIDE = "outside"
    """Neither."""


class Split:
    """Who belongs to which group, by what is known where a call is made.

    ``share`` of all keys are in the experiment group and as many in the control group (at most a half). ``by`` says what the key is:

    - ``request``: the outermost :func:`~somaresil.callpath.scope` (up to its first slash); a request to the ASGI middleware has its
      ``x-request-id``, or else a number of its own, and every call that is made for it goes with it;
    - ``tenant``: the tenant of :func:`~somaresil.priority.priority`;
    - ``header:NAME``: that header of a request to the middleware.

    ``tell`` hears of each request that ends: name (``http:`` and its route), outcome, seconds, whether it was touched, group.
    """

    def __init__(
        self, name: str, share: float, by: str, chance: Chance, tell: Callable[[str, str, float, bool, Side], object] | None = None
    ) -> None:
        """Nothing has been decided, and nothing will be remembered."""
        self.name = name
        self.share = share
        self.by = by
        self._chance = chance
        self._rule = f"split.{name}"
        self._tell = tell
        self._header = by.removeprefix(HEADER).lower().encode("latin-1", "replace") if by.startswith(HEADER) else _REQUEST_ID
        self._numbers = count(1)

    def side_of(self, key: str) -> Side:
        """The group of a key: always the same one."""
        drawn = self._chance.draw(self._rule, key, 0)
        if drawn < self.share:
            return Side.EXPERIMENT
        return Side.CONTROL if drawn < 2.0 * self.share else Side.OUTSIDE

    @property
    def side(self) -> Side:
        """The group of whatever is being done here."""
        request = _request.get()
        if request is not None and request[0] is self:
            return request[1]
        if self.by == "tenant":
            who = caller()
            key = None if who is None else who.tenant
        elif self.by == "request":
            key = callpath.current_scope().partition("/")[0]
        else:
            key = None
        return self.side_of(key) if key else Side.OUTSIDE

    # -- requests ---------------------------------------------------------------------------------------------------------------------

    def enter(self, scope: MutableMapping[str, Any], *, spared: bool) -> None:
        """A request begins here. What is ``spared`` (health, metrics) belongs to no group."""
        _request.set((self, Side.OUTSIDE if spared else self._side_of_request(scope)))

    def ended(self, name: str, outcome: str, elapsed: float, *, injected: bool) -> None:
        """It has ended. One that began before the split is not counted."""
        request = _request.get()
        if request is None or request[0] is not self:
            return
        # Whoever goes on in the same task is not that request any more.
        _request.set(None)
        if self._tell is not None:
            self._tell(name, outcome, elapsed, injected, request[1])

    def _side_of_request(self, scope: MutableMapping[str, Any]) -> Side:
        if self.by == "tenant":
            who = caller()
            return Side.OUTSIDE if who is None or who.tenant is None else self.side_of(who.tenant)
        key = next((value.decode("latin-1")[:_LONGEST_KEY] for name, value in scope["headers"] if name == self._header), "")
        if not key and self.by == "request":
            key = f"request {next(self._numbers)}"
        return self.side_of(key) if key else Side.OUTSIDE


_request: ContextVar[tuple[Split, Side] | None] = ContextVar("somaresil_split_request", default=None)
