"""The command ``somaresil``, also ``python -m somaresil``.

Exit codes of every command:

- 0: done, and all is well;
- 1: done, and what was judged is not good enough;
- 2: it could not be done: wrong arguments, something is not installed, something did not start (``gate``: nothing is known, which is an
  answer; wrong arguments and definitions are 3 there);
- 128 + n: ended by signal n (130: Ctrl-C), with everything cleaned up.

Colours follow the terminal; :mod:`somaresil.colour` says what else is asked.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import re
import sys
import warnings
from importlib import import_module
from typing import TYPE_CHECKING, Any, NoReturn, TextIO, cast

from somaresil import colour, completion, control_command, explain, slo_command
from somaresil._version import __version__
from somaresil.adopt import cli as adopt_command
from somaresil.canary_command import cli as canary_command
from somaresil.config import did_you_mean
from somaresil.doctor import cli as doctor_command
from somaresil.gate import cli as gate_command
from somaresil.load_command import cli as load_command
from somaresil.perf_command import cli as perf_command
from somaresil.render_command import cli as render_command
from somaresil.scan import cli as scan_command
from somaresil.sla import cli as sla_command
from somaresil.toolkit import cli as toolkit_command
from somaresil.top_command import cli as top_command

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from somaresil.resilience import Resilience

__all__ = ["main"]

_SHORTEST, _LONGEST = 5.0, 300.0
_SHORTEST_CANARY = 20.0
_DEMO_CANARY, _DEMO_LIVE = "demo canary", "demo live"
_MOST_WORKERS = 16
_LONGEST_LIVE = 86_400.0
_MOST_RATE = 500.0
_LONGEST_SAID = 4_000
_NOT_DONE = frozenset({2, 3})
"""Exit codes of what could not be done; 3 are wrong arguments of ``gate``."""
_UNKNOWN_WORD = re.compile(r"invalid choice: '([^']*)' \(choose from (.*)\)")


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command (default: what the process was called with) and return its exit code.

    Raises :class:`SystemExit` as argparse does: 2 for wrong arguments (3 of ``gate``), 0 for ``--help`` and ``--version``.
    """
    parser = _parser()
    arguments, unknown = parser.parse_known_args(_joined(sys.argv[1:] if argv is None else argv))
    if unknown:
        # By the parser of the command, whose exit code for wrong arguments may be its own.
        getattr(arguments, "parser", parser).error(f"unrecognized arguments: {' '.join(unknown)}")
    if arguments.command is None:
        parser.print_help(sys.stderr)
        return 2
    try:
        with colour.chosen(getattr(arguments, "color", "auto")):
            return _for_programs(arguments) if getattr(arguments, "json", None) is True else int(arguments.run(arguments))
    except KeyboardInterrupt:
        # While the command was still loading; once it runs it cleans up and reports by itself.
        return 130


