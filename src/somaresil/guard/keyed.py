"""One guard, a circuit for each key: a tenant, a host, a model. What one of them breaks is not taken from the others.

Only the circuit is the key's own. Counts, objectives, limits, experiments, observers and options are those of the guard, so whatever
reaches the guard reaches every key, and a metric has no label that users make.

- Each key has a breaker with the options of the guard, made at its first call. There are at most ``max_keys``: the one used longest ago
  makes room, unless it is not closed or has a call under way. When all are like that, a further key shares the guard's own breaker.
- The guard's own breaker judges the calls without a key. It stands above the keys while somebody has moved it (tripped, forced open,
  disabled, only watching), until it is closed again: then it decides about every call. Resetting it forgets the circuits of all keys.
- A call with a key always takes the full path.
"""

from __future__ import annotations

import functools
import inspect
import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ParamSpec, Self, TypeVar

from somaresil.config import Checker, did_you_mean
from somaresil.guard import block
from somaresil.guard.call import AsyncStreamCall, Call, CoroutineCall, FunctionCall, StreamCall
from somaresil.guard.shape import Shape, shape_of
from somaresil.guard.stream import async_stream_wrapper, stream_wrapper
from somaresil.guard.wrap import decorate
from somaresil.model.breaker import State
from somaresil.model.shelf import Shelf
from somaresil.recorder import Recorder
from somaresil.runtime import shorten
from somaresil.switch import Switch

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Hashable
    from types import TracebackType

    from somaresil.guard.call import KeyOf
    from somaresil.guard.core import Guard
    from somaresil.policy.breaker import BreakerPolicy
    from somaresil.site import Site
    from somaresil.typing import Call as PolicyCall
    from somaresil.typing import Next

__all__ = ["Keyed", "KeyedBreakers"]

_F = TypeVar("_F", bound="Callable[..., Any]")
_T = TypeVar("_T")
_P = ParamSpec("_P")
_C = TypeVar("_C", bound=Call)

_LONGEST_NAME = 120


class Circuit:
    """The breaker of one key, and how many calls it is lent to."""

    __slots__ = ("breaker", "key", "users")

    def __init__(self, key: Hashable, breaker: BreakerPolicy) -> None:
        self.key = key
        self.breaker = breaker
        self.users = 0

    @property
    def matters(self) -> bool:
        """Whether forgetting it would let somebody through who is to be kept away, or change what an operator has set."""
        return self.users > 0 or self.breaker.state is not State.CLOSED


