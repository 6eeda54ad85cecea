"""Fault point: where an experiment strikes a call. The innermost policy, so that every other policy sees an injected fault as a real one.

Istio injects where its own retries do not reach (istio #13705); a drill that the retries never see proves nothing about them.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from somaresil import callpath

if TYPE_CHECKING:
    from collections.abc import Callable

    from somaresil.switch import Switch
    from somaresil.typing import Aftermath, Call, FaultRule, Next

__all__ = ["FaultPoint"]


class FaultPoint:
    """The rules that are armed for one guard; usually none, and then no call comes by here."""

    __slots__ = ("_lock", "_switch", "_watchers", "rules", "unended")

    def __init__(self, switch: Switch) -> None:
        """Nothing armed."""
        self._switch = switch
        self._lock = threading.RLock()
        self.rules: tuple[FaultRule, ...] = ()
        self._watchers: tuple[Callable[[str], object], ...] = ()
        self.unended = 0
        """Calls that were struck and have not ended yet."""

    def touched(self, calls: int) -> None:
        """So many more calls are struck; less than 0: they have ended."""
        with self._lock:
            self.unended += calls

    def watch(self, watcher: Callable[[str], object]) -> None:
        """Tell ``watcher`` the name of the guard at every attempt that comes as far as here, until :meth:`unwatch`."""
        with self._lock:
            self._watchers = (*self._watchers, watcher)

    def unwatch(self, watcher: Callable[[str], object]) -> None:
        """Tell it no more."""
        with self._lock:
            self._watchers = tuple(other for other in self._watchers if other != watcher)

    def arm(self, rule: FaultRule) -> None:
        """Let ``rule`` look at every call from now on."""
        with self._lock:
            self.rules = (*self.rules, rule)
            self._switch.hold("fault")

    def disarm(self, rule: FaultRule) -> None:
        """Forget ``rule``; the guard is quiet again when it was the last."""
        with self._lock:
            self.rules = tuple(armed for armed in self.rules if armed is not rule)
            self._switch.hold("fault", held=bool(self.rules))

    async def __call__(self, inner: Next, call: Call) -> Any:
        """Strike the call, or let it pass. What goes wrong in deciding lets it pass."""
        if call.replayed is not None:
            return await inner(call)
        for watcher in self._watchers:
            try:
                watcher(call.guard)
            except Exception as error:  # noqa: BLE001 - who looks on changes nothing
                call.listeners.defect("watcher of attempts", error, call.clock.time())
        if not self.rules:
            return await inner(call)
        token = callpath.enter(call.guard)
        try:
            # Each rule is asked before one of them acts: one that raises must not keep the call from being counted by the others.
            striking = [rule for rule in self.rules if self._decides(rule, call)]
            aftermaths = [aftermath for rule in striking if (aftermath := await self._strike(rule, call)) is not None]
            result = await inner(call)
            for aftermath in aftermaths:
                result = await aftermath(call, result)
            return result
        finally:
            callpath.leave(token)

    def _decides(self, rule: FaultRule, call: Call) -> bool:
        try:
            if rule.live:
                return rule.decide()
            if rule.over:
                self.disarm(rule)
        except Exception as error:  # noqa: BLE001 - the engine fails open: a defect in it must not become a fault
            call.listeners.defect("fault point", error, call.clock.time())
        return False

    async def _strike(self, rule: FaultRule, call: Call) -> Aftermath | None:
        try:
            strike = rule.strike()
        except Exception as error:  # noqa: BLE001 - as above
            call.listeners.defect("fault point", error, call.clock.time())
            return None
        if strike is None:
            return None
        if strike.after is not None:
            # It strikes what the callee answers; a call that fails by itself has no answer and is not touched.
            return strike.after
        call.touch()
        if strike.delay > 0.0:
            try:
                if not await rule.hold(call.runtime, strike.delay):
                    # Stopped, or its time is over: an error now would be a fault after the end.
                    return None
            except Exception as error:  # noqa: BLE001 - as above
                call.listeners.defect("delay of the fault point", error, call.clock.time())
        if strike.error is not None:
            raise strike.error
        return None
