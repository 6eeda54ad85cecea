"""Fault plans as experiments of the Chaos Toolkit, and back; what became of such an experiment."""

from __future__ import annotations

import copy
import numbers
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, NamedTuple

from somaresil.chaos.plan import ChaosPlan, FaultWindow
from somaresil.config import Checker, did_you_mean
from somaresil.errors import ConfigurationError
from somaresil.integrations.chaostoolkit import actions, probes
from somaresil.integrations.chaostoolkit.actions import plan_of

__all__ = ["ToolkitExperiment", "ToolkitVerdict", "from_chaostoolkit", "probe", "run", "template", "to_chaostoolkit", "verdict_of"]

_PACKAGE: Final = __name__.rpartition(".")[0]
_ACTIONS, _PROBES, _CONTROLS = f"{_PACKAGE}.actions", f"{_PACKAGE}.probes", f"{_PACKAGE}.controls"
_STOPS: Final = ("stop_all", "stop_experiment")
_KNOWN: Final = (
    *("version", "title", "description", "tags", "configuration", "secrets", "controls", "steady-state-hypothesis", "method"),
    *("rollbacks", "runtime", "contributions", "extensions", "dry"),
)
_SECRET: Final = {"somaresil": {"token": {"type": "env", "key": "SOMARESIL_CONTROL_TOKEN"}}}
_SLACK: Final = 600.0
"""Seconds for all that an experiment does besides its plan, before the safety control ends it."""
_MOST: Final = 1_000
"""Activities."""


@dataclass(frozen=True, slots=True)
class ToolkitExperiment:
    """An experiment of the Chaos Toolkit, as far as it is ours."""

    plan: ChaosPlan
    title: str
    description: str = ""
    hypothesis: dict[str, Any] | None = None
    """``title`` and ``probes``, as the toolkit writes them."""
    service: str = ""
    tags: tuple[str, ...] = field(default=())


class ToolkitVerdict(NamedTuple):
    """What became of an experiment."""

    status: str
    """``passed``, ``deviated``, ``not started`` (the steady state failed before anything was done), ``failed``, ``aborted`` or
    ``interrupted``."""
    reason: str
    journal: dict[str, Any]


def probe(func: str, tolerance: Any, **arguments: Any) -> dict[str, Any]:
    """One probe of a hypothesis: a function of :mod:`somaresil.integrations.chaostoolkit.probes`, and what it may say.

    ``tolerance``: a value, or a pair of numbers between which it must lie. Raises :class:`~somaresil.errors.ConfigurationError`.
    """
    check = Checker("probe")
    check.one_of("func", func, probes.__all__)
    check.finish()
    if isinstance(tolerance, tuple | list):
        tolerance = {"type": "range", "range": list(tolerance)}
    provider = {"type": "python", "module": _PROBES, "func": func, "arguments": arguments}
    return {
        "type": "probe",
        "name": f"{func} {' '.join(map(str, arguments.values()))}".strip(),
        "tolerance": tolerance,
        "provider": provider,
    }