class KeyedBreakers:
    """The breakers of the keys of one guard. Its lock is never held while one of theirs is taken."""

    __slots__ = ("_lock", "_own", "_shelf", "_site")

    def __init__(self, own: BreakerPolicy, site: Site) -> None:
        """None yet; ``own`` is the breaker of the guard, whose options they have."""
        self._own = own
        self._site = site
        self._lock = threading.RLock()
        self._shelf: Shelf[Hashable, Circuit] = Shelf(own.options.max_keys)

    def lend(self, key: Hashable) -> Circuit | None:
        """The circuit of ``key`` for one call, to be given back; None: there is no room, or we have failed to make one. Never raises."""
        try:
            options = self._own.options
            with self._lock:
                circuit = self._shelf.get(key)
                if circuit is None:
                    self._shelf.size = options.max_keys
                    if not self._shelf.make_room(_matters):
                        return None
                    # It hears of every call by itself, so it needs a recorder for no more than to be a view on one.
                    site = replace(self._site, recorder=Recorder(Switch(), ()), key=_name(key))
                    circuit = Circuit(key, options.build(site))
                    self._shelf.put(key, circuit)
                else:
                    self._shelf.hold(key)
                circuit.users += 1
            if circuit.breaker.options is not options:
                circuit.breaker.reconfigure(options)
        except Exception as defect:  # noqa: BLE001 - fail open: a key of somebody's making may raise when it is compared
            self._defect(defect)
            return None
        return circuit

    async def through(self, circuit: Circuit, inner: Next, call: PolicyCall) -> Any:
        """Take a call through the breaker of its key, and give the circuit back when it has ended."""
        try:
            result = await circuit.breaker(inner, call)
        except BaseException:
            self.give_back(circuit)
            raise
        if call.lasting:
            call.at_end(lambda outcome, now: self.give_back(circuit))  # noqa: ARG005 - how and when it ended do not matter here
        else:
            self.give_back(circuit)
        return result

    def give_back(self, circuit: Circuit) -> None:
        """A call has ended, or an operator has moved it: the circuit may be forgotten when nothing speaks against it. Never raises."""
        try:
            with self._lock:
                circuit.users -= 1
                if not circuit.matters:
                    # After a reset another one may stand in its place. If that is in use, it is found to matter before it is forgotten.
                    self._shelf.let_go(circuit.key)
        except Exception as defect:  # noqa: BLE001 - as in lend: the call has ended, and nobody is to hear of this but the listeners
            self._defect(defect)

    def reach(self, key: Hashable, act: Callable[[BreakerPolicy], _T]) -> _T:
        """Do something to the breaker of ``key``, made if there is none.

        Raises :class:`~somaresil.errors.ConfigurationError` when there is no room for it.
        """
        circuit = self.lend(key)
        if circuit is None:
            check = Checker(f"breaker({self._site.name!r})")
            hint = "all of them are open or in use; reset some, or allow more"
            check.problem("key", key, f"at most max_keys ({self._own.options.max_keys}) keys", hint)
            check.finish()
            raise KeyError(key)
        try:
            return act(circuit.breaker)
        finally:
            self.give_back(circuit)

    def forget(self) -> None:
        """Every circuit anew at its next call. Those that are lent go on to the end of their calls, and have no say after it."""
        with self._lock:
            self._shelf = Shelf(self._own.options.max_keys)

    def redraw(self) -> None:
        """Draw the jitter of the next openings anew."""
        for circuit in self._circuits():
            circuit.breaker.redraw()

    def states(self) -> dict[State, int]:
        """How many keys are in each state."""
        found = dict.fromkeys(State, 0)
        for circuit in self._circuits():
            found[circuit.breaker.state] += 1
        return found

    def _defect(self, defect: Exception) -> None:
        self._site.listeners.defect(f"keys of guard {self._site.name}", defect, self._site.clock.time(), "the call went on")

    def _circuits(self) -> list[Circuit]:
        with self._lock:
            return list(self._shelf.values())


