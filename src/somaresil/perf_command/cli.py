"""The arguments of ``somaresil perf``. What it does is loaded when it is wanted: asking for help must cost nothing."""

from __future__ import annotations

import argparse
from typing import Any, Final

__all__ = ["STORE", "add_command"]

STORE: Final = "perf-results"
"""The folder in which results are kept when no other is named."""
_CODES: Final = (
    "exit codes: 0 done, and nothing is wrong; 1 a regression with --fail-on-regression, or a budget that is broken; 2 it could not be "
    "decided, or not be done; 130 Ctrl-C"
)
_FORMS: Final = ("pytest-benchmark", "pyperf", "hyperfine", "locust", "k6", "oha", "wrk", "load", "prometheus", "csv", "somaresil")


def add_command(commands: Any) -> None:
    """Add ``perf`` to the subcommands of argparse."""
    perf = commands.add_parser(
        "perf",
        help="compare measurements, keep them, hold them against budgets",
        description="Says whether something became slower: of files of results, of commits, of commands measured in turn, over time.",
        epilog=_CODES,
    )
    actions = perf.add_subparsers(dest="action", title="actions", metavar="ACTION", required=True)
    _add_compare(actions)
    _add_ab(actions)
    _add_history(actions)
    _add_check(actions)
    _add_record(actions)


def _action(actions: Any, name: str, words: str, description: str) -> argparse.ArgumentParser:
    found: argparse.ArgumentParser = actions.add_parser(name, help=words, description=description, epilog=_CODES)
    found.set_defaults(run=_run, parser=found, action=name)
    return found


def _add_compare(actions: Any) -> None:
    compare = _action(
        actions,
        "compare",
        "two versions beside each other",
        "Compares files of results, or commits: what is recorded of them, or with --run what a command takes in both, measured in turn.",
    )
    compare.add_argument("--baseline", required=True, nargs="+", metavar="WHAT", help="files of results, or commits, branches, tags")
    compare.add_argument("--current", default=["HEAD"], nargs="+", metavar="WHAT", help="likewise (default: HEAD)")
    compare.add_argument(
        "--run", dest="run_command", metavar="COMMAND", help="measure this command in both; . is the working directory as it is"
    )
    compare.add_argument("--quantile", type=float, default=0.5, metavar="Q", help="which quantile is compared (default: %(default)s)")
    compare.add_argument(
        "--adjust",
        choices=("holm", "benjamini_hochberg", "none"),
        default="holm",
        help="for how many figures are compared (default: %(default)s)",
    )
    compare.add_argument("--unordered", action="store_true", help="values do not stand in the order in which they were measured")
    compare.add_argument("--allow-other-machine", action="store_true", help="compare figures of different machines")
    compare.add_argument("--allow-missing", action="store_true", help="let figures go that only the baseline has")
    _add_paired(compare)
    _add_gate(compare)
    _add_stored(compare)
    _add_reading(compare)
    _add_output(compare)


def _add_ab(actions: Any) -> None:
    ab = _action(
        actions,
        "ab",
        "two commands measured in turn",
        "Measures two commands, or one command in two commits, in pairs: one after the other, in an order drawn by lot, until it is clear "
        "whether the second is slower. somaresil perf ab -- CMD_A -- CMD_B",
    )
    ab.add_argument("--baseline", metavar="COMMIT", help="measure one command in this commit")
    ab.add_argument("--current", metavar="COMMIT", help="and in this one; . is the working directory as it is")
    _add_paired(ab)
    _add_gate(ab)
    _add_reading(ab)
    _add_output(ab)
    ab.add_argument("commands", nargs=argparse.REMAINDER, metavar="-- CMD_A -- CMD_B", help="the commands, each behind --")


def _add_history(actions: Any) -> None:
    history = _action(
        actions, "history", "changes of level over time", "Looks for changes of level in what was recorded, or in a query of Prometheus."
    )
    history.add_argument("--branch", metavar="NAME", help="only commits that led to this one, in their order (default: all, by time)")
    history.add_argument("--recent", type=int, metavar="N", help="only changes within the last N values count")
    history.add_argument(
        "--minimum-points", type=int, default=5, metavar="N", help="values on each side of a change (default: %(default)s)"
    )
    history.add_argument(
        "--name", action="append", default=[], metavar="TEXT", help="only series whose name has this in it; may be given again"
    )
    history.add_argument("--prometheus", metavar="URL", help="ask this server instead of the store")
    history.add_argument("--query", metavar="PROMQL", help="what it is asked")
    history.add_argument("--days", type=float, default=30.0, metavar="N", help="how far back (default: %(default)g)")
    history.add_argument("--step", type=float, default=3600.0, metavar="SECONDS", help="between two values (default: %(default)g)")
    history.add_argument("--timeout", type=float, default=30.0, metavar="SECONDS", help="for its answer (default: %(default)g)")
    history.add_argument("--token-env", metavar="NAME", help="the variable with a bearer token")
    _add_gate(history)
    _add_stored(history)
    _add_reading(history)
    _add_output(history)


