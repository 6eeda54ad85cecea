"""The arguments of ``somaresil load``. What it does is loaded when it is wanted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from somaresil import colour

if TYPE_CHECKING:
    import argparse

__all__ = ["FORMATS", "add_command"]

FORMATS: Final = ("text", "markdown", "html")
_CODES: Final = "exit codes: 0 every limit was kept; 1 one was not; 2 not known, or it could not be done; 130 Ctrl-C"


def add_command(commands: Any) -> None:
    """Add ``load`` to the subcommands of argparse."""
    load = commands.add_parser(
        "load",
        help="put a service under open-loop load, and judge it; find out how much it can take",
        description="Makes the requests of a scenario when they are due, whatever became of the earlier ones, and judges the answers.",
        epilog=_CODES,
    )
    actions = load.add_subparsers(dest="action", title="actions", metavar="ACTION", required=True)
    run = actions.add_parser("run", help="run a scenario", epilog=_CODES)
    _add_scenario(run)
    run.add_argument("--preset", metavar="NAME", help="baseline, stress, soak, spike or ramp-to-capacity, in place of the file's stages")
    run.add_argument("--compress", type=float, default=1.0, metavar="N", help="the same rates in a time that is N times shorter")
    run.add_argument("--out", metavar="FILE", help="write the report as JSON there too, with the sketches in it")
    run.add_argument("--markdown", metavar="FILE", help="write the report as Markdown too")
    run.add_argument("--html", metavar="FILE", help="write the report as a page too")
    run.add_argument("--metrics", metavar="HOST:PORT", help="tell Prometheus how the run goes, there, while it lasts")
    colour.add_option(run)
    run.set_defaults(perform="run")
    capacity = actions.add_parser(
        "capacity",
        help="find the highest rate at which the limits of a scenario are kept",
        description="Runs the requests of a scenario at one rate after the other. Its stages and experiments are not used.",
        epilog="exit codes: 0 found (with --current: and that much fits); 1 --current does not fit; 2 not found, or it could not be done",
    )
    _add_scenario(capacity)
    capacity.add_argument(
        "--start", type=float, default=None, metavar="RPS", help="first rate (default: a tenth of the scenario's highest)"
    )
    capacity.add_argument("--most", type=float, default=20_000.0, metavar="RPS", help="highest rate that is tried (default: %(default)g)")
    capacity.add_argument("--seconds", type=float, default=10.0, metavar="S", help="how long a probe takes (default: %(default)g)")
    capacity.add_argument("--precision", type=float, default=0.05, metavar="SHARE", help="how near is near enough (default: %(default)g)")
    capacity.add_argument("--runs", type=int, default=3, metavar="N", help="probes that decide a rate near the knee (default: %(default)s)")
    capacity.add_argument("--current", type=float, default=None, metavar="RPS", help="what is offered now, for the headroom")
    capacity.add_argument("--out", metavar="FILE", help="write the result as JSON there too")
    capacity.set_defaults(perform="capacity")
    check = actions.add_parser("check", help="say what is wrong with a scenario, or what is in it")
    _add_scenario(check)
    check.add_argument("--preset", metavar="NAME", help="in place of the file's stages")
    check.add_argument("--compress", type=float, default=1.0, metavar="N", help="as for run")
    check.set_defaults(perform="check")
    template = actions.add_parser("template", help="print a scenario to begin with")
    template.add_argument("name", nargs="?", default="conversation", metavar="NAME", help="default: %(default)s")
    template.set_defaults(perform="template")
    load.set_defaults(run=_run)


def _add_scenario(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("scenario", metavar="SCENARIO", help="a .toml, .yaml or .yml file")
    parser.add_argument("--target", metavar="URL", help="where to, in place of what the file says")
    parser.add_argument("--scale", type=float, default=1.0, metavar="FACTOR", help="so many times the arrivals in the same time")
    parser.add_argument(
        "--allow-host", action="append", default=[], metavar="HOST", help="a host beside loopback; may be given several times"
    )
    printed = parser.add_mutually_exclusive_group()
    printed.add_argument("--format", choices=FORMATS, default="text", help="what to print, for people (default: %(default)s)")
    printed.add_argument("--json", action="store_true", help="print JSON, everything else on stderr")
    parser.add_argument("--quiet", action="store_true", help="no progress")


def _run(arguments: argparse.Namespace) -> int:
    from somaresil.load_command import command

    return command.run(arguments)