class Keyed:
    """A guard as the calls of a key see it. Made by :meth:`Guard.keyed`; decorator, context manager and caller in one."""

    __slots__ = ("_by", "_guard", "_key")

    def __init__(self, guard: Guard, key: Hashable | None, by: str | Callable[..., Hashable | None] | None) -> None:
        """For one key, or for the key that each call has."""
        check = Checker(f"guard({guard.name!r}).keyed")
        if (key is None) is (by is None):
            check.problem("key", key, "either a key or by=", "keyed('acme') is for one key, keyed(by='tenant') for that of each call")
        if not _is_key(key):
            check.problem("key", key, "something hashable")
        if by is not None and not isinstance(by, str) and (not callable(by) or shape_of(by) is not Shape.FUNCTION):
            check.problem("by", by, "the name of an argument, or a plain function of the arguments that returns the key")
        options = guard.options.breaker
        if options is None:
            check.problem("breaker", None, "a guard with a breaker", "give it one: guard(..., breaker=True)")
        elif not options.per_key:
            check.problem("breaker", options, "a breaker of our own", "one object cannot be the circuit of many keys")
        check.finish()
        self._guard = guard
        self._key = key
        self._by = by
        guard.keys()

    def __repr__(self) -> str:
        """Guard and key."""
        by = self._by
        how = repr(self._key) if by is None else f"the argument {by!r}" if isinstance(by, str) else "a function"
        return f"<{self._guard!r} keyed by {how}>"

    def __call__(self, target: _F) -> _F:
        """Guard what :meth:`Guard.__call__` guards, with a circuit for each key."""
        self._guard.check_target(target)
        guarded: _F = decorate(self._guard, target, self._wrapper)
        return guarded

    def call(self, function: Callable[_P, _T], /, *args: _P.args, **kwargs: _P.kwargs) -> _T:
        """Call a plain function through the guard, once."""
        self._guard.check_plain(function)
        result: _T = self._wrapper(function)(*args, **kwargs)
        return result

    async def acall(self, function: Callable[_P, Awaitable[_T]], /, *args: _P.args, **kwargs: _P.kwargs) -> _T:
        """Call a coroutine function, or anything that returns an awaitable, through the guard, once."""
        result: _T = await self._wrapper(self._guard.awaitable(function))(*args, **kwargs)
        return result

    def __enter__(self) -> Self:
        """Begin a guarded block."""
        self._check_block()
        block.begin(self._guard, self._key)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Judge the block."""
        block.end(self._guard, error, self._key)

    async def __aenter__(self) -> Self:
        """Begin a guarded block that may be cancelled when its time is up."""
        self._check_block()
        await block.abegin(self._guard, self._key)
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Judge the block."""
        await block.aend(self._guard, error, self._key)

    # -- inside -----------------------------------------------------------------------------------------------------------------------

    def _check_block(self) -> None:
        if self._by is not None:
            check = Checker(f"guard({self._guard.name!r}).keyed")
            check.problem("by", self._by, "a key for a `with` block", "a block has no arguments: with guard.keyed('acme')")
            check.finish()

    def _wrapper(self, function: Callable[..., Any]) -> Callable[..., Any]:
        guard, key_of = self._guard, self._key_of(function)
        shape = shape_of(function)
        if shape is Shape.GENERATOR:
            return stream_wrapper(guard, function, _keyed(StreamCall, key_of))
        if shape is Shape.ASYNC_GENERATOR:
            return async_stream_wrapper(guard, function, _keyed(AsyncStreamCall, key_of))
        if shape is Shape.COROUTINE:

            @functools.wraps(function)
            async def awaited(*args: Any, **kwargs: Any) -> Any:
                call = CoroutineCall(guard, function, args, kwargs)
                call.key = key_of(args, kwargs)
                return await guard.adrive(call)

            return awaited

        @functools.wraps(function)
        def called(*args: Any, **kwargs: Any) -> Any:
            call = FunctionCall(guard, function, args, kwargs)
            call.key = key_of(args, kwargs)
            try:
                return guard.drive(call)
            except BaseException as error:
                shorten(error)
                raise

        return called

    def _key_of(self, function: Callable[..., Any]) -> KeyOf:
        """What reads the key of a call; never raises."""
        guard, by = self._guard, self._by
        if by is None:
            key = self._key
            return lambda args, kwargs: key  # noqa: ARG005 - it is the same for all
        read = reader_of(guard, function, by) if isinstance(by, str) else _computed(by)

        def key_of(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Hashable | None:
            try:
                key: Hashable | None = read(args, kwargs)
                hash(key)
            except Exception as broken:  # noqa: BLE001 - fail open: the call has no key then
                guard.listeners.defect(f"key of a call of guard {guard.name}", broken, guard.clock.time(), "its own breaker was used")
                return None
            return key

        return key_of


def _keyed(kind: type[_C], key_of: KeyOf) -> Callable[..., _C]:
    """What makes calls of this kind that have a key."""

    def make(guard: Guard, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> _C:
        call = kind(guard, function, args, kwargs)
        call.key = key_of(args, kwargs)
        return call

    return make


def _computed(by: Callable[..., Hashable | None]) -> KeyOf:
    return lambda args, kwargs: by(*args, **kwargs)


def reader_of(guard: Guard, function: Callable[..., Any], name: str) -> KeyOf:
    """What reads the argument called ``name``, given by position, by name or by default. Raises when there is none of that name."""
    parameters = inspect.signature(function).parameters
    found = parameters.get(name)
    if found is None or found.kind in {found.VAR_POSITIONAL, found.VAR_KEYWORD}:
        if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
            check = Checker(f"guard({guard.name!r}).keyed")
            known = ", ".join(parameters) or "it has none"
            check.problem(
                "by", name, f"an argument of {getattr(function, '__qualname__', function)} ({known})", did_you_mean(name, parameters)
            )
            check.finish()
        return lambda args, kwargs: kwargs.get(name)  # noqa: ARG005 - it can come by name only
    positional = [p.name for p in parameters.values() if p.kind in {p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD}]
    place = positional.index(name) if name in positional else len(positional) + 1_000_000
    default = None if found.default is found.empty else found.default

    def read(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Hashable | None:
        key: Hashable | None = args[place] if place < len(args) else kwargs.get(name, default)
        return key

    return read


def _matters(circuit: Circuit) -> bool:
    return circuit.matters


def _is_key(key: object) -> bool:
    try:
        hash(key)
    except Exception:  # noqa: BLE001 - a hash of somebody's making may raise anything
        return False
    return True


def _name(key: Hashable) -> str:
    """How a key is called in events and texts; never raises."""
    try:
        return (key if isinstance(key, str) else repr(key))[:_LONGEST_NAME]
    except Exception:  # noqa: BLE001 - a key that cannot be shown has a circuit all the same
        return f"<a {type(key).__name__}>"
