"""The command ``somaresil rules``: objectives of a file as rules for Prometheus, with tests of them for promtool.

Exit codes: 0 written; 1 with ``--check``: what is there is not what would be written; 2 refused, with every problem.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["add_to"]


def add_to(commands: Any) -> None:
    """Add ``rules`` to the subcommands of argparse."""
    rules = commands.add_parser(
        "rules",
        help="write objectives as recording and alerting rules of Prometheus",
        description=(
            "Reads objectives from a file and writes, for each, a file of rules and files of tests for promtool. What would not work is "
            "refused before it is written: conditions that can never fire, windows of fewer than 4 scrapes or longer than the retention."
        ),
        epilog="exit codes: 0 written; 1 with --check: what is there differs; 2 refused",
    )
    rules.add_argument("--slo", required=True, metavar="FILE", help="objectives, as .toml, .yaml or .yml")
    rules.add_argument("--out", required=True, metavar="DIR", help="folder for the files; made when it is not there")
    rules.add_argument("--scrape-interval", type=_duration, default=15.0, metavar="TIME", help="of Prometheus (default: 15s)")
    rules.add_argument(
        "--retention",
        type=_duration,
        default=15 * 86_400.0,
        metavar="TIME",
        help="how long Prometheus keeps data (default: 15d, its own)",
    )
    rules.add_argument("--service", metavar="NAME", help="label service of all that is recorded, unless the file says another")
    rules.add_argument("--label", action="append", default=[], metavar="NAME=VALUE", help="count only series with this label; repeatable")
    rules.add_argument("--alert-label", action="append", default=[], metavar="NAME=VALUE", help="a further label of alerts; repeatable")
    rules.add_argument("--runbook", metavar="URL", help="annotation runbook_url; {slo} in it is the name of the objective")
    rules.add_argument(
        "--events-per-hour", action="append", default=[], metavar="[NAME=]NUMBER", help="expected traffic, for the check of low traffic"
    )
    rules.add_argument(
        "--buckets", type=_buckets, metavar="LIST", help="bounds that the histograms are known to have: a latency that is none is refused"
    )
    rules.add_argument("--cap-unreachable", action="store_true", help="let conditions that could never fire do so at 99 %% of errors")
    rules.add_argument("--sloth", action="store_true", help="add the labels and windows of Sloth, so that its dashboards work")
    rules.add_argument("--check", action="store_true", help="write nothing; compare with what is there")
    rules.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    from somaresil.errors import ConfigurationError
    from somaresil.slo.rules import RuleOptions, compile_rules
    from somaresil.slofile import read_slos

    try:
        options = RuleOptions(
            scrape_interval=arguments.scrape_interval,
            retention=arguments.retention,
            service=arguments.service,
            labels=_pairs(arguments.label),
            alert_labels=_pairs(arguments.alert_label),
            runbook_url=arguments.runbook,
            events_per_hour=_rates(arguments.events_per_hour),
            buckets=arguments.buckets,
            cap_unreachable=arguments.cap_unreachable,
            sloth=arguments.sloth,
        )
        file = read_slos(arguments.slo)
        compiled = compile_rules(file.slos, options, sources=file.sources, services=file.services)
    except (ConfigurationError, ValueError) as wrong:
        print(f"somaresil rules: {wrong}", file=sys.stderr)
        return 2
    for note in compiled.notes:
        print(f"note: {note}", file=sys.stderr)
    folder = Path(arguments.out)
    try:
        if arguments.check:
            return _compare(folder, compiled.files)
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in compiled.files.items():
            (folder / name).write_text(text, encoding="utf-8")
            print(folder / name)
    except OSError as failed:
        print(f"somaresil rules: {folder}: {failed.strerror or type(failed).__name__}", file=sys.stderr)
        return 2
    return 0


def _compare(folder: Path, files: Any) -> int:
    """Tell what is not there, or is there and another; files of ours that no objective has any more are left over."""
    there = {path.name for pattern in ("*.rules.yaml", "*.test.yaml") for path in folder.glob(pattern)}
    found = [f"{folder / name}: not there" for name in files if name not in there]
    found += [
        f"{folder / name}: differs" for name, text in files.items() if name in there and (folder / name).read_text(encoding="utf-8") != text
    ]
    found += [f"{folder / name}: left over" for name in sorted(there - set(files))]
    print("\n".join(found) if found else f"{folder}: as it would be written")
    return 1 if found else 0


def _pairs(given: Iterable[str]) -> dict[str, str]:
    found = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals:
            raise ValueError(f"{text!r}: expected NAME=VALUE")
        found[name] = value
    return found


def _rates(given: Iterable[str]) -> dict[str, float]:
    found = {}
    for text in given:
        name, _, rate = text.rpartition("=")
        try:
            found[name or "*"] = float(rate)
        except ValueError:
            raise ValueError(f"{text!r}: expected NUMBER or NAME=NUMBER") from None
    return found


def _duration(text: str) -> float:
    from somaresil.settings.entries import duration_of

    found = duration_of(text)
    if found is None:
        raise argparse.ArgumentTypeError(f"{text!r}: expected a duration such as 15s, 1.5h or 30d")
    return found.total_seconds()


def _buckets(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r}: expected bounds in seconds, such as 0.1,0.5,2") from None
