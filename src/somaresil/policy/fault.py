"""Fault point: where an experiment strikes a call. The innermost policy, so that every other policy sees an injected fault as a real one.

Istio injects where its own retries do not reach (istio #13705); a drill that the retries never see proves nothing about them.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from somaresil import callpath
from somaresil.runtime import original

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from somaresil.switch import Switch
    from somaresil.typing import Aftermath, Call, FaultRule, Instead, Next, Onlooker

__all__ = ["FaultPoint"]


class FaultPoint:
    """The rules that are armed for one guard; usually none, and then no call comes by here."""

    __slots__ = ("_lock", "_onlookers", "_switch", "_watchers", "rules", "unended")

    def __init__(self, switch: Switch) -> None:
        """Nothing armed."""
        self._switch = switch
        self._lock = threading.RLock()
        self.rules: tuple[FaultRule, ...] = ()
        self._watchers: tuple[Callable[[str], object], ...] = ()
        self._onlookers: tuple[Onlooker, ...] = ()
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

    def look(self, onlooker: Onlooker) -> None:
        """Tell ``onlooker`` of every attempt and of every strike, until :meth:`unlook`. No call is quiet meanwhile."""
        with self._lock:
            self._onlookers = (*self._onlookers, onlooker)
            self._switch.hold("graded")

    def unlook(self, onlooker: Onlooker) -> None:
        """Tell it no more."""
        with self._lock:
            self._onlookers = tuple(other for other in self._onlookers if other is not onlooker)
            self._switch.hold("graded", held=bool(self._onlookers))

    def struck(self, call: Call) -> None:
        """This call was struck, just now and in this thread."""
        for onlooker in self._onlookers:
            self._tell(call, onlooker.struck, call)

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

    def __call__(self, inner: Next, call: Call) -> Coroutine[Any, Any, Any]:
        """Strike the call, or let it pass. What goes wrong in deciding lets it pass."""
        onlookers = self._onlookers
        if onlookers and call.replayed is None:
            return self._watched(onlookers, inner, call)
        return self._pass(inner, call)

    async def _watched(self, onlookers: tuple[Onlooker, ...], inner: Next, call: Call) -> Any:
        """As :meth:`_pass`, under the eyes of those who look on."""
        for onlooker in onlookers:
            self._tell(call, onlooker.began, call)
        try:
            result = await self._pass(inner, call)
        except BaseException as error:
            for onlooker in onlookers:
                self._tell(call, onlooker.ended, call, original(error))
            raise
        for onlooker in onlookers:
            self._tell(call, onlooker.ended, call, None)
        return result

    @staticmethod
    def _tell(call: Call, what: Callable[..., object], *about: object) -> None:
        try:
            what(*about)
        except Exception as defect:  # noqa: BLE001 - who looks on changes nothing
            call.listeners.defect("onlooker of attempts", defect, call.clock.time())

    async def _pass(self, inner: Next, call: Call) -> Any:
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
            striking = [(rule, decided) for rule in self.rules if (decided := self._decides(rule, call))]
            aftermaths: list[Aftermath] = []
            answers: list[Instead] = []
            for rule, decided in striking:
                await self._strike(rule, call, decided, aftermaths, answers)
            # When several would answer, the first one that was armed does.
            result = await (answers[0](call) if answers else inner(call))
            for aftermath in aftermaths:
                result = await aftermath(call, result)
            return result
        finally:
            callpath.leave(token)

    def _decides(self, rule: FaultRule, call: Call) -> Any:
        try:
            if rule.live:
                return rule.decide(call)
            if rule.over:
                self.disarm(rule)
        except Exception as error:  # noqa: BLE001 - the engine fails open: a defect in it must not become a fault
            call.listeners.defect("fault point", error, call.clock.time())
        return None

    async def _strike(self, rule: FaultRule, call: Call, decided: Any, aftermaths: list[Aftermath], answers: list[Instead]) -> None:
        try:
            strike = rule.strike(decided)
        except Exception as error:  # noqa: BLE001 - as above
            call.listeners.defect("fault point", error, call.clock.time())
            return
        if strike is None:
            return
        if strike.after is not None:
            # It strikes what the callee answers; a call that fails by itself has no answer and is not touched.
            aftermaths.append(strike.after)
            return
        call.touch(getattr(getattr(rule, "run", None), "id", ""))
        if strike.delay > 0.0:
            try:
                if not await rule.hold(call.runtime, strike.delay):
                    # Stopped, or its time is over: an error now would be a fault after the end.
                    return
            except Exception as error:  # noqa: BLE001 - as above
                call.listeners.defect("delay of the fault point", error, call.clock.time())
        if strike.error is not None:
            raise strike.error
        instead = getattr(strike, "instead", None)
        if instead is not None:
            answers.append(instead)