def to_chaostoolkit(
    plan: ChaosPlan,
    *,
    title: str,
    description: str = "",
    hypothesis: Mapping[str, Any] | None = None,
    service: str = "",
    tags: Iterable[str] = (),
) -> dict[str, Any]:
    """The plan as an experiment: one action that starts it whole, rollbacks that are always played, and the safety control.

    ``hypothesis``: ``{"title": ..., "probes": [probe(...), ...]}``. ``service``: what activities act on; for a URL the token comes from the
    environment variable ``SOMARESIL_CONTROL_TOKEN``. Raises :class:`~somaresil.errors.ConfigurationError`.
    """
    check = Checker("to_chaostoolkit")
    check.type("plan", plan, ChaosPlan, "a ChaosPlan")
    if not isinstance(title, str) or not title.strip():
        check.problem("title", title, "text")
    check.type("service", service, str, "module:name, or the URL of a control API")
    check.finish()
    remote = "://" in service
    activity = {"secrets": ["somaresil"]} if remote else {}
    seconds = plan.duration
    made: dict[str, Any] = {
        "version": "1.0.0",
        "title": title,
        "description": description or title,
        "tags": list(tags),
        "configuration": {"somaresil_service": service} if service else {},
        "secrets": copy.deepcopy(_SECRET) if remote else {},
        # Otherwise nothing is rolled back after Ctrl-C, or when an activity failed.
        "runtime": {"rollbacks": {"strategy": "always"}},
        "controls": [
            {"name": "somaresil-safety", "provider": {"type": "python", "module": _CONTROLS, "arguments": {"longest": seconds + _SLACK}}}
        ],
        "method": [
            {
                "type": "action",
                "name": "start the plan",
                "provider": {"type": "python", "module": _ACTIONS, "func": "start_plan", "arguments": {"plan": plan.as_dict()}, **activity},
                "pauses": {"after": seconds},
            }
        ],
        "rollbacks": [
            {
                "type": "action",
                "name": "end every fault",
                "provider": {"type": "python", "module": _ACTIONS, "func": "stop_all", **activity},
            }
        ],
    }
    if hypothesis is not None:
        made["steady-state-hypothesis"] = copy.deepcopy(dict(hypothesis))
        for each in made["steady-state-hypothesis"].get("probes", ()) if remote else ():
            each["provider"] |= activity
    # Read back, so that nothing leaves here that would be refused on its return.
    from_chaostoolkit(made)
    return made


def from_chaostoolkit(data: Mapping[str, Any]) -> ToolkitExperiment:
    """Read an experiment of the toolkit whose activities are ours. Nothing that it names is imported or called.

    Actions with pauses between them become windows of one plan. Raises :class:`~somaresil.errors.ConfigurationError` with path and reason
    of everything that would be lost: activities of other providers, probes in the method, substitutions.
    """
    check = Checker("experiment")
    if not isinstance(data, Mapping):
        check.problem("", data, "an experiment of the Chaos Toolkit, as an object")
        check.finish()
    for name in data:
        if name not in _KNOWN:
            check.problem(str(name), data[name], f"one of {', '.join(_KNOWN)}", did_you_mean(name, _KNOWN))
    plan = _plan(check, _list(check, data, "method"))
    for index, activity in enumerate(_list(check, data, "rollbacks")):
        _provider(check, f"rollbacks[{index}]", activity, "action", _ACTIONS, _STOPS)
    for index, control in enumerate(_list(check, data, "controls")):
        provider = control.get("provider") if isinstance(control, Mapping) else None
        if not isinstance(provider, Mapping) or provider.get("type") != "python" or provider.get("module") != _CONTROLS:
            check.problem(
                f"controls[{index}].provider", provider, f"the module {_CONTROLS}", "what another control does is not ours to know"
            )
    hypothesis = _hypothesis(check, data)
    configuration = data.get("configuration") or {}
    service = configuration.get("somaresil_service", "") if isinstance(configuration, Mapping) else ""
    if not isinstance(service, str):
        check.problem("configuration.somaresil_service", service, "text", "write it out; variables are not looked up here")
    check.finish()
    _validate(check, data)
    check.finish()
    title, said = str(data["title"]), str(data["description"])
    return ToolkitExperiment(plan, title, "" if said == title else said, hypothesis, service, tuple(data.get("tags") or ()))


def _list(check: Checker, data: Mapping[str, Any], name: str) -> list[Any]:
    found = data.get(name) or []
    if not isinstance(found, list) or len(found) > _MOST:
        check.problem(name, "not a list, or a long one", f"a list of at most {_MOST}")
        return []
    return found


