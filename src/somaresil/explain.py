"""``somaresil explain``: one guard in plain words: what a call goes through, how it may end, what counts as failure, and where to look.

It is asked of the code (``MODULE:NAME``), or of a process that runs (``--url``, by its dashboard). A dashboard tells less than the code
does, and what it does not tell is said.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from somaresil.config import did_you_mean
from somaresil.top_command import TOKEN, URL

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from somaresil.classify import Classify
    from somaresil.guard import Guard, GuardOptions
    from somaresil.resilience import Resilience

__all__ = ["LAYERS", "Word", "add_command", "verdicts"]


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
_NOT_TOLD: Final = (
    "options that are as usual",
    "where each option comes from",
    "how often a call reaches the dependency at most",
    "which objectives it counts for",
)
"""What a dashboard does not say of a guard."""
_NOT_CLASSIFIED: Final = "what counts as failure: its classify is in the code alone"


def add_command(commands: Any, load: Callable[[str, str], Resilience | str]) -> None:
    """Add ``explain`` to the subcommands of argparse; ``load`` finds a Resilience by ``MODULE:NAME``, or says why not."""
    explain = commands.add_parser(
        "explain",
        help="say in plain words what one guard does to a call",
        description=(
            "Imports a module and explains one guard of a Resilience in it: what a call goes through, with which options and where each "
            "comes from, how long it can take, with what it can be refused, what counts as failure, what counts it, and what is surely "
            "wrong. With --url it asks the dashboard of a service that runs instead, and says what that does not tell."
        ),
        epilog="exit codes: 0 explained; 2 it could not be: no such module, Resilience or guard, or the service could not be asked",
    )
    explain.add_argument("guard", metavar="GUARD", help="the name of the guard")
    explain.add_argument("resilience", nargs="?", default=None, metavar="MODULE:NAME", help="where the Resilience is: gateway:resilience")
    explain.add_argument(
        "--url",
        default=None,
        metavar="URL",
        help=f"ask a service that runs: its dashboard, as http://host:port/_soma/ (default without MODULE:NAME: what {URL} says)",
    )
    explain.add_argument(
        "--token-env", default=TOKEN, metavar="NAME", help="with --url: the variable that holds the token (default: %(default)s)"
    )
    explain.add_argument(
        "--timeout", type=float, default=10.0, metavar="SECONDS", help="with --url: longest wait for an answer (default: %(default)g)"
    )
    explain.add_argument("--json", action="store_true", help="print JSON")
    explain.set_defaults(run=partial(_run, load=load))


def _run(arguments: argparse.Namespace, *, load: Callable[[str, str], Resilience | str]) -> int:
    if arguments.resilience is not None and arguments.url is not None:
        return _refuse(f"{arguments.resilience} and --url {arguments.url}: expected one of them, the code or a service that runs")
    told = _of_service(arguments) if arguments.resilience is None else _of_code(arguments, load)
    if isinstance(told, str):
        return _refuse(told)
    sys.stdout.write((json.dumps(told, indent=2) if arguments.json else "\n".join(_lines(told))) + "\n")
    return 0


def _refuse(why: str) -> int:
    sys.stderr.write(f"{why}\n" if why.startswith("somaresil ") else f"somaresil explain: {why}\n")
    return 2


def _none_such(place: str, name: str, known: Sequence[str]) -> str:
    hint = did_you_mean(name, known) or (f"there are: {', '.join(known)}" if known else "it has none")
    return f"{place} has no guard {name!r}; {hint}"


# -- by the code --------------------------------------------------------------------------------------------------------------------------


def _of_code(arguments: argparse.Namespace, load: Callable[[str, str], Resilience | str]) -> dict[str, Any] | str:
    found = load("explain", arguments.resilience)
    if isinstance(found, str):
        return found
    guard = found.find(arguments.guard)
    return _none_such(arguments.resilience, arguments.guard, sorted(found.guards)) if guard is None else _told(guard, found)


def _told(guard: Guard, resilience: Resilience) -> dict[str, Any]:
    described = guard.description()
    origins = resilience.settings.origins(guard)
    there = {name for name in origins if getattr(guard.options, name.partition(".")[0]) is not None}
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
        "origins": {name: {"from": origin.kind, "where": origin.where, "said": str(origin)} for name, origin in origins.items()},
        "taken_away": sorted(set(origins) - there),
        "counts": verdicts(guard.options),
        "worst_case": described.worst_case,
        "worst_case_asked": described.worst_case_asked,
        "calls_at_most": described.amplification,
        "objectives": list(guard.options.slo or ()),
        "metrics": sorted({name for layer in guard.pipeline for name in LAYERS[layer].metrics}),
        "changed": list(described.changed),
        "findings": [str(finding) for finding in described.findings],
        "unknown": [],
    }


def _options(options: Any) -> dict[str, str]:
    """Every option with its value, also those that are as usual."""
    if not dataclasses.is_dataclass(options):
        return {}
    return {field.name: repr(getattr(options, field.name)) for field in dataclasses.fields(options) if not field.name.startswith("_")}


def verdicts(options: GuardOptions) -> dict[str, list[str]]:
    """What counts as bad, good, rejected, abandoned and ignored, in sentences. ``bad`` is what counts as failure."""
    from somaresil.classify import Classify
    from somaresil.guard.change import shown

    rule, timeout, breaker = options.classify, options.timeout, options.breaker
    said: dict[str, list[str]] = {name: [] for name in ("bad", "good", "rejected", "abandoned", "ignored")}
    if isinstance(rule, Classify):
        _by_rules(rule, said, opens=breaker is not None)
    elif rule is not None:
        name = shown(rule)
        said["bad"].append(f"every result and every error for which {name} says so; where it says nothing, an error is bad")
        said["good"].append(f"what {name} calls good; where it says nothing, a result is good whatever it is")
        said["ignored"].append(f"what {name} calls ignored")
    else:
        said["bad"].append("every exception that comes out of the call, a rejection by a guard further inside included")
        said["good"].append("every result, whatever it is: there is no classify that looks at it")
        said["ignored"].append("nothing: there is no classify that names an error that says nothing about the dependency")
    if timeout is not None and not timeout.shadow:
        named = ", ".join(f"{field} {shown(value)} s" for field in ("total", "first_item", "idle") if (value := getattr(timeout, field)))
        said["bad"].append(f"an attempt that takes too long ({named}): CallTimedOut is judged like any other error")
        if timeout.total is not None and not timeout.abandon:
            said["bad"].append("a good answer of a plain function that comes after its time; the caller gets it all the same")
    if breaker is not None and breaker.slow_call_duration is not None:
        said["good"].append(
            f"for the records also an answer that took more than {breaker.slow_call_duration} s: the breaker counts it as slow"
        )
    if options.fallback is not None:
        said["good"].append("an answer of the fallback, for records and objectives; the breaker counts the attempt that failed before it")
    said["rejected"].append("what this guard refuses by itself: the dependency was not called")
    said["abandoned"].append("a call that its caller cancels or leaves (CancelledError, GeneratorExit, KeyboardInterrupt, SystemExit)")
    said["abandoned"].append("a call that the deadline of the request cuts off; it is bad when at least half of that time was spent in it")
    return said


def _by_rules(rule: Classify, said: dict[str, list[str]], *, opens: bool) -> None:
    from somaresil.guard.change import shown

    def named(rules: Any) -> str:
        return ", ".join(each.__qualname__ if isinstance(each, type) else f"those for which {shown(each)} is true" for each in rules)

    kinds = [(kind, named(getattr(rule, kind))) for kind in ("fatal", "ignored", "good", "bad")]
    # In the order in which they are asked; the first that names an error decides.
    for place, (kind, names) in enumerate(kinds):
        before = [other for other, found in kinds[:place] if found]
        if names:
            unless = f", unless named before as {' or '.join(before)}" if before else ""
            more = _opens(rule) if kind == "fatal" and opens else ""
            said["bad" if kind == "fatal" else kind].append(f"these errors: {names}{unless}{more}")
    said["ignored"].append("an error that nothing names")
    bad_results = [
        (each, more) for each, more in ((rule.fatal_result, _opens(rule) if opens else ""), (rule.bad_result, "")) if each is not None
    ]
    for each, more in bad_results:
        said["bad"].append(f"a result for which {shown(each)} is true{more}")
    said["good"].append("every other result" if bad_results else "every result, whatever it is: its classify looks at errors alone")


def _opens(rule: Classify) -> str:
    return "; the circuit opens at once" + (f", for {rule.fatal_duration:g} s" if isinstance(rule.fatal_duration, float) else "")


# -- by a service that runs ---------------------------------------------------------------------------------------------------------------


def _of_service(arguments: argparse.Namespace) -> dict[str, Any] | str:
    from urllib.parse import quote

    from somaresil.remote import Impossible, Remote, clean
    from somaresil.top_command.data import listed, text
    from somaresil.top_command.feed import LARGEST, ask_picture, asked

    try:
        remote = Remote(
            "dashboard",
            url=arguments.url,
            url_variable=URL,
            token_variable=arguments.token_env,
            timeout=arguments.timeout,
            largest=LARGEST,
            open_to_all=arguments.token_env == TOKEN,
            option="MODULE:NAME of the code, or --url",
        )
        # It says of which version it is, and which guards there are.
        known = sorted(clean(text(each.get("name"))) for each in listed(ask_picture(remote).get("guards")))
        if arguments.guard not in known:
            return clean(_none_such("the service", arguments.guard, known))
        detail = asked(remote, f"/api/guards/{quote(arguments.guard, safe='')}")
    except Impossible as why:
        return clean(str(why))
    return _heard(arguments.guard, detail)


def _heard(name: str, detail: Mapping[str, Any]) -> dict[str, Any]:
    """What a dashboard says, read without trust, in the form of :func:`_told`; ``unknown`` is what it does not say."""
    from somaresil.guard import GuardOptions
    from somaresil.top_command.data import listed, real, text, texts
    from somaresil.top_command.text import shown as harmless

    def lines(key: str) -> list[str]:
        return [harmless(each) for each in texts(detail.get(key)) if isinstance(each, str)]

    stages = [(harmless(text(each.get("name")), 40), harmless(text(each.get("says")))) for each in listed(detail.get("stages"))]
    options = lines("options")
    unknown: list[str] = list(_NOT_TOLD)
    # Without its pipeline nothing of its options was told either: it may live in a process that was not reached.
    unjudged = not stages or any(option.startswith("classify=") for option in options)
    if not stages:
        stages = [(harmless(each, 40), "") for each in texts(detail.get("pipeline")) if isinstance(each, str)]
        unknown.append("its options: the process that has them has not told them")
    if unjudged:
        unknown.append(_NOT_CLASSIFIED)
    nothing = Word("is a part that this release does not know")
    words = [(layer, LAYERS.get(layer, nothing), says) for layer, says in stages]
    return {
        "guard": name,
        "where": "",
        "pipeline": [{"name": layer, "does": word.does, "raises": word.raises, "options": {}, "says": says} for layer, word, says in words],
        "options": options,
        "origins": {},
        "taken_away": [],
        "counts": {} if unjudged else verdicts(GuardOptions()),
        "worst_case": real(detail.get("worst_case")),
        "worst_case_asked": None,
        "calls_at_most": None,
        "objectives": [],
        "metrics": sorted({metric for _, word, _ in words for metric in word.metrics}),
        "changed": lines("changed"),
        "findings": lines("findings"),
        "unknown": unknown,
    }


_NOTES: Final = {"changed": "Not as in the code", "findings": "Surely wrong", "unknown": "The service does not tell"}


# -- in words -----------------------------------------------------------------------------------------------------------------------------


def _lines(told: dict[str, Any]) -> Iterator[str]:
    origins = {name: origin["said"] for name, origin in told["origins"].items()}

    def source(name: str) -> str:
        return f"  [{origins[name]}]" if name in origins else ""

    yield told["guard"] + (f", made in {told['where']}" if told["where"] else "")
    yield ""
    yield "A call goes through, from the outside:"
    for layer in told["pipeline"]:
        yield f"  {layer['name']:<13} {layer['does']}" + (f" ({layer['raises']})" if layer["raises"] else "") + source(layer["name"])
        if layer.get("says"):
            yield f"  {'':<13}   {layer['says']}"
        for name, value in layer["options"].items():
            yield f"  {'':<13}   {name} = {value}{source(layer['name'] + '.' + name)}"
    yield ""
    for option in told["options"]:
        yield f"Also: {option}{source(option.partition('=')[0])}"
    for option in told["taken_away"]:
        yield f"Not there: {option}{source(option)}"
    yield from _bounds(told)
    if told["counts"]:
        yield ""
        yield "What counts as failure (bad), and what does not:"
    for outcome, sentences in told["counts"].items():
        for place, sentence in enumerate(sentences):
            yield f"  {'' if place else outcome:<13} {sentence}"
    for key, words in _NOTES.items():
        yield from (f"{words}: {each}" for each in told[key])


def _bounds(told: dict[str, Any]) -> Iterator[str]:
    longest, asked, most = told["worst_case"], told["worst_case_asked"], told["calls_at_most"]
    time = "Nothing bounds how long it takes" if longest is None else f"It takes {longest:.3g} s at most"
    more = f", {asked:.3g} s when answers ask for pauses" if longest is not None and asked is not None and asked > longest else ""
    yield f"{time}{more}" + ("." if most is None else f", and calls the dependency {most} times at most.")
    refused = sorted({layer["raises"] for layer in told["pipeline"] if layer["raises"]})
    if refused:
        yield f"Beside the errors of its own it may end with {', '.join(refused)}."
    if most is not None:
        yield f"It counts for {', '.join(told['objectives'])}." if told["objectives"] else "It counts for no objective."
    yield f'Metrics, with guard="{told["guard"]}": {", ".join(told["metrics"])}.'
