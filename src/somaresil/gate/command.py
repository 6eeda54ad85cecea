"""The command ``somaresil gate``: may this be released?

Exit codes: 0 allow, 1 block, 2 not known, 3 it was asked wrongly (arguments, definitions). Whatever happens, an answer that is no clear
ALLOW is not 0: an exception of our own is *not known* too.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from somaresil.clock import SystemClock
from somaresil.config import Checker, did_you_mean
from somaresil.errors import ConfigurationError
from somaresil.eventtext import harmless
from somaresil.gate.report import FORMATS, GateReport
from somaresil.integrations.prometheus_store import PrometheusStore
from somaresil.slo.gate import Decision, Override, decide
from somaresil.slo.judge import Composed, judge
from somaresil.slo.snapshot import SnapshotStore
from somaresil.slo.store import GroupStore
from somaresil.slofile import SloFile, read_slos

if TYPE_CHECKING:
    import argparse

    from somaresil.slo.gate import Evidence
    from somaresil.slo.store import SliStore
    from somaresil.typing import Clock

__all__ = ["ALLOW", "BLOCK", "UNKNOWN", "WRONG", "run"]

ALLOW, BLOCK, UNKNOWN, WRONG = 0, 1, 2, 3
_CODES: Final = {Decision.ALLOW: ALLOW, Decision.BLOCK: BLOCK, Decision.UNKNOWN: UNKNOWN}
_ACTORS: Final = ("SOMARESIL_ACTOR", "GITHUB_ACTOR", "GITLAB_USER_LOGIN", "LOGNAME", "USER")
_AUDIT: Final = os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)


def run(arguments: argparse.Namespace, clock: Clock | None = None) -> int:
    """Judge, print, and give the exit code."""
    try:
        return _run(arguments, clock or SystemClock())
    except ConfigurationError as wrong:
        print(f"somaresil gate: {wrong}", file=sys.stderr)
        return WRONG
    except Exception as defect:  # noqa: BLE001 - whatever it is, it is no reason to release
        print(f"somaresil gate: UNKNOWN: {type(defect).__qualname__} in the gate itself", file=sys.stderr)
        return UNKNOWN


def _run(arguments: argparse.Namespace, clock: Clock) -> int:
    now = clock.time()
    file = read_slos(arguments.slo)
    check = Checker("gate")
    known = {slo.name: slo for slo in file.slos}
    file = replace(file, slos=_chosen(file, arguments.only, check))
    asked = _override(arguments, now, check)
    stores = _stores(arguments, clock, file, check)
    check.finish()
    # One store that knows groups is enough: that another one does not is no reason to know nothing.
    able = any(isinstance(store, GroupStore) for store in stores)
    evidence: tuple[Evidence, ...] = ()
    for store in stores:
        policy = file.policy if isinstance(store, GroupStore) or not able else replace(file.policy, groups=False)
        evidence += judge(file.slos, Composed(store, known), policy).evidence
    verdict = decide(evidence, file.policy)
    code = _CODES[verdict.decision]
    void = ""
    if asked is not None and not asked.holds(clock.time()):
        void = "it has expired"
    elif asked is not None and code != ALLOW:
        void = _record(arguments.audit, asked, verdict.decision, clock.time())
        code = code if void else ALLOW
    counting = asked if asked is not None and not void else None
    report = GateReport(at=now, verdict=replace(verdict, override=counting), file=file, exit_code=code, asked=asked, void=void)
    print(FORMATS[arguments.format](report), flush=True)
    return code


def _chosen(file: SloFile, only: list[str], check: Checker) -> tuple[Any, ...]:
    names = [slo.name for slo in file.slos]
    for name in only:
        if name not in names:
            check.problem("--only", name, f"an objective of the file ({', '.join(names)})", did_you_mean(name, names))
    return tuple(slo for slo in file.slos if not only or slo.name in only)


def _stores(arguments: argparse.Namespace, clock: Clock, file: SloFile, check: Checker) -> list[SliStore]:
    stores: list[SliStore] = []
    labels: dict[str, str] = {}
    for text in arguments.label:
        name, sign, value = text.partition("=")
        if not sign or name in labels:
            check.problem("--label", text, "NAME=VALUE, each name once")
        labels[name] = value
    if arguments.prometheus is None and arguments.snapshot is None:
        check.problem("--prometheus", None, "the address of a server, unless --snapshot is given")
    if arguments.prometheus is not None:
        try:
            stores.append(
                PrometheusStore(
                    arguments.prometheus,
                    labels=labels,
                    sources=file.sources,
                    timeout=arguments.timeout,
                    max_age=arguments.max_age,
                    token_env=arguments.token_env,
                    token_file=arguments.token_file,
                    basic_env=arguments.basic_env,
                    clock=clock,
                )
            )
        except ConfigurationError as wrong:
            for problem in wrong.problems:
                check.problem(problem.path, problem.value, problem.allowed, problem.hint)
    if arguments.snapshot is not None:
        stores.append(SnapshotStore(arguments.snapshot, clock=clock, max_age=arguments.max_age))
    return stores


def _override(arguments: argparse.Namespace, now: float, check: Checker) -> Override | None:
    if arguments.override is None and arguments.until is None:
        return None
    if arguments.override is None or arguments.until is None:
        given = "--until" if arguments.override is None else "--override"
        check.problem(given, "alone", "--override REASON together with --until TIME")
        return None
    until = _time(arguments.until)
    if until is None:
        check.problem("--until", arguments.until, "a time with its zone, such as 2026-11-30T18:00:00Z")
        return None
    try:
        return Override.granted(arguments.override, until, now=now, who=_who())
    except ConfigurationError as wrong:
        for problem in wrong.problems:
            check.problem(f"--{'until' if problem.path.endswith('until') else 'override'}", problem.value, problem.allowed, problem.hint)
        return None


def _time(text: str) -> float | None:
    try:
        moment = datetime.fromisoformat(text)
        return None if moment.tzinfo is None else moment.timestamp()
    except (ValueError, OverflowError):
        return None


def _who() -> str:
    return harmless(next((who for name in _ACTORS if (who := os.environ.get(name))), "unknown"), 100)


def _record(path: str | None, override: Override, decision: Decision, now: float) -> str:
    """Write down that an override made a difference; returns why that could not be done, for what is not recorded does not count."""
    entry = {
        "at": now,
        "what": "gate overridden",
        "who": override.who,
        "reason": override.reason,
        "until": override.until,
        "decision": decision.value,
    }
    line = json.dumps(entry)
    if path is not None:
        try:
            descriptor = os.open(path, _AUDIT, 0o600)
            try:
                os.write(descriptor, line.encode() + b"\n")
            finally:
                os.close(descriptor)
        except OSError as refused:
            return f"it could not be recorded ({refused.strerror or type(refused).__qualname__})"
    print(f"somaresil gate: {line}", file=sys.stderr)
    return ""
