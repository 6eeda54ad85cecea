"""The pools of one process by name."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, NamedTuple

from somaresil.config import Checker
from somaresil.errors import ConfigurationError
from somaresil.guard.options import GuardOptions
from somaresil.pool.core import Pool, check_endpoints, check_hedge, split_options
from somaresil.pool.options import PoolOptions

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from somaresil.chance import Chance
    from somaresil.guard import Guard
    from somaresil.listeners import Listeners
    from somaresil.pool.options import Endpoint
    from somaresil.typing import Clock

__all__ = ["Pools"]


class Pools:
    """Makes pools, and finds them again."""

    def __init__(
        self,
        make_guard: Callable[..., Guard],
        guards: Callable[[], Mapping[str, Guard]],
        *,
        clock: Clock,
        chance: Chance,
        listeners: Listeners,
    ) -> None:
        """There is none yet."""
        self._make_guard = make_guard
        self._guards = guards
        self._parts: dict[str, Any] = {"clock": clock, "chance": chance, "listeners": listeners}
        self._lock = threading.RLock()
        self._pools: dict[str, Pool[Any]] = {}
        self._made: dict[str, _Made] = {}

    @property
    def all(self) -> Mapping[str, Pool[Any]]:
        """All pools by name, as they are now."""
        return dict(self._pools)

    def get(self, name: str, endpoints: Sequence[Endpoint[Any]] | None, options: dict[str, Any]) -> Pool[Any]:
        """The pool called ``name``; made at its first mention."""
        known = self._pools.get(name) if isinstance(name, str) else None
        if known is not None and endpoints is None and not options:
            return known
        check = Checker(f"pool({name!r})")
        check.name("name", name)
        ours, theirs = split_options(name, options)
        guard_options = GuardOptions.of(name, theirs, check)
        given = None if known is not None and endpoints is None else _endpoints(check, name, endpoints)
        pool_options = _pool_options(check, ours)
        if known is None:
            check_hedge(check, pool_options, guard_options.idempotent)
        check.finish()
        with self._lock:
            known = self._pools.get(name)
            if known is None:
                return self._make(name, theirs, _Made(pool_options, guard_options, given or ()))
        self._compare(name, ours, theirs, _Made(pool_options, guard_options, given or ()), endpoints_too=given is not None)
        return known

    def _make(self, name: str, theirs: dict[str, Any], made: _Made) -> Pool[Any]:
        check = Checker(f"pool({name!r})")
        guards = self._guards()
        for guard in (name, *(f"{name}/{endpoint.name}" for endpoint in made.endpoints)):
            if guard in guards:
                check.problem("name", name, "names that no guard has", f"guard {guard!r} was made at {guards[guard].where}")
        check.finish()
        pool: Pool[Any] = Pool(name, made.options, theirs, self._make_guard, **self._parts)
        pool.begin(made.endpoints)
        self._pools[name] = pool
        self._made[name] = made
        return pool

    def _compare(self, name: str, ours: dict[str, Any], theirs: dict[str, Any], given: _Made, *, endpoints_too: bool) -> None:
        check = Checker(f"pool({name!r})")
        made = self._made[name]
        hint = f"leave it out here, or change it with resilience.pool({name!r}).configure(...), add, remove or set_weight"
        for options, before, now in ((ours, made.options, given.options), (theirs, made.guard_options, given.guard_options)):
            for option in options:
                if getattr(before, option) != getattr(now, option):
                    check.problem(option, options[option], f"what it was made with ({getattr(before, option)})", hint)
        if endpoints_too and given.endpoints != made.endpoints:
            names = [endpoint.name for endpoint in made.endpoints]
            check.problem(
                "endpoints", [endpoint.name for endpoint in given.endpoints], f"those it was made with ({', '.join(names)})", hint
            )
        check.finish()


class _Made(NamedTuple):
    """What a pool was made with."""

    options: PoolOptions
    guard_options: GuardOptions
    endpoints: tuple[Endpoint[Any], ...]


def _pool_options(check: Checker, given: dict[str, Any]) -> PoolOptions:
    try:
        return PoolOptions(**given)
    except ConfigurationError as wrong:
        for found in wrong.problems:
            check.problem(found.path.rpartition(".")[2], found.value, found.allowed, found.hint)
        return PoolOptions()


def _endpoints(check: Checker, pool: str, endpoints: Any) -> tuple[Endpoint[Any], ...]:
    if isinstance(endpoints, str) or not hasattr(endpoints, "__iter__"):
        check.problem("endpoints", endpoints, "a list of Endpoint", "endpoints=[Endpoint('eu', client), ...]")
        return ()
    given = tuple(endpoints)
    if not given:
        check.problem("endpoints", endpoints, "at least one Endpoint")
    check_endpoints(check, pool, given)
    return given
