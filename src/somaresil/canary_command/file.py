"""A rollout from a file: the phases, who knows what was seen, who moves the traffic.

::

    [canary]                            # a CanaryConfig
    name = "gateway"
    bad = "availability"
    bake = "5m"
    steps = [10, 50, 100]               # or tables, [[canary.steps]], with weight (percent), name, bake, minimum_events ...

    [slos.availability]                 # what the objectives allow; as in the file of the gate. Not needed with allowed = <ratio>
    target_percentage = 99.9
    measurement_window = "30d"

    [judge]                             # a FleetJudge
    quorum = 0.5
    [[judge.sources]]                   # one at least: scrape, redis, push
    kind = "scrape"
    urls = ["http://gateway-canary:8080/evidence"]
    role = "candidate"
    token_env = "EVIDENCE_TOKEN"

    [router]                            # nginx, haproxy, flagger, argo, command; left out: somebody else asks, and moves it himself
    kind = "command"
    set = ["deploy/traffic", "{percent}"]

    [run]
    snapshot = "gateway.canary.json"    # where it goes on when it is started again

    [render]                            # RenderOptions
    name = "gateway"

TOML, or YAML with ``pip install "somaresil[yaml]"``. Nothing that a file names is imported; the commands of a router are run, and no shell.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from somaresil.canary.config import CanaryConfig
from somaresil.canary.fleet import EvidenceInbox, FleetJudge
from somaresil.canary.ledger import Levels
from somaresil.canary_command.router import CommandRouter
from somaresil.config import Checker, did_you_mean
from somaresil.errors import ConfigurationError
from somaresil.model.rollout import Phase
from somaresil.settings.entries import duration_of
from somaresil.settings.files import document_of
from somaresil.slofile import slos_of

if TYPE_CHECKING:
    import os

    from somaresil.canary.opinion import CanaryJudge
    from somaresil.canary.router import TrafficRouter
    from somaresil.resilience import Resilience
    from somaresil.settings.files import Document

__all__ = ["RolloutFile", "read_rollout"]

_TABLES: Final = ("canary", "slos", "judge", "router", "run", "render")
_STEP: Final = tuple(Phase._fields)
_TIMES: Final = frozenset({"bake", "longest", "interval", "every", "patience", "stale", "timeout", "keep"})
_MOST_SOURCES: Final = 64


@dataclass(frozen=True, slots=True)
class RolloutFile:
    """What a file says. Nothing of it is started, and nobody was asked."""

    config: CanaryConfig
    levels: Levels
    snapshot: str | None
    router: Callable[[str], TrafficRouter] | None
    """Makes the router for a version."""
    judge: Mapping[str, Any] | None
    sources: tuple[tuple[str, Mapping[str, Any]], ...]
    render: Mapping[str, Any] | None
    document: Document

    def judge_for(self, resilience: Resilience) -> CanaryJudge:
        """The judge that it describes. Raises :class:`~somaresil.errors.ConfigurationError` with every problem found."""
        check = Checker()
        made: list[Any] = []
        for number, (kind, options) in enumerate(self.sources):
            path = ("judge", "sources", str(number))
            made.append(_made(self.document, path, partial(_source, kind, options, resilience), check))
        check.finish()
        options = dict(self.judge or {})
        judge = _made(
            self.document,
            ("judge",),
            lambda: FleetJudge(
                resilience,
                name=self.config.name,
                bad=self.config.objectives,
                sources=made,
                levels=self.levels,
                minimum_events=max(1, int(self.config.minimum_events)),
                prove=any(phase.prove for phase in self.config.phases),
                **options,
            ),
            check,
        )
        check.finish()
        if not isinstance(judge, FleetJudge):  # pragma: no cover - finish has raised
            raise TypeError(self.config.name)
        return judge


def read_rollout(source: str | os.PathLike[str] | Mapping[str, Any], *, rendered: bool = False) -> RolloutFile:
    """Read a file by its ending, or take a mapping. ``rendered``: it is for ``render`` alone, and needs no judge.

    Raises :class:`~somaresil.errors.ConfigurationError` with every problem found, each with its file and line.
    """
    check = Checker()
    document = document_of(source, check)
    check.finish()
    if document is None:  # pragma: no cover - finish has raised
        raise ConfigurationError(())
    data = document.data
    _known(document, data, _TABLES, (), check)
    canary = _table(document, data, "canary", check, required=True)
    config = _config(document, canary, check)
    levels = _levels(document, data, config, check)
    judge = _table(document, data, "judge", check, required=not rendered)
    sources = _sources(document, judge, check)
    # What is wrong with those that are there was told by now.
    if judge.get("sources", []) == [] and not rendered and isinstance(data.get("judge"), Mapping):
        hint = "without one nobody knows what was seen"
        check.problem(_where(document, ("judge", "sources")), None, "one source of evidence at least: scrape, redis, push", hint)
    options = {name: _value(name, value) for name, value in judge.items() if name != "sources"}
    known = _options_of(FleetJudge, without=("resilience", "name", "bad", "sources", "levels", "minimum_events", "prove"))
    _known(document, options, known, ("judge",), check)
    router = _router(document, data, check)
    run = _table(document, data, "run", check)
    _known(document, run, ("snapshot",), ("run",), check)
    snapshot = run.get("snapshot")
    if snapshot is not None and not (isinstance(snapshot, str) and snapshot):
        check.problem(_where(document, ("run", "snapshot")), snapshot, "the path of a file in a folder that is there")
    render = _table(document, data, "render", check)
    check.finish()
    if config is None or levels is None:  # pragma: no cover - finish has raised
        raise ConfigurationError(())
    known_options = {name: value for name, value in options.items() if name in known}
    return RolloutFile(config, levels, snapshot, router, known_options, sources, render or None, document)


# -- the tables -------------------------------------------------------------------------------------------------------------------------


def _config(document: Document, table: Mapping[str, Any], check: Checker) -> CanaryConfig | None:
    known = tuple(each.name for each in fields(CanaryConfig))
    _known(document, table, known, ("canary",), check)
    absent = [name for name in ("name", "bad") if name not in table]
    for name in absent:
        hint = "without one nobody knows what a bad event is" if name == "bad" else ""
        check.problem(_where(document, ("canary", name)), None, "a value: it has no default", hint)
    options = {name: _value(name, value) for name, value in table.items() if name in known}
    if isinstance(options.get("steps"), list):
        options["steps"] = [_step(document, number, step, options, check) for number, step in enumerate(options["steps"])]
    steps = options.get("steps")
    if absent or (isinstance(steps, list) and None in steps):
        return None
    made = _made(document, ("canary",), lambda: CanaryConfig(**options), check)
    return made if isinstance(made, CanaryConfig) else None


def _step(document: Document, number: int, step: Any, canary: Mapping[str, Any], check: Checker) -> Any:
    """A percentage as it is, or a table as a phase."""
    if not isinstance(step, Mapping):
        return step
    path = ("canary", "steps", str(number))
    _known(document, step, _STEP, path, check)
    weight = step.get("weight")
    if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0.0 <= weight <= 100.0:  # noqa: PLR2004
        check.problem(_where(document, (*path, "weight")), weight, "percent of the traffic, 0 to 100")
        return None
    given = {name: _value(name, value) for name, value in step.items() if name in _STEP}
    usual: dict[str, Any] = {
        "name": f"ramp_{weight:g}",
        "bake": canary.get("bake", 300.0),
        "minimum_events": canary.get("minimum_events", 50),
        "prove": canary.get("prove", False),
    }
    whole: dict[str, Any] = {**usual, **given, "weight": weight / 100.0}
    return Phase(**whole)


def _levels(document: Document, data: Mapping[str, Any], config: CanaryConfig | None, check: Checker) -> Levels | None:
    """How sure one has to be, with what the objectives of the file allow."""
    targets: dict[str, float] = {}
    if data.get("slos"):
        slos = _made(document, ("slos",), lambda: slos_of(_only_slos(document)), check)
        targets = {} if slos is None else {slo.name: slo.target_percentage for slo in slos.slos}
    if config is None:
        return None
    allowed: float | None = None
    if config.allowed == "objective":
        for name in config.objectives:
            if name not in targets:
                hint = did_you_mean(name, targets) or "allowed = <ratio> does without"
                check.problem(_where(document, ("canary", "bad")), name, f"an objective in [slos] ({', '.join(targets) or 'none'})", hint)
        shares = {1.0 - targets[name] / 100.0 for name in config.objectives if name in targets}
        if len(shares) > 1:
            hint = "a judge of pods has one share for all of them"
            check.problem(_where(document, ("canary", "allowed")), "objective", "a ratio, for objectives with different targets", hint)
        allowed = min(0.999, *shares) if shares else None
    elif config.allowed is not None:
        allowed = float(config.allowed)
    made = _made(document, ("canary",), lambda: Levels(alpha=config.alpha, beta=config.beta, worst=config.worst, allowed=allowed), check)
    return made if isinstance(made, Levels) else None


def _only_slos(document: Document) -> Document:
    return replace(document, data={"slos": document.data["slos"]})


def _sources(document: Document, judge: Mapping[str, Any], check: Checker) -> tuple[tuple[str, Mapping[str, Any]], ...]:
    given = judge.get("sources", [])
    if not isinstance(given, list) or len(given) > _MOST_SOURCES:
        check.problem(_where(document, ("judge", "sources")), given, f"a list of at most {_MOST_SOURCES} tables")
        return ()
    found: list[tuple[str, Mapping[str, Any]]] = []
    for number, each in enumerate(given):
        path = ("judge", "sources", str(number))
        if not isinstance(each, Mapping):
            check.problem(_where(document, path), each, "a table")
            continue
        kind = each.get("kind")
        if not isinstance(kind, str) or kind not in _SOURCES:
            check.problem(_where(document, (*path, "kind")), kind, " | ".join(_SOURCES), did_you_mean(kind, _SOURCES))
            continue
        options = {name: _value(name, value) for name, value in each.items() if name != "kind"}
        _known(document, options, _SOURCES[kind](), path, check)
        found.append((kind, options))
    return tuple(found)


def _source(kind: str, options: Mapping[str, Any], resilience: Resilience) -> Any:
    if kind == "scrape":
        from somaresil.integrations.evidence import ScrapeSource

        return ScrapeSource(**options)
    if kind == "redis":
        from somaresil.integrations.redisevidence import RedisEvidence

        return RedisEvidence(**options)
    return EvidenceInbox(resilience, **options)


def _of_scrape() -> tuple[str, ...]:
    from somaresil.integrations.evidence import ScrapeSource

    return _options_of(ScrapeSource, without=("clock",))


def _of_redis() -> tuple[str, ...]:
    from somaresil.integrations.redisevidence import RedisEvidence

    return _options_of(RedisEvidence)


def _of_push() -> tuple[str, ...]:
    return _options_of(EvidenceInbox, without=("resilience",))


_SOURCES: Final[dict[str, Callable[[], tuple[str, ...]]]] = {"scrape": _of_scrape, "redis": _of_redis, "push": _of_push}


def _nginx() -> Any:
    from somaresil.integrations.nginx import NginxWeights

    return NginxWeights


def _haproxy() -> Any:
    from somaresil.integrations.haproxy import HAProxyWeights

    return HAProxyWeights


def _flagger() -> Any:
    from somaresil.integrations.kubernetes import FlaggerCanary

    return FlaggerCanary


def _argo() -> Any:
    from somaresil.integrations.kubernetes import ArgoRollout

    return ArgoRollout


_ROUTERS: Final[dict[str, Callable[[], Any]]] = {
    "nginx": _nginx,
    "haproxy": _haproxy,
    "flagger": _flagger,
    "argo": _argo,
    "command": lambda: CommandRouter,
}


def _router(document: Document, data: Mapping[str, Any], check: Checker) -> Callable[[str], TrafficRouter] | None:
    table = _table(document, data, "router", check)
    if not table:
        return None
    kind = table.get("kind")
    if not isinstance(kind, str) or kind not in _ROUTERS:
        check.problem(_where(document, ("router", "kind")), kind, " | ".join(_ROUTERS), did_you_mean(kind, _ROUTERS))
        return None
    made = _ROUTERS[kind]()
    options = {name: _value(name, value) for name, value in table.items() if name != "kind"}
    known = _options_of(made, without=("clock", "client", "version"))
    _known(document, options, known, ("router",), check)
    options = {name: value for name, value in options.items() if name in known}
    absent = [name for name in _required(made) if name not in options]
    for name in absent:
        check.problem(_where(document, ("router", name)), None, "a value: it has no default")

    def make(version: str) -> TrafficRouter:
        # A command is told the version with each order, also by a process that goes on with what another one has started.
        router: TrafficRouter = made(**options, version=version) if made is CommandRouter else made(**options)
        return router

    # Made here once, so that --check finds what is wrong with it; a router does nothing before its first order.
    return None if absent or _made(document, ("router",), partial(make, ""), check) is None else make


# -- reading ----------------------------------------------------------------------------------------------------------------------------


def _table(document: Document, data: Mapping[str, Any], name: str, check: Checker, *, required: bool = False) -> Mapping[str, Any]:
    found = data.get(name)
    if found is None and not required:
        return {}
    if not isinstance(found, Mapping):
        check.problem(_where(document, (name,)), found, "a table")
        return {}
    return found


def _options_of(kind: Any, *, without: tuple[str, ...] = ()) -> tuple[str, ...]:
    return tuple(name for name in inspect.signature(kind).parameters if name not in without)


def _required(kind: Any) -> tuple[str, ...]:
    return tuple(name for name, each in inspect.signature(kind).parameters.items() if each.default is inspect.Parameter.empty)


def _value(name: str, value: Any) -> Any:
    """Times may be words: ``5m``."""
    if name in _TIMES and isinstance(value, str):
        length = duration_of(value.strip())
        return value if length is None else length.total_seconds()
    return value


def _made(document: Document, path: tuple[str, ...], make: Callable[[], Any], check: Checker) -> Any:
    """What ``make`` makes; None, and the problems where they stand in the file."""
    try:
        return make()
    except ConfigurationError as wrong:
        for problem in wrong.problems:
            option = problem.path.partition(").")[2] or problem.path.rpartition(".")[2]
            here = (*path, *option.replace("[", ".").replace("]", "").split("."))
            # One that says where it stands says it already.
            place = problem.path if document.name and problem.path.startswith(document.name) else _where(document, here)
            check.problem(place, problem.value, problem.allowed, problem.hint)
    except TypeError as missing:
        check.problem(_where(document, path), None, str(missing)[:200])
    return None


def _known(document: Document, data: Mapping[Any, Any], known: tuple[str, ...], path: tuple[str, ...], check: Checker) -> None:
    for name in data:
        if name not in known:
            here = (*path, str(name))
            check.problem(_where(document, here), data[name], f"one of {', '.join(known)}", did_you_mean(name, known))


def _where(document: Document, path: tuple[str, ...]) -> str:
    return document.where(path, ".".join(repr(part) if "." in part else part for part in path))
