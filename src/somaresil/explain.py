"""``somaresil explain``: one guard in plain words: what a call goes through, how it may end, and where to look."""

from __future__ import annotations

import dataclasses
import json
import sys
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from somaresil.config import did_you_mean

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator

    from somaresil.guard import Guard
    from somaresil.resilience import Resilience

__all__ = ["LAYERS", "Word", "add_command"]


class Word(NamedTuple):
    """What there is to say about one part of a pipeline."""

    does: str
    raises: str = ""
    """The error that a caller gets from it, if it has one of its own."""
    metrics: tuple[str, ...] = ()


LAYERS: Final[dict[str, Word]] = {
    "record": Word("counts how each call ends and how long it took", "", ("somaresil_calls_total", "somaresil_call_duration_seconds")),
    "fallback": Word("gives the caller a lesser answer when all that is inside has failed"),
    "single_flight": Word("lets callers who ask for the same at the same time share one call"),
    "hedge": Word("begins a second attempt when the first takes long; the first answer counts", "", ("somaresil_hedges_total",)),
    "retry": Word("tries again after a pause, while its budget lasts and trying again may help", "", ("somaresil_retries_total",)),
    "throttle": Word("sheds a share of the calls while the dependency refuses many", "LoadShed", ("somaresil_rejections_total",)),
    "breaker": Word(
        "lets nothing through while too many calls fail or are slow, and probes after a while",
        "CircuitOpen",
        ("somaresil_breaker_state", "somaresil_breaker_transitions_total", "somaresil_rejections_total"),
    ),
    "rate_limit": Word(
        "lets through so many calls in a time", "RateLimited", ("somaresil_rate_limit_available", "somaresil_rejections_total")
    ),
    "bulkhead": Word(
        "lets through so many calls at once",
        "BulkheadFull",
        ("somaresil_concurrency_limit", "somaresil_rejections_total"),
    ),
    "timeout": Word("ends an attempt that takes too long", "CallTimedOut"),
    "fault": Word(
        "is where experiments strike, once chaos is allowed and one is armed", "InjectedFault", ("somaresil_faults_injected_total",)
    ),
    "callee": Word("is your function"),
    "pool": Word("sends the call to one of its endpoints, each below a guard of its own", "NoEndpoint"),
}
"""Every part that a pipeline may have."""


def add_command(commands: Any, load: Callable[[str, str], Resilience | str]) -> None:
    """Add ``explain`` to the subcommands of argparse; ``load`` finds a Resilience by ``MODULE:NAME``, or says why not."""
    explain = commands.add_parser(
        "explain",
        help="say in plain words what one guard does to a call",
        description=(
            "Imports a module and explains one guard of a Resilience in it: what a call goes through, with which options, how long it can "
            "take, with what it can be refused, what counts it, which experiments may strike it and what is surely wrong."
        ),
        epilog="exit codes: 0 explained; 2 it could not be: no such module, Resilience or guard",
    )
    explain.add_argument("guard", metavar="GUARD", help="the name of the guard")
    explain.add_argument("resilience", metavar="MODULE:NAME", help="where the Resilience is: gateway:resilience")
    explain.add_argument("--json", action="store_true", help="print JSON")
    explain.set_defaults(run=partial(_run, load=load))


def _run(arguments: argparse.Namespace, *, load: Callable[[str, str], Resilience | str]) -> int:
    found = load("explain", arguments.resilience)
    if isinstance(found, str):
        sys.stderr.write(f"{found}\n")
        return 2
    guard = found.find(arguments.guard)
    if guard is None:
        known = sorted(found.guards)
        hint = did_you_mean(arguments.guard, known) or (f"there are: {', '.join(known)}" if known else "it has none")
        sys.stderr.write(f"somaresil explain: {arguments.resilience} has no guard {arguments.guard!r}; {hint}\n")
        return 2
    told = _told(guard)
    sys.stdout.write((json.dumps(told, indent=2) if arguments.json else "\n".join(_lines(told))) + "\n")
    return 0


def _told(guard: Guard) -> dict[str, Any]:
    described = guard.description()
    return {
        "guard": guard.name,
        "where": described.where,
        "pipeline": [
            {
                "name": layer,
                "does": LAYERS[layer].does,
                "raises": LAYERS[layer].raises,
                "options": _options(getattr(guard.options, layer, None)),
            }
            for layer in guard.pipeline
        ],
        "options": list(described.options),
        "worst_case": described.worst_case,
        "worst_case_asked": described.worst_case_asked,
        "calls_at_most": described.amplification,
        "objectives": list(guard.options.slo or ()),
        "metrics": sorted({name for layer in guard.pipeline for name in LAYERS[layer].metrics}),
        "changed": list(described.changed),
        "findings": [str(finding) for finding in described.findings],
    }


def _options(options: Any) -> dict[str, str]:
    """Every option with its value, also those that are as usual."""
    if not dataclasses.is_dataclass(options):
        return {}
    return {field.name: repr(getattr(options, field.name)) for field in dataclasses.fields(options) if not field.name.startswith("_")}


def _lines(told: dict[str, Any]) -> Iterator[str]:
    yield told["guard"] + (f", made in {told['where']}" if told["where"] else "")
    yield ""
    yield "A call goes through, from the outside:"
    for layer in told["pipeline"]:
        yield f"  {layer['name']:<13} {layer['does']}" + (f" ({layer['raises']})" if layer["raises"] else "")
        for name, value in layer["options"].items():
            yield f"  {'':<13}   {name} = {value}"
    yield ""
    for option in told["options"]:
        yield f"Also: {option}"
    longest, asked = told["worst_case"], told["worst_case_asked"]
    time = "Nothing bounds how long it takes" if longest is None else f"It takes {longest:.3g} s at most"
    more = f", {asked:.3g} s when answers ask for pauses" if longest is not None and asked is not None and asked > longest else ""
    yield f"{time}{more}, and calls the dependency {told['calls_at_most']} times at most."
    refused = sorted({layer["raises"] for layer in told["pipeline"] if layer["raises"]})
    yield f"Beside the errors of its own it may end with {', '.join(refused)}."
    yield f"It counts for {', '.join(told['objectives'])}." if told["objectives"] else "It counts for no objective."
    yield f'Metrics, with guard="{told["guard"]}": {", ".join(told["metrics"])}.'
    for change in told["changed"]:
        yield f"Not as in the code: {change}"
    for finding in told["findings"]:
        yield f"Surely wrong: {finding}"