def _provider(
    check: Checker, path: str, activity: object, kind: str, module: str, funcs: Iterable[str]
) -> tuple[str, dict[str, Any]] | None:
    """The function of an activity and its arguments; None, and a problem, when it is not ours."""
    if not isinstance(activity, Mapping):
        check.problem(path, activity, f"a{'n' if kind == 'action' else ''} {kind}")
        return None
    if "ref" in activity:
        check.problem(f"{path}.ref", activity["ref"], "the activity itself", "write it out")
        return None
    provider = activity.get("provider")
    if activity.get("type") != kind:
        check.problem(f"{path}.type", activity.get("type"), kind, "probes stand in the hypothesis" if kind == "action" else "")
        return None
    if not isinstance(provider, Mapping) or provider.get("type") != "python":
        found = provider.get("type") if isinstance(provider, Mapping) else provider
        check.problem(f"{path}.provider.type", found, "python", "what another provider does is not ours to repeat")
        return None
    if provider.get("module") != module:
        hint = did_you_mean(provider.get("module"), [module]) or "what another module does is not ours to repeat"
        check.problem(f"{path}.provider.module", provider.get("module"), module, hint)
        return None
    func, known = provider.get("func"), tuple(funcs)
    if func not in known:
        check.problem(f"{path}.provider.func", func, f"one of {', '.join(known)}", did_you_mean(func, known))
        return None
    arguments = provider.get("arguments") or {}
    if not isinstance(arguments, Mapping):
        check.problem(f"{path}.provider.arguments", arguments, "an object")
        return None
    if (where := _substitution(arguments, f"{path}.provider.arguments")) is not None:
        check.problem(where, "${...}", "a value", "write it out; variables are not looked up here")
        return None
    return str(func), dict(arguments)


def _substitution(value: object, path: str, depth: int = 12) -> str | None:
    """Where in it something stands for another value."""
    if isinstance(value, str):
        return path if "${" in value else None
    inside: list[tuple[str, Any]] = []
    if isinstance(value, Mapping):
        inside = [(f"{path}.{name}", each) for name, each in value.items()]
    elif isinstance(value, list | tuple):
        inside = [(f"{path}[{index}]", each) for index, each in enumerate(value)]
    if not depth:
        return path if inside else None
    return next((where for inner, each in inside if (where := _substitution(each, inner, depth - 1)) is not None), None)


def _plan(check: Checker, method: list[Any]) -> ChaosPlan:
    windows: list[FaultWindow] = []
    seed, offset = 0, 0.0
    for index, activity in enumerate(method):
        path = f"method[{index}]"
        offset += _pause(check, path, activity, "before")
        found = _provider(check, path, activity, "action", _ACTIONS, (func for func in actions.__all__ if func not in _STOPS))
        if found is not None:
            if found[0] == "start_plan" and len(method) > 1:
                check.problem(path, "start_plan", "a plan that is the only action", "its seed decides by the place of each window in it")
            try:
                part = plan_of(*found)
                seed = part.seed
                windows += [replace(window, start=window.start + offset) if offset else window for window in part.windows]
                if len(method) == 1:
                    # As it is, with what belongs to no window.
                    return part if not offset else ChaosPlan(windows, seed=seed, scenario=part.scenario)
            except ConfigurationError as wrong:
                for problem in wrong.problems:
                    check.problem(f"{path}.provider.arguments.{problem.path}", problem.value, problem.allowed, problem.hint)
        offset += _pause(check, path, activity, "after")
    try:
        return ChaosPlan(windows, seed=seed)
    except ConfigurationError as wrong:
        for problem in wrong.problems:
            check.problem(f"method.{problem.path}", problem.value, problem.allowed, problem.hint)
        return ChaosPlan()


def _pause(check: Checker, path: str, activity: object, name: str) -> float:
    pauses = activity.get("pauses") if isinstance(activity, Mapping) else None
    value = pauses.get(name, 0) if isinstance(pauses, Mapping) else 0
    if isinstance(value, numbers.Real) and not isinstance(value, bool) and 0.0 <= float(value) < 1e7:  # noqa: PLR2004
        return float(value)
    check.problem(f"{path}.pauses.{name}", value, "seconds >= 0", "write it out; variables are not looked up here")
    return 0.0


def _hypothesis(check: Checker, data: Mapping[str, Any]) -> dict[str, Any] | None:
    given = data.get("steady-state-hypothesis")
    if given is None:
        return None
    if not isinstance(given, Mapping):
        check.problem("steady-state-hypothesis", given, "an object with title and probes")
        return None
    listed = _list(check, given, "probes")
    for index, activity in enumerate(listed):
        path = f"steady-state-hypothesis.probes[{index}]"
        _provider(check, path, activity, "probe", _PROBES, probes.__all__)
        tolerance = activity.get("tolerance") if isinstance(activity, Mapping) else None
        if isinstance(tolerance, Mapping) and tolerance.get("type") == "probe":
            check.problem(f"{path}.tolerance", "a probe", "a value, a range or a pattern", "what it calls is not ours to repeat")
    plain = copy.deepcopy(dict(given))
    for each in plain["probes"] if listed else ():
        if isinstance(each, dict) and isinstance(each.get("provider"), dict):
            # Where the token comes from belongs to the service, not to the hypothesis.
            each["provider"].pop("secrets", None)
    return plain