def _add_check(actions: Any) -> None:
    check = _action(actions, "check", "results against budgets", "Says whether results keep budgets: kept, broken, or not known.")
    check.add_argument("files", nargs="+", metavar="RESULTS", help="files of results")
    check.add_argument("--budgets", metavar="FILE", help="[[budgets]] in TOML or YAML (default: those of the plan)")
    check.add_argument("--confidence", type=float, default=0.99, metavar="P", help="how sure it must be (default: %(default)s)")
    check.add_argument(
        "--undecided",
        choices=("unknown", "estimate"),
        default="unknown",
        help="what becomes of a limit within the interval (default: %(default)s)",
    )
    check.add_argument("--name", metavar="NAME", help="the endpoint, for tools that do not write it")
    check.add_argument("--allow-unknown", action="store_true", help="what could not be decided does not end with 2")
    _add_reading(check)
    _add_output(check)


def _add_record(actions: Any) -> None:
    record = _action(actions, "record", "keep results", "Puts results into the store, with commit, time and machine.")
    record.add_argument("files", nargs="+", metavar="RESULTS", help="files of results")
    record.add_argument("--commit", metavar="NAME", help="of what they are (default: what the file says, else HEAD)")
    record.add_argument("--git-note", action="store_true", help="into a git note of the commit, refs/notes/somaresil-perf, not a folder")
    record.add_argument("--store", default=STORE, metavar="DIR", help="the folder (default: %(default)s)")
    record.add_argument("--json", action="store_true", help="print where they are kept as JSON")
    _add_reading(record)


def _add_paired(parser: argparse.ArgumentParser) -> None:
    paired = parser.add_argument_group("measuring in turn")
    paired.add_argument(
        "--measure",
        choices=("wall", "cpu", "output"),
        default="wall",
        help="seconds that pass, seconds of processor time, or figures that the command prints in a format that is read; a command with "
        "{out} in it writes them to that file (default: %(default)s)",
    )
    paired.add_argument("--pairs", type=int, default=20, metavar="N", help="pairs before the first look (default: %(default)s)")
    paired.add_argument("--most-pairs", type=int, default=320, metavar="N", help="pairs at the last look (default: %(default)s)")
    paired.add_argument("--timeout", type=float, default=600.0, metavar="SECONDS", help="for one run (default: %(default)g)")
    paired.add_argument("--setup", metavar="COMMAND", help="run first in each checkout")
    paired.add_argument("--seed", default="0", metavar="TEXT", help="decides the order within pairs (default: %(default)s)")


def _add_gate(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--minimum-effect", type=float, metavar="SHARE", help="the least effect that counts (default: 0.05; in pairs 0.02)")
    parser.add_argument(
        "--alpha", type=float, metavar="P", help="how often a difference is seen where none is (default: 0.01; in pairs 0.05)"
    )
    parser.add_argument("--fail-on-regression", action="store_true", help="end with 1 when something regressed")
    parser.add_argument("--allow-unknown", action="store_true", help="what could not be decided does not end with 2")


def _add_stored(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--store", default=STORE, metavar="DIR", help="the folder with recordings (default: %(default)s)")
    parser.add_argument("--notes", action="store_true", help="read recordings in git notes too")


def _add_reading(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--results", choices=_FORMS, metavar="FORM", help=f"who wrote the results, when it is not found out: {', '.join(_FORMS)}"
    )
    parser.add_argument("--unit", metavar="UNIT", help="of a query whose metric does not end in one")
    if parser.get_default("action") not in {"check", "record"}:
        parser.add_argument(
            "--metric", action="append", default=[], metavar="NAME", help="only this metric (p95, throughput …); may be given again"
        )


def _add_output(parser: argparse.ArgumentParser) -> None:
    printed = parser.add_mutually_exclusive_group()
    printed.add_argument(
        "--format", choices=("text", "markdown", "html"), default="text", help="what is printed, for people (default: %(default)s)"
    )
    printed.add_argument("--json", action="store_true", help="print JSON, everything else on stderr")
    for option, form, name in (("out", "json", "JSON"), ("markdown", "markdown", "Markdown"), ("html", "html", "a page")):
        parser.add_argument(f"--{option}", dest=f"{form}_file", metavar="FILE", help=f"write it as {name} there too")


def _run(arguments: argparse.Namespace) -> int:
    from somaresil.perf_command.run import run

    return run(arguments)
