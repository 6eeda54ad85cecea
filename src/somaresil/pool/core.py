"""The pool: several endpoints, models or regions behind one name.

llm = resilience.pool("llm", endpoints=[Endpoint("eu", client_eu, weight=2), Endpoint("us", client_us)], breaker=True, timeout=10.0)

@llm
async def invoke(endpoint: Endpoint[Client], prompt: str) -> str:
    return await endpoint.target.complete(prompt)

await invoke("hello")

A call passes the guard of the pool (``llm``: what callers see), where an endpoint is chosen, and then the guard of that endpoint
(``llm/eu``: its breaker, its timeout, its counts).
"""

from __future__ import annotations

import functools
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any, Concatenate, Final, Generic, ParamSpec, TypeVar, overload

from somaresil.config import Checker, did_you_mean
from somaresil.guard.call import AsyncStreamCall, CoroutineCall, FunctionCall, Opened, StreamCall
from somaresil.guard.options import GuardOptions, check_known
from somaresil.guard.shape import Shape, check_decoratable, shape_of
from somaresil.guard.stream import async_stream_wrapper, stream_wrapper
from somaresil.outcome import Outcome
from somaresil.pool.balance import Balance
from somaresil.pool.options import Endpoint, PoolOptions, checked_weight
from somaresil.pool.place import Routed, place_of, routed, without_endpoints
from somaresil.pool.race import Race
from somaresil.pool.tries import Tries
from somaresil.runtime import original, raise_again

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping

    from somaresil.chance import Chance
    from somaresil.guard import Guard
    from somaresil.listeners import Listeners
    from somaresil.model.ejection import Cause
    from somaresil.pool.balance import PoolView, Visit
    from somaresil.typing import Call, Clock

__all__ = ["MOST_ENDPOINTS", "Pool"]

_E = TypeVar("_E")
_T = TypeVar("_T")
_P = ParamSpec("_P")

MOST_ENDPOINTS: Final = 1_000
"""Endpoints are named in the configuration; more than this is a name made of user input."""

_OF_THE_POOL: Final = frozenset({"slo", "fallback"})
"""Guard options that are about what callers see; an endpoint that fell back would never be left for another."""
_OF_BOTH: Final = frozenset({"budget_aware", "classify", "idempotent"})


