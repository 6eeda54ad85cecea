"""One experiment: what is done, what must hold, and how long each phase takes.

The phases, in their order:

- **baseline**: nothing is done. What is counted is what the rest is compared with; at its end the hypothesis must hold, or the experiment
  is not started: a service that is in trouble already needs people, not faults;
- **inject**: the windows of faults run, each a lease of its own. Abort conditions are looked at all the time, and end every fault at once;
- **observe**: the faults are over; what follows from them is watched for a fixed time;
- **recover**: as long as it takes until the hypothesis holds again and no circuit that opened is open, and no longer than allowed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import KW_ONLY, MISSING, dataclass, fields, replace
from typing import TYPE_CHECKING, Any, Final, TypeVar

from somaresil.chaos.plan import MOST_WINDOWS, ChaosPlan, FaultWindow
from somaresil.config import Checker, did_you_mean
from somaresil.errors import ConfigurationError
from somaresil.gameday.groups import Groups
from somaresil.gameday.probes import Probe

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["GATES", "LONGEST_PHASE", "Experiment", "Gate", "experiment_of", "gate_of"]

_T = TypeVar("_T")

LONGEST_PHASE: Final = 86_400.0
"""Seconds of one phase, at most."""
_MOST: Final = 50
"""Probes, conditions or gates of one experiment."""
GATES: Final = ("held", "confirm", "probe")


@dataclass(frozen=True, slots=True)
class Gate:
    """What must be so before an experiment begins. A gate that cannot be judged is closed.

    ``held``: every experiment before it has held. ``confirm``: somebody says yes to ``message``. ``probe``: a measurement lies within its
    tolerance (``Gate(probe=Probe("budget", "api", minimum=0.5))``). Raises :class:`~somaresil.errors.ConfigurationError`.
    """

    kind: str = "probe"
    _: KW_ONLY
    message: str = ""
    """What is asked, for ``confirm``."""
    probe: Probe | None = None
    """What is measured, for ``probe``."""

    def __post_init__(self) -> None:
        """Check everything."""
        check = Checker()
        kind = check.one_of("kind", self.kind, GATES)
        if (self.probe is not None) != (kind == "probe") or not isinstance(self.probe, Probe | None):
            check.problem("probe", self.probe, "a Probe for kind 'probe', else None")
        if not isinstance(self.message, str) or len(self.message) > 500 or (kind == "confirm") != bool(self.message):  # noqa: PLR2004
            check.problem("message", self.message, "what to ask, in 1 to 500 characters, for kind 'confirm'; else nothing")
        check.finish()

    @property
    def name(self) -> str:
        """For people."""
        if self.probe is not None:
            return self.probe.name
        return f"confirmed: {self.message}" if self.kind == "confirm" else "every experiment before it has held"

    def as_dict(self) -> dict[str, Any]:
        """For TOML, YAML and JSON: a probe stands there by itself."""
        if self.probe is not None:
            return self.probe.as_dict()
        return {"kind": self.kind, **({"message": self.message} if self.message else {})}


@dataclass(frozen=True, slots=True)
class Experiment:
    """Faults, a hypothesis, phases. Durations are seconds; the defaults are those of a careful run against a live service.

    ``faults`` are windows on the time line of the phase ``inject``, or a whole :class:`~somaresil.chaos.plan.ChaosPlan`, which brings its
    seed. Raises :class:`~somaresil.errors.ConfigurationError` with every problem found; paths are the field names.
    """

    name: str
    faults: tuple[FaultWindow, ...]
    _: KW_ONLY
    hypothesis: tuple[Probe, ...]
    """What holds while the service is well; each probe says when it must hold (before, during, after the faults)."""
    baseline: float = 30.0
    inject: float | None = None
    """None: until the last window is over."""
    observe: float = 0.0
    recover: float = 300.0
    """At most so long from the end of the faults until the hypothesis holds again, ``observe`` included."""
    abort: tuple[Probe, ...] = ()
    """When one of these leaves its tolerance, or raises, every fault ends at once."""
    groups: Groups | None = None
    gates: tuple[Gate, ...] = ()
    pause: float = 0.0
    """Seconds of rest after it."""
    every: float = 1.0
    """Seconds between two looks."""
    seed: int | None = None
    """By which the faults decide; None: that of the game day, and its place in it."""

    if TYPE_CHECKING:
        # Kept as tuples, taken as lists too.
        def __init__(
            self,
            name: str,
            faults: Iterable[FaultWindow] | ChaosPlan,
            *,
            hypothesis: Iterable[Probe],
            baseline: float = 30.0,
            inject: float | None = None,
            observe: float = 0.0,
            recover: float = 300.0,
            abort: Iterable[Probe] = (),
            groups: Groups | None = None,
            gates: Iterable[Gate] = (),
            pause: float = 0.0,
            every: float = 1.0,
            seed: int | None = None,
        ) -> None: ...

    def __post_init__(self) -> None:
        """Check everything."""
        check = Checker()
        keep = object.__setattr__
        if not isinstance(self.name, str) or not 0 < len(self.name.strip()) <= 120 or not self.name.isprintable():  # noqa: PLR2004
            check.problem("name", self.name, "a title of 1 to 120 printable characters")
        faults: Any = self.faults
        if isinstance(faults, ChaosPlan):
            keep(self, "seed", faults.seed if self.seed is None else self.seed)
            keep(self, "faults", faults.windows)
        keep(self, "faults", _listed(check, "faults", self.faults, FaultWindow, MOST_WINDOWS, needed=True))
        keep(self, "hypothesis", _listed(check, "hypothesis", self.hypothesis, Probe, _MOST, needed=True))
        keep(self, "abort", _listed(check, "abort", self.abort, Probe, _MOST))
        keep(self, "gates", _listed(check, "gates", self.gates, Gate, _MOST))
        for name in ("baseline", "observe", "recover", "pause"):
            keep(self, name, check.seconds(name, getattr(self, name), exclusive=name in {"baseline", "recover"}, maximum=LONGEST_PHASE))
        keep(self, "every", check.seconds("every", self.every, minimum=0.01, exclusive=False, maximum=60.0))
        keep(self, "inject", check.seconds("inject", self.inject, optional=True, maximum=LONGEST_PHASE))
        for number, window in enumerate(self.faults):
            if self.inject is not None and window.end > self.inject:
                check.problem(f"faults[{number}].duration", window.duration, f"an end within the phase inject, {self.inject:g} s")
            elif window.end > LONGEST_PHASE:
                check.problem(f"faults[{number}].duration", window.duration, f"an end within {LONGEST_PHASE:.0f} s of the start")
        if self.observe > self.recover:
            check.problem("observe", self.observe, f"at most recover, {self.recover:g} s", "recovery is counted from the end of the faults")
        if not isinstance(self.groups, Groups | None):
            check.problem("groups", self.groups, "Groups(...) or None")
        if self.seed is not None:
            check.count("seed", self.seed, minimum=0, maximum=2**63 - 1)
        check.finish()

    @property
    def plan(self) -> ChaosPlan:
        """The faults as a plan."""
        return ChaosPlan(self.faults, seed=self.seed or 0)

    @property
    def inject_seconds(self) -> float:
        """How long the phase ``inject`` lasts."""
        return float(self.plan.duration if self.inject is None else self.inject)

    @property
    def longest(self) -> float:
        """Seconds that it takes at most, without the time that somebody takes to confirm."""
        return self.baseline + self.inject_seconds + self.recover + self.pause

    @property
    def targets(self) -> tuple[str, ...]:
        """What the faults are aimed at, each once."""
        return tuple(dict.fromkeys(window.target for window in self.faults))

    def probes(self, moment: str) -> tuple[Probe, ...]:
        """The part of the hypothesis that must hold ``before``, ``during`` or ``after``."""
        return tuple(probe for probe in self.hypothesis if moment in probe.when)

    def named_probes(self, prefix: str) -> tuple[tuple[str, Probe], ...]:
        """Every probe with its path: of the hypothesis, of abort conditions and of gates."""
        gates = [(f"{prefix}gates[{i}]", gate.probe) for i, gate in enumerate(self.gates) if gate.probe is not None]
        groups = (("hypothesis", self.hypothesis), ("abort", self.abort))
        return (*((f"{prefix}{what}[{i}]", probe) for what, probes in groups for i, probe in enumerate(probes)), *gates)

    def seeded(self, seed: int) -> Experiment:
        """With a seed, if it has none."""
        return self if self.seed is not None else replace(self, seed=seed)

    def as_dict(self) -> dict[str, Any]:
        """For TOML, YAML and JSON: what differs from the defaults."""
        shown: dict[str, Any] = {}
        for option in fields(self):
            value = getattr(self, option.name)
            if option.default is MISSING or value != option.default:
                if isinstance(value, tuple):
                    value = [below.as_dict() for below in value]
                shown[option.name] = value.as_dict() if isinstance(value, Groups) else value
        return shown


def _listed(check: Checker, name: str, value: Any, kind: type[_T], most: int, *, needed: bool = False) -> tuple[_T, ...]:
    if isinstance(value, kind | str | Mapping) or not isinstance(value, Iterable):
        check.problem(name, value, f"a list or tuple of {kind.__name__}", "also for a single one")
        return ()
    listed: tuple[Any, ...] = tuple(value)
    if needed and not listed:
        check.problem(name, listed, f"at least one {kind.__name__}")
    if len(listed) > most:
        check.problem(name, f"{len(listed)} of them", f"at most {most}")
    for number, each in enumerate(listed):
        if not isinstance(each, kind):
            check.problem(f"{name}[{number}]", each, f"a {kind.__name__}")
    return tuple(each for each in listed[:most] if isinstance(each, kind))


_KIND_IN_ITS_PLACE: Final[dict[type, str]] = {FaultWindow: "error"}

# -- from data ----------------------------------------------------------------------------------------------------------------------------

_EXPERIMENT: Final = tuple(option.name for option in fields(Experiment))
_PROBE: Final = tuple(option.name for option in fields(Probe) if option.name != "check")
_GROUPS: Final = tuple(option.name for option in fields(Groups))
_WINDOW: Final = tuple(option.name for option in fields(FaultWindow))


def experiment_of(data: object, check: Checker) -> Experiment | None:
    """An experiment from what :meth:`Experiment.as_dict` gives; None, and problems in ``check``, when it is none."""
    if not isinstance(data, Mapping):
        check.problem("", data, "a table with name, faults and hypothesis")
        return None
    before = len(check.problems)
    known(check, data, _EXPERIMENT)
    missing(check, data, ("name", "faults", "hypothesis"))
    given: dict[str, Any] = {"name": "x", **{name: data[name] for name in _EXPERIMENT if name in data}}
    stand_in = {"faults": (FaultWindow("x", "error", 0, 1),), "hypothesis": (Probe("ratio", "x", minimum=0),)}
    makers: dict[str, Callable[[object, Checker], Any]] = {
        "faults": _window_of,
        "hypothesis": _probe_of,
        "abort": _probe_of,
        "gates": gate_of,
    }
    for name, make in makers.items():
        if name not in data:
            given.update({name: stand_in[name]} if name in stand_in else {})
            continue
        listed = data[name]
        if not isinstance(listed, list | tuple):
            check.problem(name, listed, "a list of tables")
            listed = ()
        elif not listed and name in stand_in:
            check.problem(name, listed, "at least one table")
        made = [make(each, check.child(f"{name}[{number}]")) for number, each in enumerate(listed[: MOST_WINDOWS + 1])]
        given[name] = tuple(each for each in made if each is not None) or stand_in.get(name, ())
    if (groups := data.get("groups")) is not None:
        given["groups"] = _made(Groups, groups, _GROUPS, (), check.child("groups"))
    found = _construct(Experiment, given, check)
    return found if len(check.problems) == before else None


def gate_of(data: object, check: Checker) -> Gate | None:
    """A gate from what :meth:`Gate.as_dict` gives: one of its own kinds, or a probe."""
    if isinstance(data, Mapping) and data.get("kind") in ("held", "confirm"):
        return _made(Gate, data, ("kind", "message"), ("kind",), check)
    probe = _probe_of(data, check)
    return None if probe is None else Gate(probe=probe)


def _window_of(data: object, check: Checker) -> FaultWindow | None:
    return _made(FaultWindow, data, _WINDOW, ("target", "kind", "start", "duration"), check, hint="a fault without an end is refused")


def _probe_of(data: object, check: Checker) -> Probe | None:
    return _made(Probe, data, _PROBE, ("kind", "target"), check)


def _made(kind: type[_T], data: object, names: tuple[str, ...], needed: tuple[str, ...], check: Checker, *, hint: str = "") -> _T | None:
    if not isinstance(data, Mapping):
        check.problem("", data, f"a table with {', '.join(needed or names)}")
        return None
    before = len(check.problems)
    known(check, data, names)
    absent = missing(check, data, needed, hint)
    # Stand-ins for what is missing, so that the rest is looked at too.
    stand_in: dict[str, Any] = {"target": "x", "kind": _KIND_IN_ITS_PLACE.get(kind, "ratio"), "start": 0.0, "duration": 1.0}
    given = {name: stand_in[name] for name in absent}
    given |= {name: tuple(value) if isinstance(value := data[name], list) else value for name in names if name in data}
    found = _construct(kind, given, check, absent)
    return found if len(check.problems) == before else None


def _construct(kind: type[_T], given: dict[str, Any], check: Checker, absent: Iterable[str] = ()) -> _T | None:
    try:
        return kind(**given)
    except ConfigurationError as wrong:
        for problem in wrong.problems:
            if problem.path not in absent:
                check.problem(problem.path, problem.value, problem.allowed, problem.hint)
    return None


def known(check: Checker, data: Mapping[Any, Any], names: tuple[str, ...]) -> None:
    """Note each field that does not exist."""
    for name in data:
        if name not in names:
            check.problem(str(name), data[name], f"one of {', '.join(names)}", did_you_mean(name, names))


def missing(check: Checker, data: Mapping[Any, Any], names: tuple[str, ...], hint: str = "") -> tuple[str, ...]:
    """Note each field that is needed and absent, and return them."""
    absent = tuple(name for name in names if name not in data)
    for name in absent:
        check.problem(name, None, "a value", hint if hint and name == "duration" else "it is missing")
    return absent