class _Heard:
    """A stream that remembers the last of what was written to it."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.said = ""

    def write(self, text: str) -> int:
        self.said = (self.said + text)[-_LONGEST_SAID:]
        return self._stream.write(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _for_programs(arguments: argparse.Namespace) -> int:
    """Run a command that was asked for JSON: what could not be done is a document too, if the command has written none by itself."""
    out, err = _Heard(sys.stdout), _Heard(sys.stderr)
    with contextlib.redirect_stdout(cast("TextIO", out)), contextlib.redirect_stderr(cast("TextIO", err)):
        code = int(arguments.run(arguments))
    if code in _NOT_DONE and not out.said:
        print(json.dumps({"error": {"command": arguments.command, "code": code, "message": err.said.strip()}}, indent=2))
    return code


def _joined(argv: Sequence[str]) -> list[str]:
    """``demo canary`` is a command like the others: below ``demo`` it would change what that makes of arguments that it does not know."""
    joined = " ".join(argv[:2])
    return [joined, *argv[2:]] if joined in {_DEMO_CANARY, _DEMO_LIVE} else list(argv)


class _Parser(argparse.ArgumentParser):
    """One that ends with the exit code of its command when its arguments are wrong."""

    wrong = 2

    def error(self, message: str) -> NoReturn:
        """Say what is wrong, and end."""
        self.print_usage(sys.stderr)
        self.exit(self.wrong, f"{self.prog}: error: {message}{_guess(message)}\n")


def _hand_down(parser: argparse.ArgumentParser, codes: str) -> None:
    """A command that says nothing of its exit codes has those of the group that it is in."""
    own = parser.epilog or ""
    codes = own if "exit codes:" in own else codes
    parser.epilog = own if "exit codes:" in own else "; ".join(filter(None, (own, codes)))
    for action in parser._actions:  # noqa: SLF001 - argparse has no other way to its subcommands
        if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001
            for child in action.choices.values():
                _hand_down(child, codes)


def _guess(message: str) -> str:
    """What was meant, when argparse says that a word is none of those that it knows."""
    found = _UNKNOWN_WORD.search(message)
    if found is None:
        return ""
    hint = did_you_mean(found[1], [word.strip("' ") for word in found[2].split(",")])
    return f"; {hint}" if hint else ""


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="somaresil",
        description="Chaos, circuit breaking and SLOs embedded in each service.",
        epilog="exit codes: 0 good, 1 judged not good enough, 2 could not be done, 128 + n ended by signal n",
    )
    parser.add_argument("--version", action="version", version=f"somaresil {__version__}")
    commands = parser.add_subparsers(dest="command", title="commands", metavar="COMMAND")
    demo = commands.add_parser(
        "demo",
        help="run a guarded service under load, attack it, and report",
        description=(
            "Starts a gateway, a worker, a flaky model and a memory store as processes on loopback, offers them requests at a fixed "
            "rate, and leads them through a game day: steady state, latency, errors, a tripped breaker, kill switch, recovery. "
            "Nothing is left behind."
        ),
        epilog=(
            "exit codes: 0 at least 95 %% of the touched calls were absorbed and every circuit that opened closed again within 5 minutes; "
            "1 not so; 2 it could not be run; 130 Ctrl-C"
        ),
    )
    demo.add_argument(
        "--duration",
        type=_number("seconds", _SHORTEST, _LONGEST),
        default=30.0,
        metavar="SECONDS",
        help="how long to drive load, all phases together (default: %(default)g)",
    )
    demo.add_argument(
        "--rate",
        type=_number("requests a second", 1.0, _MOST_RATE),
        default=40.0,
        metavar="RPS",
        help="requests a second, begun at fixed times (default: %(default)g)",
    )
    demo.add_argument("--seed", type=int, default=7, metavar="N", help="decides which calls are struck (default: %(default)s)")
    demo.add_argument("--json", action="store_true", help="print the report as JSON on stdout, everything else on stderr")
    demo.add_argument("--prometheus", action="store_true", help="run a Prometheus server too, and compare its burn rates with ours")
    colour.add_option(demo)
    demo.set_defaults(run=_demo)
    _add_canary_demo(commands)
    _add_live_demo(commands)
    _add_drill(commands)
    replay = commands.add_parser(
        "replay",
        help="run a fault plan again in a simulation",
        description=(
            "Runs the fault plan of a failed simulation again, in virtual time, with the scenario that it names or that you name, and "
            "prints what was injected, what held and what did not. The module of the scenario is imported."
        ),
        epilog="exit codes: 0 everything held; 1 something did not; 2 it could not be run, or no call was struck",
    )
    replay.add_argument("plan", metavar="PLAN", help="a JSON file; - for standard input")
    replay.add_argument("--scenario", metavar="MODULE:NAME", default=None, help="in place of the one that the plan names")
    replay.add_argument("--json", action="store_true", help="print the result as JSON")
    replay.set_defaults(run=_replay)
    describe = commands.add_parser(
        "describe",
        help="show what the guards of a service do",
        description=(
            "Imports a module and shows every guard of a Resilience in it: its pipeline, the longest that a call can take, the most calls "
            "of the dependency, what is surely wrong, and what was set for guards that no code has made. Guards that the module makes "
            "later, when it serves, are not seen."
        ),
        epilog="exit codes: 0 shown; 1 with --strict: something is surely wrong, or set for nobody; 2 it could not be shown",
    )
    describe.add_argument("resilience", metavar="MODULE:NAME", help="where the Resilience is: gateway:resilience")
    describe.add_argument("--strict", action="store_true", help="end with 1 when something is surely wrong, or set for nobody")
    describe.add_argument(
        "--deadline",
        type=_number("seconds", 0.001, 86_400.0),
        default=None,
        metavar="SECONDS",
        help="after which no caller of a guard waits any more",
    )
    describe.add_argument("--json", action="store_true", help="print the descriptions as JSON")
    describe.set_defaults(run=_describe)
    from somaresil.gameday.cli import add_command

    add_command(commands)
    adopt_command.add_command(commands)
    doctor_command.add_command(commands)
    gate_command.add_command(commands)
    load_command.add_command(commands)
    perf_command.add_command(commands)
    scan_command.add_command(commands)
    sla_command.add_commands(commands)
    toolkit_command.add_command(commands)
    control_command.add_to(commands)
    canary_command.add_to(commands)
    render_command.add_to(commands)
    slo_command.add_to(commands)
    top_command.add_to(commands)
    explain.add_command(commands, _loaded)
    completion.add_command(commands, parser)
    _hand_down(parser, "")
    return parser


def _add_canary_demo(commands: Any) -> None:
    canary = commands.add_parser(
        _DEMO_CANARY,
        help="deploy bad versions of a service and a good one, each behind a canary",
        description=(
            "Starts a version of a service and a gateway as processes on loopback, offers them requests at a fixed rate, and deploys four "
            "new versions, one after the other, as canaries: with errors, with a slow tail, with streams that break off, and a good one. "
            "Nothing is left behind."
        ),
        epilog=(
            "exit codes: 0 the three bad ones were rolled back and the good one was promoted; 1 not so; 2 it could not be run; 130 Ctrl-C"
        ),
    )
    canary.add_argument(
        "--duration",
        type=_number("seconds", _SHORTEST_CANARY, _LONGEST),
        default=45.0,
        metavar="SECONDS",
        help="how long to drive load at most, a quarter for each version (default: %(default)g)",
    )
    canary.add_argument(
        "--rate",
        type=_number("requests a second", 20.0, _MOST_RATE),
        default=60.0,
        metavar="RPS",
        help="requests a second, begun at fixed times (default: %(default)g)",
    )
    canary.add_argument("--seed", type=int, default=7, metavar="N", help="decides who gets which version (default: %(default)s)")
    canary.add_argument("--json", action="store_true", help="print the report as JSON on stdout, everything else on stderr")
    canary.add_argument("--html", metavar="FILE", default=None, help="write the report as one HTML page too")
    canary.add_argument("--router", choices=("gateway", "nginx"), default="gateway", help="who splits the traffic (default: %(default)s)")
    colour.add_option(canary)
    canary.set_defaults(run=_demo_canary)


def _add_live_demo(commands: Any) -> None:
    live = commands.add_parser(
        _DEMO_LIVE,
        help="run a guarded service with its dashboard under steady load, to look at",
        description=(
            "Starts a gateway of several processes with the dashboard at /_soma, a worker, a flaky model and a memory store on loopback, "
            "offers them requests all the time, and says where to look and with which token. Experiments are started from the "
            "dashboard. It runs until it is ended (Ctrl-C), and leaves nothing behind."
        ),
        epilog="exit codes: 0 the time that was asked for is over; 2 it could not be run; 130 Ctrl-C",
    )
    live.add_argument(
        "--workers", type=_whole(1, _MOST_WORKERS), default=4, metavar="N", help="processes of the gateway (default: %(default)s)"
    )
    live.add_argument("--port", type=_whole(0, 65_535), default=0, metavar="P", help="port of the gateway (default: any that is free)")
    live.add_argument(
        "--duration",
        type=_number("seconds", 1.0, _LONGEST_LIVE),
        default=None,
        metavar="SECONDS",
        help="end by itself after so long (default: run until it is ended)",
    )
    live.add_argument(
        "--rate",
        type=_number("requests a second", 1.0, _MOST_RATE),
        default=20.0,
        metavar="RPS",
        help="requests a second in the mean (default: %(default)g)",
    )
    live.add_argument("--no-load", dest="load", action="store_false", help="offer no requests")
    live.add_argument("--seed", type=int, default=7, metavar="N", help="decides how the model misbehaves (default: %(default)s)")
    live.add_argument("--json", action="store_true", help="say where it is as one line of JSON on stdout, everything else on stderr")
    live.set_defaults(run=_demo_live)


def _add_drill(commands: Any) -> None:
    drill = commands.add_parser(
        "drill",
        help="strike a small service with every kind of fault, and see it recover",
        description=(
            "Starts three gateways, workers, tool executors and memory services as processes on loopback, a Redis and a Prometheus, sends "
            "them requests, injects the faults of a seeded plan over all kinds and three blast radii one after the other, and writes a "
            "report as JSON, Markdown, HTML and JUnit. Nothing is left behind."
        ),
        epilog=(
            "exit codes: 0 with 95 %% confidence at least 95 %% of the faults are recovered from, each within 5 minutes, and Prometheus "
            "has counted the same; 1 not so; 2 it could not be run; 130 Ctrl-C"
        ),
    )
    drill.add_argument("--seed", type=int, default=7, metavar="N", help="decides faults, order and struck calls (default: %(default)s)")
    drill.add_argument("--faults", type=_whole(1, 2_000), default=210, metavar="N", help="how many are injected (default: %(default)s)")
    drill.add_argument("--out", default="drill-report", metavar="DIR", help="folder of the report (default: %(default)s)")
    drill.add_argument(
        "--rate",
        type=_number("requests a second", 6.0, 200.0),
        default=24.0,
        metavar="RPS",
        help="requests a second (default: %(default)g)",
    )
    drill.add_argument("--virtual", action="store_true", help="in one process and in virtual time, without faults of processes")
    drill.add_argument("--json", action="store_true", help="print the report as JSON on stdout, everything else on stderr")
    drill.set_defaults(run=_drill)


def _drill(arguments: argparse.Namespace) -> int:
    from somaresil import drill

    absent = drill.missing()
    if absent:
        print(f"somaresil drill: {', '.join(absent)} not installed. This installs it:\n\n    {drill.INSTALL}\n", file=sys.stderr)
        return 2
    from somaresil.drill.main import main as run

    given = {name: getattr(arguments, name) for name in ("seed", "faults", "out", "rate", "virtual", "json")}
    return run(drill.Options(**given))


def _whole(minimum: int, maximum: int) -> Callable[[str], int]:
    def convert(text: str) -> int:
        if not text.isdecimal() or not minimum <= int(text) <= maximum:
            raise argparse.ArgumentTypeError(f"{text!r}: expected a whole number from {minimum} to {maximum}")
        return int(text)

    return convert


def _number(what: str, minimum: float, maximum: float) -> Callable[[str], float]:
    def convert(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = float("nan")
        # NaN is within no limits.
        if not minimum <= value <= maximum:
            raise argparse.ArgumentTypeError(f"{text!r}: expected {what} from {minimum:g} to {maximum:g}")
        return value

    return convert


def _demo_canary(arguments: argparse.Namespace) -> int:
    if _demo_is_missing():
        return 2
    from somaresil.demo.canary import CanaryOptions
    from somaresil.demo.canary.main import main as run

    return run(CanaryOptions(arguments.duration, arguments.rate, arguments.seed, arguments.json, arguments.html, arguments.router))


def _demo_live(arguments: argparse.Namespace) -> int:
    if _demo_is_missing():
        return 2
    from somaresil.demo.live import LiveOptions
    from somaresil.demo.live.main import main as run

    given = {name: getattr(arguments, name) for name in ("workers", "port", "duration", "rate", "load", "seed", "json")}
    return run(LiveOptions(**given))


def _demo_is_missing() -> bool:
    from somaresil import demo

    absent = demo.missing()
    if absent:
        print(
            f"somaresil demo: {', '.join(absent)} not installed. This installs what the demo needs:\n\n    {demo.INSTALL}\n",
            file=sys.stderr,
        )
    return bool(absent)


def _demo(arguments: argparse.Namespace) -> int:
    if _demo_is_missing():
        return 2
    from somaresil import demo
    from somaresil.demo.main import main as run

    return run(demo.Options(arguments.duration, arguments.rate, arguments.seed, arguments.json, arguments.prometheus))


def _replay(arguments: argparse.Namespace) -> int:
    from somaresil.testing.replay import replay

    return replay(arguments.plan, scenario=arguments.scenario, as_json=arguments.json)


def _loaded(command: str, place: str) -> Resilience | str:
    """The Resilience at ``MODULE:NAME``, or a line that says why there is none."""
    from somaresil.errors import ConfigurationError, PipelineWarning
    from somaresil.resilience import Resilience

    module, _, name = place.partition(":")
    if "" not in sys.path and "." not in sys.path:
        # As `python -m` would: the command itself was started from elsewhere.
        sys.path.insert(0, "")
    try:
        with warnings.catch_warnings():
            # They are shown with everything else.
            warnings.simplefilter("ignore", PipelineWarning)
            found: Any = import_module(module)
            for part in filter(None, name.split(".")):
                found = getattr(found, part)
    except ConfigurationError as wrong:
        return f"somaresil {command}: {wrong}"
    except (Exception, SystemExit) as broken:  # noqa: BLE001 - a module that is imported may raise anything
        return f"somaresil {command}: {place}: {type(broken).__name__}: {broken}"
    if not isinstance(found, Resilience):
        return f"somaresil {command}: {place} is no Resilience but a {type(found).__name__}"
    return found


def _describe(arguments: argparse.Namespace) -> int:
    found = _loaded("describe", arguments.resilience)
    if isinstance(found, str):
        print(found, file=sys.stderr)
        return 2
    descriptions = [guard.description(deadline=arguments.deadline) for _, guard in sorted(found.guards.items())]
    unused = found.settings.unused()
    findings = sum(len(description.findings) for description in descriptions)
    if arguments.json:
        guards = [dataclasses.asdict(description) for description in descriptions]
        print(json.dumps({"guards": guards, "unused": [dataclasses.asdict(each) for each in unused]}, indent=2))
    else:
        for description in descriptions:
            print(description, end="\n\n")
        for each in unused:
            print(f"! {each}")
        print(f"guards: {len(descriptions)}, findings: {findings}, settings for nobody: {len(unused)}")
    return 1 if arguments.strict and (findings or unused) else 0
