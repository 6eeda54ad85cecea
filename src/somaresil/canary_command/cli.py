"""The arguments of ``somaresil canary``. What it does is loaded when it is wanted.

Exit codes: 0 done (``run``: complete; ``verdict`` and ``judge``: pass); 1 no (refused; rolled back; fail); 2 it could not be done, or
nothing is known yet; 128 + n ended by signal n. Whatever is no clear yes is not 0.
"""

from __future__ import annotations

import argparse
from typing import Any

from somaresil.canary_command import TOKEN, URL

__all__ = ["add_to"]


def add_to(commands: Any) -> None:
    """Register the command with a parser."""
    canary = commands.add_parser(
        "canary",
        help="roll a version out by its evidence, or ask how that goes",
        description="Takes a version through its phases, talks to whoever does (somaresil.verdict), and writes what engines read.",
        epilog="exit codes: 0 done, complete, pass; 1 refused, rolled back, fail; 2 it could not be done, or nothing is known yet",
    )
    actions = canary.add_subparsers(dest="action", title="actions", metavar="ACTION", required=True)
    there = argparse.ArgumentParser(add_help=False)
    there.add_argument("--url", default=None, help=f"where the verdict app is, as http://host:port/canary (default: {URL})")
    there.add_argument("--token-env", default=TOKEN, metavar="NAME", help="the variable that holds the token (default: %(default)s)")
    there.add_argument("--timeout", type=float, default=10.0, metavar="SECONDS", help="longest wait for an answer (default: %(default)g)")
    there.add_argument("--json", action="store_true", help="print what is answered")

    run = actions.add_parser(
        "run",
        help="take a version through the phases of a file",
        description=(
            "Looks at the evidence of all pods and has the router move the traffic, until the version is complete or rolled back. "
            "With a snapshot in the file it goes on where it was when it is started again. Ctrl-C leaves the traffic as it is."
        ),
        epilog="exit codes: 0 complete; 1 rolled back; 2 it could not be done, or the router takes no roll back; 128 + n ended by signal n",
    )
    run.add_argument("file", metavar="FILE", help="the rollout, as .toml, .yaml or .yml")
    run.add_argument("--version", required=True, metavar="VERSION", dest="release", help="what is rolled out")
    run.add_argument("--checksum", default=None, help="what its evidence belongs to (default: the version)")
    run.add_argument("--check", action="store_true", help="read the file and say what it comes to, and nothing else")
    run.add_argument("--abort-on-exit", action="store_true", help="roll back when ended by a signal")
    run.add_argument("--listen", metavar="HOST:PORT", help="serve the verdict app there, for the other actions and for pods that push")
    run.add_argument("--token-env", default=TOKEN, metavar="NAME", help="the variable with the token for --listen (default: %(default)s)")
    run.add_argument("--allow-host", action="store_true", help="--listen may be an address that others can reach")
    run.add_argument("--json", action="store_true", help="a line of JSON for each look")

    status = actions.add_parser("status", parents=[there], help="how it stands")
    status.add_argument("name", nargs="?", default=None, metavar="NAME", help="one canary (default: all)")
    status.add_argument("--snapshot", default=None, metavar="FILE", help="read this file, and ask nobody")
    for action, what in (
        ("promote", "on to the next phase, whatever the evidence says"),
        ("rollback", "all traffic to the control"),
        ("pause", "stay in this phase, but for a failure"),
        ("resume", "go on after pause"),
    ):
        act = actions.add_parser(action, parents=[there], help=what)
        act.add_argument("name", metavar="NAME")
        act.add_argument("--reason", required=action == "rollback", default="", help="goes to the audit log")
    verdict = actions.add_parser(
        "verdict",
        parents=[there],
        help="ask for a verdict, for a job of Kubernetes or a load tester",
        epilog="exit codes: 0 pass; 1 fail; 2 neither is known, or nobody could be asked",
    )
    verdict.add_argument("name", metavar="NAME")
    verdict.add_argument("--checksum", default="", help="of the version that is meant (default: the one that was begun last)")
    verdict.add_argument("--wait", type=float, default=0.0, metavar="SECONDS", help="ask until one is known, for so long (default: once)")
    verdict.add_argument("--interval", type=float, default=5.0, metavar="SECONDS", help="between two questions (default: %(default)g)")

    judge = actions.add_parser(
        "judge",
        help="compare two sets of metrics, in the manner of Kayenta",
        description="Reads what Kayenta sends to a remote judge: canaryConfig, scoreThresholds, metricSetPairList.",
        epilog="exit codes: 0 pass; 1 fail; 2 marginal, no data, or nothing that could be judged",
    )
    judge.add_argument("file", metavar="FILE", help="JSON; - for standard input")
    judge.add_argument("--json", action="store_true", help="print the CanaryJudgeResult")

    render = actions.add_parser(
        "render",
        help="write the rollout of a file in the words of an engine",
        epilog="exit codes: 0 written; 1 with --check: what is there differs; 2 refused",
    )
    render.add_argument("kind", metavar="KIND", help="flagger, argo-web, argo-prometheus, argo-job, argo-rollout, github-actions, ...")
    render.add_argument("file", metavar="FILE", help="the rollout, as .toml, .yaml or .yml")
    render.add_argument("--out", metavar="FILE", default=None, help="where to (default: standard output)")
    render.add_argument("--check", action="store_true", help="write nothing; compare with what is there")
    canary.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    from somaresil.canary_command.command import run

    return run(arguments)
