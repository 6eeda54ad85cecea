"""Waiting that is stepped by hand: calls stand in line without a thread or an event loop, and go on when they are told to."""

from __future__ import annotations

import types
from typing import TYPE_CHECKING, Any

from somaresil.errors import Rejected
from somaresil.priority import priority

if TYPE_CHECKING:
    from somaresil.line import Line, Slot


@types.coroutine
def _suspended() -> Any:
    yield


class Parked:
    """A waiter that waits until somebody steps its coroutine."""

    def __init__(self) -> None:
        self.woken = False

    def wake(self) -> None:
        self.woken = True

    async def wait(self, timeout: float | None) -> bool:
        await _suspended()
        return self.woken


class ByHand:
    """A runtime whose waiters are stepped by hand; those made are kept."""

    blocking = False

    def __init__(self) -> None:
        self.made: list[Parked] = []

    def waiter(self) -> Parked:
        self.made.append(Parked())
        return self.made[-1]


class Visitor:
    """Somebody who wants a slot of a line. It has one, waits, or ended without."""

    def __init__(self, line: Line, level: str = "normal", tenant: str | None = None, left: float | None = None) -> None:
        self.line = line
        self.slot: Slot | None = None
        self.error: BaseException | None = None
        self._done = False
        self._runtime = ByHand()
        self._level, self._tenant = level, tenant
        self._admission = line.admit(self._runtime, left)
        self.step()

    def __repr__(self) -> str:
        return f"<{self._level} {self._tenant}>"

    @property
    def waits(self) -> bool:
        """Whether it stands in line."""
        return not self._done

    @property
    def woken(self) -> bool:
        """Whether somebody has woken it."""
        return any(waiter.woken for waiter in self._runtime.made)

    def step(self, thrown: BaseException | None = None) -> Visitor:
        """Let it go on: with its wait over, woken or not, or with an exception out of it."""
        with priority(self._level, tenant=self._tenant):
            try:
                self._admission.send(None) if thrown is None else self._admission.throw(thrown)
            except StopIteration as end:
                self.slot, self._done = end.value, True
            except Rejected as error:
                self.error, self._done = error, True
            except BaseException as error:
                if error is not thrown:
                    raise
                self.error, self._done = error, True
        return self

    def leave(self) -> None:
        """Give the slot back."""
        slot, self.slot = self.slot, None
        assert slot is not None
        self.line.leave(slot)


def step_woken(visitors: list[Visitor]) -> None:
    """Let everybody go on who was woken."""
    for visitor in visitors:
        if visitor.waits and visitor.woken:
            visitor.step()
