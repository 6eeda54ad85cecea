"""The guard of the process: one audit hook that asks every guard that watches.

A hook cannot be taken back (PEP 578), so there is one for the process, set when the first guard starts; without a guard that watches it
looks at the name of an event and goes.
"""

from __future__ import annotations

import sys
import threading
from collections import OrderedDict
from typing import TYPE_CHECKING, Any, Final

from somaresil.chaos.network.hooks import LOOKUPS, HookLostError
from somaresil.config import Checker
from somaresil.errors import ViolationBlocked
from somaresil.events import RuntimeViolation
from somaresil.runtime_guard.deeds import DEEDS, WRITING, Deed
from somaresil.runtime_guard.rules import Rule, RuntimeRules

if TYPE_CHECKING:
    from somaresil.resilience import Resilience

__all__ = ["RuntimeGuard"]

_MOST_TOLD: Final = 256
"""Subjects that are remembered as told."""
_TOLD_EVERY: Final = 60.0
_FLAGS: Final = 2
"""Where the flags of ``open`` stand among the arguments of its event."""

_watching: tuple[RuntimeGuard, ...] = ()
_hooked = False
_here = threading.local()
_lock = threading.RLock()


class RuntimeGuard:
    """Watches what this process does, by the rules, from :meth:`start` to :meth:`stop`.

    What happened before is not seen: start it when the service has imported what it needs, and before it takes requests. Children made by
    ``fork`` are watched as well; programs that are started are not. Each violation is told by
    :class:`~somaresil.events.RuntimeViolation`, the same one at most once a minute, and counted in
    ``somaresil_runtime_violations_total``. Where a rule refuses, the caller gets :class:`~somaresil.errors.ViolationBlocked`, which is a
    ``PermissionError``. A defect of ours lets the operation go on, and is reported.

    Raises :class:`~somaresil.errors.ConfigurationError` for rules that are none.
    """

    def __init__(self, resilience: Resilience, rules: RuntimeRules) -> None:
        """Nothing is watched yet."""
        check = Checker("RuntimeGuard")
        check.type("rules", rules, RuntimeRules, "RuntimeRules(...)")
        check.finish()
        self.rules = rules
        self._resilience = resilience
        self._rules = frozenset(rule for rule in Rule if getattr(rules, rule.value) is not None)
        self._blocking = frozenset(Rule(name) for name in rules.block)
        self._programs, self._peers = rules.programs(), rules.peers()
        self._folders, self._libraries = rules.folders(), rules.libraries()
        self._told: OrderedDict[tuple[Rule, str], tuple[float, int]] = OrderedDict()
        self._learns = False

    def __repr__(self) -> str:
        """What it looks at, and what it refuses."""
        looked = ", ".join(rule.value for rule in Rule if rule in self._rules)
        refused = ", ".join(self.rules.block) or "nothing"
        return f"<RuntimeGuard of {looked}; refuses {refused}>"

    @property
    def watching(self) -> bool:
        """Whether it watches."""
        return self in _watching

    def start(self) -> RuntimeGuard:
        """Watch from now on."""
        global _watching, _hooked  # noqa: PLW0603 - the hook belongs to the process
        with _lock:
            if self in _watching:
                return self
            if self._peers.by_name and Rule.HOSTS in self._rules:
                try:
                    LOOKUPS.hold()
                    self._learns = True
                except HookLostError as lost:
                    self._defect(lost, "addresses of names are not known: connections to them count as violations")
            _watching = (*_watching, self)
            if not _hooked:
                _hooked = True
                sys.addaudithook(_hook)
        return self

    def stop(self) -> None:
        """Watch no more."""
        global _watching  # noqa: PLW0603
        with _lock:
            if self not in _watching:
                return
            _watching = tuple(other for other in _watching if other is not self)
            if self._learns:
                self._learns = False
                LOOKUPS.release()

    def judge(self, event: str, arguments: tuple[Any, ...]) -> None:
        """What the hook asks. Raises :class:`~somaresil.errors.ViolationBlocked` for what is refused, and nothing else."""
        try:
            rule, read = DEEDS[event]
            if rule not in self._rules:
                return
            for deed in read(*arguments):
                if not self._allowed(deed):
                    self._violated(deed)
        except ViolationBlocked:
            raise
        except Exception as defect:  # noqa: BLE001 - what we cannot read is not the caller's fault
            self._defect(defect, "the operation went on")

    def _allowed(self, deed: Deed) -> bool:
        if deed.rule is Rule.PROCESSES:
            return self._programs.allow(deed.subject, deed.path)
        if deed.rule is Rule.HOSTS:
            return self._peers.allow(deed.subject, deed.port)
        if deed.rule is Rule.WRITES:
            return self._folders.allow(deed.subject)
        return self._libraries.allow(deed.subject)

    def _violated(self, deed: Deed) -> None:
        blocked = deed.rule in self._blocking
        subject = deed.subject if deed.port is None else f"{deed.subject}:{deed.port}"
        self._resilience.violations.note(f"{deed.rule.value} {'blocked' if blocked else 'reported'}")
        times = self._worth_telling((deed.rule, subject))
        if times and self._resilience.listeners.wants(RuntimeViolation):
            self._resilience.listeners.emit(
                RuntimeViolation(deed.rule.value, self._resilience.clock.time(), subject, blocked=blocked, times=times)
            )
        if blocked:
            raise ViolationBlocked(deed.rule.value, subject)

    def _worth_telling(self, key: tuple[Rule, str]) -> int:
        """How often it happened since it was last told; 0: it was told a moment ago."""
        now = self._resilience.clock.monotonic()
        with _lock:
            told = self._told.pop(key, None)
            if told is not None and now - told[0] < _TOLD_EVERY:
                self._told[key] = told[0], told[1] + 1
                return 0
            self._told[key] = now, 0
            if len(self._told) > _MOST_TOLD:
                self._told.popitem(last=False)
            return 1 if told is None else told[1] + 1

    def _defect(self, defect: Exception, consequence: str) -> None:
        self._resilience.listeners.defect("runtime guard", defect, self._resilience.clock.time(), consequence)


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    """Asked by the interpreter, often: most events are none of ours."""
    # While the interpreter ends, modules are emptied before hooks are taken away.
    if not _watching or DEEDS is None or event not in DEEDS:
        return
    if event == "open" and len(arguments) > _FLAGS and type(arguments[_FLAGS]) is int and not arguments[_FLAGS] & WRITING:
        # By far the most frequent of ours, and nearly always harmless.
        return
    if getattr(_here, "busy", False):
        # What listeners do when they are told is not looked at: it would be told again, without end.
        return
    _here.busy = True
    try:
        for guard in _watching:
            guard.judge(event, arguments)
    finally:
        _here.busy = False
