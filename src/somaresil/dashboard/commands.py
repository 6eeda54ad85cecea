"""What operators do from the page, in one process: each worker does it, whichever of them was asked.

A command is plain data with the name of what is to be done (``do``), what it needs, and a key. The same key is done once: what it came to
is remembered, and told again. Nothing here asks who it is, that was done where the request came in.
"""

from __future__ import annotations

import re
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from somaresil.chaos.audit import acting
from somaresil.chaos.plan import ChaosPlan
from somaresil.config import LONGEST_NAME, Checker
from somaresil.errors import ConfigurationError
from somaresil.model.breaker import IllegalTransition

if TYPE_CHECKING:
    from somaresil.chaos.plan import ErrorMakers
    from somaresil.resilience import Resilience

__all__ = ["BREAKER_ACTS", "CANARY_ACTS", "Commands", "about", "approved"]

BREAKER_ACTS: Final = ("trip", "reset", "force_open", "disable")
CANARY_ACTS: Final = ("promote", "rollback", "pause", "resume")

_MOST_PLANS: Final = 200
_MOST_REMEMBERED: Final = 256
_REMEMBERED_FOR: Final = 600.0
"""Seconds: whoever sends the same request later means it."""
_PATIENCE: Final = 10.0
"""Seconds that a second request waits for what the first one comes to."""
_SHOWN_WINDOWS: Final = 3
_NO_LABEL: Final = re.compile(r"[^a-z0-9]+")


def approved(plans: Mapping[str, ChaosPlan] | None, check: Checker) -> dict[str, ChaosPlan]:
    """The plans that may be started by name; problems go to ``check``."""
    given: Any = {} if plans is None else plans
    if not isinstance(given, Mapping):
        check.problem("plans", given, "ChaosPlan by name, or None")
        return {}
    if len(given) > _MOST_PLANS:
        check.problem("plans", f"{len(given)} plans", f"at most {_MOST_PLANS}")
    found: dict[str, ChaosPlan] = {}
    for name, plan in given.items():
        where = f"plans[{name!r}]"
        if not isinstance(name, str) or not 0 < len(name) <= LONGEST_NAME or not name.isprintable() or name.strip() != name:
            check.problem("plans", name, f"names of 1 to {LONGEST_NAME} printable characters, no space at the ends")
        elif not isinstance(plan, ChaosPlan):
            check.problem(where, plan, "a ChaosPlan", "ChaosPlan.from_json(text) reads one")
        elif not plan.windows:
            check.problem(where, plan, "at least one window")
        else:
            found[name] = plan
    return found


def about(plan: ChaosPlan) -> str:
    """A plan in one line."""
    said = [
        f"{window.kind} on {window.target}, {100 * window.rate:.3g} % of the calls, {window.duration:g} s"
        + (f" after {window.start:g} s" if window.start else "")
        for window in plan.windows[:_SHOWN_WINDOWS]
    ]
    more = len(plan.windows) - _SHOWN_WINDOWS
    return "; ".join(said) + (f"; and {more} more" if more > 0 else "")