class Pool(Generic[_E]):
    """Balances calls over endpoints under one name. Made by :meth:`Resilience.pool`; decorator and caller in one."""

    def __init__(
        self,
        name: str,
        options: PoolOptions,
        guard_options: Mapping[str, Any],
        make_guard: Callable[..., Guard],
        *,
        clock: Clock,
        chance: Chance,
        listeners: Listeners,
    ) -> None:
        """Without endpoints; ``guard_options`` are already checked, and ``make_guard(name, **options)`` makes or finds a guard."""
        self.name = name
        self._make_guard = make_guard
        self._guard_options = _for_endpoints(guard_options)
        self._guards: dict[str, Guard] = {}
        self._balance = Balance(name, options, clock, chance, listeners)
        ours = {option: value for option, value in guard_options.items() if option in _OF_THE_POOL | _OF_BOTH}
        self.guard = make_guard(name, **ours)
        """The guard that callers pass: its counts are what they saw."""
        self.guard.route(self._answer)
        self._balance.stand_behind(self.guard)

    def __repr__(self) -> str:
        """Name and endpoints."""
        return f"<Pool {self.name!r}: {', '.join(self.endpoints)}>"

    @property
    def options(self) -> PoolOptions:
        """How it chooses."""
        return self._balance.options

    @property
    def endpoints(self) -> Mapping[str, Endpoint[_E]]:
        """Those that get calls, by name."""
        return self._balance.endpoints

    # -- using it ---------------------------------------------------------------------------------------------------------------------

    @overload
    def __call__(self, target: Callable[Concatenate[Endpoint[_E], _P], _T]) -> Callable[_P, _T]: ...

    @overload
    def __call__(self, target: Callable[..., _T]) -> Callable[..., _T]: ...

    def __call__(self, target: Any) -> Any:
        """Guard a function that takes an endpoint: callers leave it out.

        The endpoint goes to the parameter ``endpoint``, or to the first one. Functions, coroutine functions, generators, async generators,
        partials and callable objects; a method names its parameter ``endpoint``. Raises
        :class:`~somaresil.errors.ConfigurationError` for what cannot be guarded.
        """
        if isinstance(target, classmethod | staticmethod):
            return type(target)(self(target.__func__))
        check_decoratable(self.name, target)
        place = place_of(self.name, target, self.options.key)
        guarded: Any = self.guard(routed(target, place))
        signature = getattr(guarded, "__signature__", None)
        functools.update_wrapper(guarded, target)
        if signature is not None:
            guarded.__signature__ = signature
        return guarded

    def call(self, function: Callable[Concatenate[Endpoint[_E], _P], _T], /, *args: _P.args, **kwargs: _P.kwargs) -> _T:
        """Call a plain function once, with an endpoint before ``args``."""
        result: _T = self.guard.call(self._routed(function), *args, **kwargs)
        return result

    async def acall(self, function: Callable[Concatenate[Endpoint[_E], _P], Awaitable[_T]], /, *args: _P.args, **kwargs: _P.kwargs) -> _T:
        """Call a coroutine function, or anything that returns an awaitable, once, with an endpoint before ``args``."""
        target = self._routed(function)
        if shape_of(function) is Shape.FUNCTION:

            async def awaits(*args: Any, **kwargs: Any) -> Any:
                return await function(*args, **kwargs)

            target = routed(awaits, target.place)
        result: _T = await self.guard.acall(target, *args, **kwargs)
        return result

    # -- changing it ------------------------------------------------------------------------------------------------------------------

    def add(self, endpoint: Endpoint[_E]) -> None:
        """One more endpoint, with a slow start. Raises :class:`~somaresil.errors.ConfigurationError` when there is one of this name."""
        self._add([endpoint], slowly=True)

    def begin(self, endpoints: Iterable[Endpoint[_E]]) -> None:
        """The endpoints that it begins with: there is nobody yet for whom they would start slowly."""
        self._add(list(endpoints), slowly=False)

    def remove(self, name: str) -> None:
        """No more calls to this endpoint; those that run there go on to their end.

        Its guard stays, with its counts. Raises :class:`~somaresil.errors.ConfigurationError` when there is no such endpoint, or no other.
        """
        check = self._known("remove", name)
        if not self._balance.remove(name):
            check.problem("name", name, "one of several endpoints", "a pool needs one: add another first")
            check.finish()

    def set_weight(self, name: str, weight: float) -> None:
        """Give an endpoint another weight, from the next call on. Raises :class:`~somaresil.errors.ConfigurationError` for a wrong one."""
        check = self._known("set_weight", name)
        weight = checked_weight(check, weight)
        check.finish()
        self._balance.set_weight(name, weight)

    def configure(self, **options: Any) -> None:
        """Change options while calls are running, those of the pool and those of its guards; what is known of the endpoints stays.

        Raises :class:`~somaresil.errors.ConfigurationError`, and then nothing has changed.
        """
        ours, theirs = split_options(self.name, options)
        check = Checker(f"pool({self.name!r})")
        for option in ("slo", "budget_aware"):
            if option in theirs:
                check.problem(option, theirs[option], "what it was made with", "set it when the pool is made")
        if "key" in ours and ours["key"] != self.options.key:
            check.problem("key", ours["key"], "the key it was made with", "decorated functions know where theirs is")
        GuardOptions.of(self.name, theirs, check)
        check.finish()
        changed = replace(self.options, **ours)
        check_hedge(check, changed, theirs.get("idempotent", self.guard.options.idempotent))
        check.finish()
        for member in self.endpoints:
            self._guards[member].configure(**_for_endpoints(theirs))
        self.guard.configure(**{option: value for option, value in theirs.items() if option in _OF_THE_POOL | _OF_BOTH})
        self._guard_options |= _for_endpoints(theirs)
        self._balance.reconfigure(changed)

    # -- watching it ------------------------------------------------------------------------------------------------------------------

    def view(self) -> PoolView:
        """Everything at one moment, frozen."""
        return self._balance.view()

    def ejections(self) -> Mapping[tuple[str, Cause], int]:
        """How often each endpoint was ejected, by cause, since the pool was made."""
        return self._balance.ejections()

    # -- inside -----------------------------------------------------------------------------------------------------------------------

    def _routed(self, function: Callable[..., Any]) -> Routed:
        if not callable(function):
            check_decoratable(self.name, function)
        return routed(function, place_of(self.name, function, self.options.key))

    def _known(self, what: str, name: str) -> Checker:
        check = Checker(f"pool({self.name!r}).{what}")
        if name not in self.endpoints:
            known = ", ".join(self.endpoints)
            check.problem("name", name, f"an endpoint of the pool ({known})", did_you_mean(name, self.endpoints))
            check.finish()
        return check

    def _add(self, endpoints: list[Endpoint[_E]], *, slowly: bool) -> None:
        check = Checker(f"pool({self.name!r})")
        check_endpoints(check, self.name, endpoints, self.endpoints)
        check.finish()
        for endpoint in endpoints:
            if not self._balance.add(endpoint, self._guard_of(endpoint.name), slowly=slowly):
                check.problem("endpoints", endpoint.name, "a name that no endpoint has", "two threads have added it at once")
        check.finish()

    def _guard_of(self, endpoint: str) -> Guard:
        """Its guard; one that was removed and comes back has kept it, perhaps with options that were changed meanwhile."""
        guard = self._guards.get(endpoint)
        if guard is None:
            guard = self._guards[endpoint] = self._make_guard(f"{self.name}/{endpoint}", **self._guard_options)
        else:
            guard.configure(**self._guard_options)
        return guard

    async def _answer(self, call: Call) -> Any:
        """What stands in place of the callee in the guard of the pool."""
        function = call.function
        target = function if isinstance(function, Routed) else self._routed(function)
        tries = Tries(call, self._balance, self._key(target, call))
        delay = self.options.hedge_delay
        try:
            if delay is not None and not call.runtime.blocking:
                return await Race(tries, functools.partial(_attempt, self._balance, call, target), float(delay), call.clock).run()  # type: ignore[arg-type]
            while (visit := tries.next()) is not None:
                try:
                    answer = await _attempt(self._balance, call, target, visit)
                except Exception as error:
                    if not tries.failed(visit, original(error)):
                        raise
                else:
                    if visit.outcome is not Outcome.BAD or visit.late or not tries.answered_badly(answer):
                        return answer
            return tries.end()
        finally:
            tries.clear()

    def _key(self, target: Routed, call: Call) -> str | None:
        key = self.options.key
        if key is None:
            return None
        try:
            found = key(*call.args, **call.kwargs) if callable(key) else target.place.key_of(call.args, call.kwargs)
            return None if found is None else str(found)
        except Exception as broken:  # noqa: BLE001 - a hook of the user's never keeps a call from being made
            call.listeners.defect(f"key of pool {self.name}", broken, call.clock.time(), "the call stuck to no endpoint")
            return None


