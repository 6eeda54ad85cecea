"""Putting the policies of a guard together into one chain, and exchanging them while calls pass.

What is changed is made first and put in its place afterwards: a change is there whole, or not at all, and a call goes to its end
through the chain that it began with.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from types import MethodType
from typing import TYPE_CHECKING, Any, Final

from somaresil.config import Checker
from somaresil.guard.call import callee
from somaresil.guard.keyed import KeyedBreakers
from somaresil.guard.options import GuardOptions
from somaresil.policy.fault import FaultPoint

if TYPE_CHECKING:
    from somaresil.guard.measure import Hears
    from somaresil.policy.adaptive import AdaptivePolicy
    from somaresil.policy.breaker import BreakerPolicy
    from somaresil.policy.bulkhead import BulkheadPolicy
    from somaresil.policy.fallback import FallbackPolicy
    from somaresil.policy.hedge import HedgePolicy
    from somaresil.policy.ratelimit import RateLimitPolicy
    from somaresil.policy.retry import RetryPolicy
    from somaresil.policy.singleflight import SingleFlightPolicy
    from somaresil.policy.stale import StaleCachePolicy
    from somaresil.policy.throttle import ThrottlePolicy
    from somaresil.policy.timeout import TimeoutPolicy
    from somaresil.site import Site
    from somaresil.typing import Next

__all__ = ["LAYERS", "Assembly", "Prepared", "configuring"]

LAYERS: Final = ("fallback", "single_flight", "hedge", "retry", "throttle", "breaker", "rate_limit", "bulkhead", "timeout")
"""The policies a guard may have, outermost first. Each is an option of that name and a slot of the guard."""

configuring: Final = threading.RLock()
"""One for all guards: it is taken when somebody changes options, and guards are many."""


@dataclass(slots=True)
class Prepared:
    """Options for one guard, with the policies that had to be made for them."""

    options: GuardOptions
    built: dict[str, Any]


class Assembly:
    """The policies of a guard, one inside the other, and the options they work by."""

    __slots__ = (
        "_chain",
        "_core",
        "_has_keys",
        "_site",
        "breaker",
        "bulkhead",
        "clock",
        "fallback",
        "faults",
        "hedge",
        "listeners",
        "name",
        "options",
        "particular",
        "probes",
        "rate_limit",
        "recorder",
        "retry",
        "single_flight",
        "switch",
        "throttle",
        "timeout",
        "within_hedge",
    )

    def __init__(self, site: Site) -> None:
        """Without any policy."""
        self._site = site
        self.name = site.name
        self.recorder = site.recorder
        self.switch = site.recorder.switch
        self.clock = site.clock
        self.listeners = site.listeners
        self.faults = FaultPoint(self.switch)
        self.fallback: FallbackPolicy | StaleCachePolicy | None = None
        self.single_flight: SingleFlightPolicy | None = None
        self.hedge: HedgePolicy | None = None
        self.retry: RetryPolicy | None = None
        self.throttle: ThrottlePolicy | None = None
        self.breaker: BreakerPolicy | None = None
        self.rate_limit: RateLimitPolicy | None = None
        self.bulkhead: BulkheadPolicy | AdaptivePolicy | None = None
        self.timeout: TimeoutPolicy | None = None
        self._has_keys = False
        self._core: Next = callee
        self.within_hedge: Next
        """What is inside of the hedge, or would be."""
        self.probes: tuple[Hears, ...] = ()
        """Objectives and canaries that have to be told of each call."""
        self.options = GuardOptions()

    @property
    def pipeline(self) -> tuple[str, ...]:
        """The parts that a call passes on the full path, outermost first."""
        inmost = "pool" if self.is_pool else "callee"
        return ("record", *(layer for layer in LAYERS if getattr(self, layer) is not None), "fault", inmost)

    @property
    def is_pool(self) -> bool:
        """Whether its calls go to endpoints, each below a guard of its own."""
        return self._core is not callee

    def keys(self) -> KeyedBreakers | None:
        """The circuits of its keys, made when they are first asked for; None: it has no breaker that could be the model for them."""
        self._has_keys = True
        breaker = self.breaker
        if breaker is None or not breaker.options.per_key:
            return None
        if breaker.keys is None:
            with configuring:
                breaker.keys = breaker.keys or KeyedBreakers(breaker, self._site)
        return breaker.keys

    def route(self, core: Next) -> None:
        """Have ``core`` answer the calls in place of their callee, which it may call through other guards: that is what a pool does."""
        with configuring:
            self._core = core
            self.commit(self.prepare(self.options))
            self.switch.hold("pool")

    def measure(self, probes: tuple[Hears, ...]) -> None:
        """Tell these of the end of every call, and nobody else. Done before the first call."""
        with configuring:
            self.probes = probes
            self.switch.hold("objective", held=any(probe.needs_every_call for probe in probes))
            self.commit(self.prepare(self.options))

    def note_misfits(self, check: Checker, options: GuardOptions, prefix: str = "") -> None:
        """Note what these options ask of this guard that it cannot do."""
        slow = None if options.breaker is None else options.breaker.slow_call_duration
        if slow is not None and slow not in self.recorder.bounds:
            path = f"{prefix}breaker.slow_call_duration"
            check.problem(path, slow, f"one of the bounds {self.recorder.bounds}", "set it when the guard is made")
        if options.hedge is not None and not options.idempotent:
            allowed = "True, the name of the argument that holds the key, or a function that returns the key"
            hint = "a hedge calls again while the first attempt is still running"
            check.problem(f"{prefix}idempotent", options.idempotent, allowed, hint)

    def prepare(self, options: GuardOptions) -> Prepared:
        """Make everything that these options need and that is not there; nothing is changed. Give it to :meth:`commit` or :meth:`discard`.

        Raises :class:`~somaresil.errors.ConfigurationError` for what :meth:`note_misfits` notes. Hold :data:`configuring` from here on.
        """
        check = Checker(f"guard({self.name!r})")
        self.note_misfits(check, options)
        check.finish()
        ready = Prepared(options, {})
        try:
            for layer in LAYERS:
                if getattr(self, layer) is None and getattr(options, layer) is not None:
                    ready.built[layer] = getattr(options, layer).build(self._site)
        except BaseException:
            self.discard(ready)
            raise
        return ready

    def discard(self, ready: Prepared) -> None:
        """Forget what was prepared."""
        for policy in ready.built.values():
            _retire(policy)

    def commit(self, ready: Prepared) -> None:
        """Work by other options from now on. Never raises."""
        before, options = self.options, ready.options
        self.options = options
        chain: Next = MethodType(self.faults.__call__, self._core)
        for layer in reversed(LAYERS):
            try:
                self._place(layer, ready.built.get(layer), getattr(before, layer), getattr(options, layer))
            except Exception as defect:  # noqa: BLE001 - the other policies, and the other guards, get their new options all the same
                self.listeners.defect(f"the {layer} of guard {self.name}, taking over new options", defect, self.clock.time())
            policy = getattr(self, layer)
            if layer == "hedge":
                self.within_hedge = chain
            if policy is not None:
                # A method bound twice, to the policy and to what is inside it: half the size of a functools.partial, and called faster.
                chain = MethodType(policy.__call__, chain)
        self._chain = chain
        chosen = ((layer, getattr(options, layer)) for layer in LAYERS)
        self.particular = tuple((layer, option) for layer, option in chosen if hasattr(option, "unfit"))
        """The options that are not for every kind of function."""
        if self._has_keys:
            # A breaker that has come in the place of another one.
            self.keys()
        # One that judges errors only is asked when there is one.
        self.switch.hold("classify", held=options.classify is not None and getattr(options.classify, "judges_results", True))
        self._assembled()

    def _assembled(self) -> None:
        """What depends on which policies there are: called when they have changed. Never raises."""
        raise NotImplementedError

    def _place(self, layer: str, built: Any, before: Any, options: Any) -> None:
        """Have the policy of ``layer`` work by other options; its state stays when they are of the same kind."""
        policy = getattr(self, layer)
        if policy is not None and type(options) is not type(before):
            setattr(self, layer, None)
            _retire(policy)
            # Only now: a breaker goes on in the era where the one before it has left off.
            built = None if options is None else options.build(self._site)
            policy = None
        if policy is None:
            policy = built
            setattr(self, layer, policy)
        elif options != before:
            policy.reconfigure(options)
        if layer != "breaker":
            # A breaker holds the switch by itself, for as long as it is not closed.
            self.switch.hold(layer, held=policy is not None and not policy.quiet)


def _retire(policy: Any) -> None:
    if hasattr(policy, "retire"):
        policy.retire()