class Commands:
    """Does them. Safe to use from several threads."""

    def __init__(self, resilience: Resilience, plans: Mapping[str, ChaosPlan], errors: ErrorMakers | None = None) -> None:
        """``plans`` are those that may be started, and ``errors`` what the errors are that they name."""
        self._resilience = resilience
        self._plans = plans
        self._errors = errors
        self._lock = threading.Lock()
        self._done: OrderedDict[str, _Doing] = OrderedDict()
        self._ways: dict[str, Callable[[Mapping[str, Any], str], str]] = {
            "stop": self._stop,
            "engage": self._engage,
            "disengage": self._disengage,
            "start": self._start,
            "end": self._end,
            "breaker": self._breaker,
            "canary": self._canary,
        }

    def perform(self, command: Mapping[str, Any], actor: str) -> dict[str, Any]:
        """Do it, or say why not: ``done``, ``problem`` (None: there was none) and ``said``. Never raises an ``Exception``."""
        key = command.get("key")
        if not isinstance(key, str) or not key:
            return self._perform(command, actor)
        what = {name: value for name, value in command.items() if name not in {"key", "thrown"}}
        first, doing = self._doing(f"{actor}\0{key}", what)
        if first:
            doing.result = self._perform(command, actor)
            doing.over.set()
        elif doing.what != what:
            return _undone("its key stands for another request")
        elif not self._resilience.clock.wait(doing.over, _PATIENCE):
            return _undone("it is being done")
        return dict(doing.result)

    def _doing(self, key: str, what: Mapping[str, Any]) -> tuple[bool, _Doing]:
        now = self._resilience.clock.monotonic()
        with self._lock:
            while self._done and (len(self._done) >= _MOST_REMEMBERED or next(iter(self._done.values())).until <= now):
                self._done.popitem(last=False)
            known = self._done.get(key)
            if known is not None:
                return False, known
            made = self._done[key] = _Doing(what, now + _REMEMBERED_FOR)
            return True, made

    def _perform(self, command: Mapping[str, Any], actor: str) -> dict[str, Any]:
        way = self._ways.get(str(command.get("do")))
        if way is None:
            return _undone("this process knows no such command")
        try:
            with acting(actor):
                return {"done": True, "problem": None, "said": way(command, actor)}
        except _Impossible as refused:
            return _undone(str(refused))
        except ConfigurationError as wrong:
            return _undone("; ".join(f"{each.path}: expected {each.allowed}{_hint(each.hint)}" for each in wrong.problems)[:1_000])
        except Exception as defect:  # noqa: BLE001 - whoever asked gets an answer, also from another process
            self._resilience.listeners.defect("dashboard command", defect, self._resilience.clock.time(), "nobody knows what was done")
            return _undone("a defect of the dashboard; it was reported, and nothing is known about what was done")

    # -- chaos ---------------------------------------------------------------------------------------------------------------------------

    def _stop(self, command: Mapping[str, Any], actor: str) -> str:
        # Who was asked has thrown the switches that all obey: to throw them once more would stop what is started meanwhile.
        told = self._resilience.chaos.stop_all(here_only=bool(command.get("thrown")), actor=actor)
        return "everything has ended" if told else "everything has ended here; the switch of the host cannot be thrown"

    def _engage(self, command: Mapping[str, Any], actor: str) -> str:
        told = self._resilience.chaos.engage(_text(command, "reason"), actor=actor)
        return "the lever is engaged" if told else "the lever is engaged in this process"

    def _disengage(self, command: Mapping[str, Any], actor: str) -> str:
        self._resilience.chaos.disengage(_text(command, "reason"), actor=actor)
        return "the lever is released"

    def _start(self, command: Mapping[str, Any], actor: str) -> str:
        name = _text(command, "plan")
        plan = self._plans.get(name)
        if plan is None:
            raise _Impossible("no plan of that name is approved here")
        # The same in all workers, so that they are seen, and stopped, as one.
        label = (
            f"{_NO_LABEL.sub('-', name.lower()).strip('-')[:40] or 'plan'}-{_NO_LABEL.sub('', _text(command, 'key').lower())[:8] or 'x'}"
        )
        run = self._resilience.chaos.arm_plan(plan, errors=self._errors, actor=actor, label=label)
        return ", ".join(each.id for each in run.runs)

    def _end(self, command: Mapping[str, Any], actor: str) -> str:
        wanted = _text(command, "experiment")
        for run in self._resilience.chaos.history:
            if run.id == wanted:
                self._resilience.chaos.stop(run, actor=actor)
                return run.end_reason or ""
        raise _Impossible("there is no such experiment, or it has been forgotten")

    # -- the rest ------------------------------------------------------------------------------------------------------------------------

    def _breaker(self, command: Mapping[str, Any], actor: str) -> str:
        name, act = _text(command, "guard"), _text(command, "act")
        guard = self._resilience.find(name)
        if guard is None or guard.breaker is None or act not in BREAKER_ACTS:
            raise _Impossible("there is no such guard yet" if guard is None else "it has no breaker" if act in BREAKER_ACTS else "unknown")
        control = self._resilience.breaker(name)
        note = self._resilience.chaos.audit.note
        try:
            getattr(control, act)()
        except IllegalTransition:
            note(f"breaker_{act}", f"{name}: refused, it is {control.state.value}", who=actor)
            raise _Impossible(f"that cannot be done while it is {control.state.value.replace('_', ' ')}") from None
        note(f"breaker_{act}", f"{name}: {control.state.value}", who=actor)
        return control.state.value

    def _canary(self, command: Mapping[str, Any], actor: str) -> str:
        act = _text(command, "act")
        controller = self._resilience.canaries.get(_text(command, "canary"))
        if controller is None or act not in CANARY_ACTS:
            raise _Impossible("there is no such canary")
        reason = _text(command, "reason") or f"{actor} asked for it on the dashboard"
        decision = (controller.roll_back if act == "rollback" else getattr(controller, act))(reason)
        if decision.reason in _NOT_HERE:
            raise _Impossible(decision.reason)
        return str(decision.reason)


_NOT_HERE: Final = frozenset({"another process leads", "nothing was started"})


class _Doing:
    """A command that is being done, and what it came to."""

    __slots__ = ("over", "result", "until", "what")

    def __init__(self, what: Mapping[str, Any], until: float) -> None:
        self.what = what
        self.until = until
        self.over = threading.Event()
        self.result: dict[str, Any] = {}


class _Impossible(Exception):
    """There is a reason in words."""


def _undone(problem: str) -> dict[str, Any]:
    return {"done": False, "problem": problem, "said": ""}


def _text(command: Mapping[str, Any], name: str) -> str:
    value = command.get(name)
    return value if isinstance(value, str) else ""


def _hint(hint: str) -> str:
    return f" ({hint})" if hint else ""