async def _attempt(balance: Balance, call: Call, target: Routed, visit: Visit) -> Any:
    """Make the call on one endpoint, through its guard."""
    guard = visit.member.guard
    try:
        args, kwargs = target.place.put(visit.member.endpoint, call.args, call.kwargs)
        if call.lasting:
            return await _open(balance, call, target, visit, args, kwargs)
        blocking = call.runtime.blocking
        sub = (FunctionCall if blocking else CoroutineCall)(guard, target.function, args, kwargs)
        sub.at_end(_leaving(call, sub, visit))
        result = guard.drive(sub) if blocking else await guard.adrive(sub)
        visit.late = sub.late
    except BaseException as error:
        # It has left by now, unless it never came as far as the guard.
        visit.leave(Outcome.ABANDONED, call.clock.monotonic())
        if isinstance(error, StopIteration):
            raise_again(error)
        raise
    return result


def _leaving(call: Call, sub: Call, visit: Visit) -> Callable[[Outcome, float], None]:
    def left(outcome: Outcome, now: float) -> None:
        if sub.injected:
            # What an experiment did to an endpoint is marked as its doing for the callers of the pool as well.
            call.touch()
        visit.leave(outcome, now)

    return left


async def _open(balance: Balance, call: Call, target: Routed, visit: Visit, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Opened:
    """Begin a stream on one endpoint. What follows the first item is between that endpoint and the reader."""
    guard = visit.member.guard

    def make(*parts: Any) -> Any:
        sub = (StreamCall if call.runtime.blocking else AsyncStreamCall)(*parts)
        sub.at_end(_leaving(call, sub, visit))
        return sub

    if call.runtime.blocking:
        source = stream_wrapper(guard, target.function, make)(*args, **kwargs)
        try:
            opened = Opened(source, next(source))
        except StopIteration as stop:
            return Opened(source, stop.value, ended=True)
    else:
        source = async_stream_wrapper(guard, target.function, make)(*args, **kwargs)
        try:
            opened = Opened(source, await source.__anext__())
        except StopAsyncIteration:
            return Opened(source, None, ended=True)
    balance.answered(visit)
    return opened


def _for_endpoints(given: Mapping[str, Any]) -> dict[str, Any]:
    """The guard options of an endpoint."""
    options = {option: value for option, value in given.items() if option not in _OF_THE_POOL}
    if callable(options.get("idempotent")):
        options["idempotent"] = without_endpoints(options["idempotent"], Endpoint)
    return options


def check_hedge(check: Checker, options: PoolOptions, idempotent: object) -> None:
    """Note a hedge of calls that are not known to be repeatable."""
    if options.hedge_delay is not None and (idempotent is None or idempotent is False):
        hint = "idempotent=True, or where their key is: a hedge makes calls twice that nothing is wrong with"
        check.problem("hedge_delay", options.hedge_delay, "None for calls that are not declared idempotent", hint)


def split_options(name: str, options: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Those of the pool, and those of guards. Raises :class:`~somaresil.errors.ConfigurationError` for one that neither has."""
    ours = {option: value for option, value in options.items() if option in _OPTIONS}
    theirs = {option: value for option, value in options.items() if option not in _OPTIONS}
    check = Checker(f"pool({name!r})")
    check_known(check, theirs)
    check.finish()
    return ours, theirs


_OPTIONS: Final = frozenset(field.name for field in fields(PoolOptions))


def check_endpoints(check: Checker, pool: str, endpoints: Iterable[Any], known: Iterable[str] = ()) -> None:
    """Note what is wrong with some endpoints beside those that are there."""
    names = list(known)
    for endpoint in endpoints:
        if not isinstance(endpoint, Endpoint):
            check.problem("endpoints", endpoint, "an Endpoint", "Endpoint('eu', client)")
            continue
        if endpoint.name in names:
            check.problem("endpoints", endpoint.name, "a name that no other endpoint has")
        check.name("endpoints", f"{pool}/{endpoint.name}")
        names.append(endpoint.name)
    if len(names) > MOST_ENDPOINTS:
        check.problem("endpoints", len(names), f"at most {MOST_ENDPOINTS} endpoints", "is the name made of user input?")
