"""The arguments of ``somaresil render``."""

from __future__ import annotations

import argparse
from typing import Any

__all__ = ["add_to"]


def add_to(commands: Any) -> None:
    """Add ``render`` to the subcommands of argparse."""
    render = commands.add_parser(
        "render",
        help="write rules, boards, configurations and manifests for what watches a service",
        description=(
            "Writes files that are safe to commit: the same arguments give the same files, to the byte. KIND is prometheus-rules, "
            "alertmanager, grafana, otel-collector, jaeger, loki, podmonitor, compose, kubernetes, another that --list names, or all. What "
            "would not work is refused before it is written, all of it at once."
        ),
        epilog="exit codes: 0 written; 1 with --check: what is there differs; 2 refused",
    )
    render.add_argument("kind", metavar="KIND", nargs="?", help="what to write")
    render.add_argument("--list", action="store_true", help="print every kind, and write nothing")
    render.add_argument("--service", metavar="NAME", help="the service, as it calls itself; needed for every kind")
    render.add_argument("--slo", metavar="FILE", help="its objectives, as .toml, .yaml or .yml")
    render.add_argument("--environment", metavar="NAME", help="where it runs, as the label environment of its series")
    render.add_argument("--namespace", default="monitoring", metavar="NAME", help="namespace of Kubernetes (default: %(default)s)")
    render.add_argument("--out", metavar="DIR", help="folder for the files, made when it is not there (default: standard output)")
    render.add_argument("--check", action="store_true", help="write nothing; compare with what is in --out")
    render.add_argument(
        "--json", action="store_true", help="tell on standard output as JSON what was written, differs, or would be written"
    )

    where = render.add_argument_group("what is around it")
    where.add_argument("--target", action="append", default=[], metavar="HOST:PORT", help="where Prometheus scrapes it; repeatable")
    where.add_argument("--metrics-path", default="/metrics", metavar="PATH", help="what is scraped there (default: %(default)s)")
    where.add_argument("--port", default="http", metavar="NAME", help="port of its pods that is scraped (default: %(default)s)")
    where.add_argument("--scrape-interval", type=_duration, default=15.0, metavar="TIME", help="of Prometheus (default: 15s)")
    where.add_argument(
        "--retention", type=_duration, default=15 * 86_400.0, metavar="TIME", help="how long Prometheus keeps data (default: 15d, its own)"
    )
    where.add_argument(
        "--runbooks",
        default="runbooks",
        metavar="URL",
        help="where the runbooks are, with /{page}.html for a site of files (default: %(default)s, a relative path)",
    )
    where.add_argument("--grafana", metavar="URL", help="where Grafana is for people; alerts link to its boards")

    told = render.add_argument_group("who is told", "webhook:URL, webhook+bearer:URL, slack:#channel or pagerduty; secrets are files")
    told.add_argument("--page-to", metavar="WHO", help="who is woken; without it Alertmanager refuses its configuration")
    told.add_argument("--ticket-to", metavar="WHO", help="who is told on the next working day; the same")

    traces = render.add_argument_group("traces")
    traces.add_argument("--share", type=float, default=0.05, metavar="RATIO", help="of uninteresting traces to keep (default: %(default)g)")
    traces.add_argument("--slow", type=_duration, default=2.0, metavar="TIME", help="from which on a trace is kept (default: 2s)")

    rules = render.add_argument_group("rules")
    rules.add_argument(
        "--label", action="append", default=[], metavar="NAME=VALUE", help="its series have this label (default: service=NAME); repeatable"
    )
    rules.add_argument("--alert-label", action="append", default=[], metavar="NAME=VALUE", help="a further label of alerts; repeatable")
    rules.add_argument(
        "--events-per-hour", action="append", default=[], metavar="[NAME=]NUMBER", help="expected traffic, for the check of low traffic"
    )
    rules.add_argument(
        "--buckets", type=_buckets, metavar="LIST", help="bounds that the histograms are known to have: a latency that is none is refused"
    )
    rules.add_argument("--cap-unreachable", action="store_true", help="let conditions that could never fire do so at 99 %% of errors")
    rules.add_argument("--sloth", action="store_true", help="add the labels and windows of Sloth, so that its dashboards work")
    security = render.add_argument_group("security")
    security.add_argument("--runtime", metavar="FILE", help="what its processes may do, a file with [runtime]: for Falco")
    security.add_argument("--scope", metavar="CONDITION", help="whose processes Falco means, as one condition of it")
    security.add_argument("--install", default=".", metavar="WORDS", help="for pip install, in workflows that scan (default: %(default)s)")
    render.set_defaults(run=_run, parser=render)


def _run(arguments: argparse.Namespace) -> int:
    from somaresil.render_command.command import run

    return run(arguments)


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