def _validate(check: Checker, data: Mapping[str, Any]) -> None:
    """By the toolkit's own check, which imports the modules that are named: by now, ours alone."""
    try:
        from chaoslib.exceptions import ChaosException
        from chaoslib.experiment import ensure_experiment_is_valid
    except ImportError:
        check.problem("", "no chaostoolkit-lib", "chaostoolkit-lib to check it", 'pip install "somaresil[chaostoolkit]"')
        return
    # What it looks up in the environment is there where it runs, not here.
    plain = {name: copy.deepcopy(value) for name, value in data.items() if name not in {"configuration", "secrets"}}
    try:
        ensure_experiment_is_valid(plain)
    except ChaosException as wrong:
        check.problem("", data.get("title"), "an experiment of the Chaos Toolkit", str(wrong)[:200])
    except Exception as broken:  # noqa: BLE001 - it looks into parts without asking what they are
        check.problem("", data.get("title"), "an experiment of the Chaos Toolkit", f"{type(broken).__name__}: {broken}"[:200])


def verdict_of(journal: Mapping[str, Any]) -> ToolkitVerdict:
    """What became of an experiment, by its journal.

    Chaos Toolkit writes ``completed`` when the steady state fails before the method, and when an action fails: neither has passed.
    """
    kept = dict(journal)
    before = (journal.get("steady_states") or {}).get("before")
    if before is not None and not before.get("steady_state_met"):
        return ToolkitVerdict("not started", f"the steady state was not met before it: {_failing(before)}", kept)
    status = journal.get("status")
    if status in {"interrupted", "aborted"}:
        return ToolkitVerdict(str(status), "somebody has ended it" if status == "interrupted" else "an activity broke it off", kept)
    wrong = [each for each in [*(journal.get("run") or ()), *(journal.get("rollbacks") or ())] if each.get("status") != "succeeded"]
    if wrong:
        last = wrong[0].get("exception") or [wrong[0].get("status", "")]
        return ToolkitVerdict("failed", f"{wrong[0]['activity'].get('name', '')}: {str(last[-1]).strip()}", kept)
    if journal.get("deviated"):
        after = (journal.get("steady_states") or {}).get("after") or {}
        return ToolkitVerdict("deviated", f"the steady state was not met after it: {_failing(after)}", kept)
    return ToolkitVerdict("passed" if status == "completed" else str(status), "", kept)


def _failing(state: Mapping[str, Any]) -> str:
    for each in state.get("probes") or ():
        if not each.get("tolerance_met"):
            said = each.get("exception") or [f"said {each.get('output')!r}"]
            return f"{each['activity'].get('name', '')} {str(said[-1]).strip()}"
    return "no probe said why"


def run(experiment: Mapping[str, Any]) -> ToolkitVerdict:
    """Run an experiment with the Chaos Toolkit in this process, its rollbacks always played. Blocks until it is over."""
    from chaoslib.experiment import ensure_experiment_is_valid, run_experiment

    # It writes into what it runs.
    own = copy.deepcopy(dict(experiment))
    ensure_experiment_is_valid(own)
    return verdict_of(run_experiment(own, settings={"runtime": {"rollbacks": {"strategy": "always"}}}))


def template(target: str = "llm.*", *, service: str = "", slo: str | None = None) -> dict[str, Any]:
    """An experiment to begin with: a minute of errors, after which every circuit of ``target`` serves again, and ``slo`` has not burnt."""
    checks = [probe("recovered", True, guards=target)]  # noqa: FBT003 - the value that is tolerated
    if slo is not None:
        checks.append(probe("burn_rate", (0.0, 14.4), slo=slo))
    plan = ChaosPlan([FaultWindow(target, "error", 0, 60, rate=0.5)])
    hypothesis = {"title": "the service serves", "probes": checks}
    return to_chaostoolkit(plan, title=f"{target} fails for a minute", hypothesis=hypothesis, service=service)
