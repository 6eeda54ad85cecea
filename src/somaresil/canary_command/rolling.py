"""``somaresil canary run``: one rollout in the foreground, from its first share to its end."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import threading
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, Final

from somaresil.canary.controller import CanaryController
from somaresil.canary_command.file import read_rollout
from somaresil.config import Checker
from somaresil.remote import Impossible, clean
from somaresil.resilience import Resilience

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Generator

    from somaresil.canary.opinion import CanaryJudge
    from somaresil.canary.state import CanaryDecision, CanaryStatus
    from somaresil.canary_command.file import RolloutFile
    from somaresil.typing import Clock

__all__ = ["roll"]

COMPLETE, ROLLED_BACK, NOT_TAKEN = 0, 1, 2
_EVERY: Final = 5.0
_REPEAT: Final = 60.0
"""Seconds after which it is said again that nothing has changed."""
_UNTAKEN: Final = 300.0
"""Seconds for which a roll back that the router does not take is ordered again before the command gives up."""


def roll(arguments: argparse.Namespace, clock: Clock) -> int:
    """Take a version through its phases, and give the exit code."""
    file = read_rollout(arguments.file)
    if arguments.check:
        file.judge_for(Resilience(f"canary.{file.config.name}", clock=clock))
        print(_said(file))
        return COMPLETE
    every = _EVERY if file.config.interval is None else float(file.config.interval)  # type: ignore[arg-type]
    resilience = Resilience(f"canary.{file.config.name}", clock=clock)
    judge = file.judge_for(resilience)
    router = None if file.router is None else file.router(arguments.release)
    config = replace(file.config, interval=None)
    controller = CanaryController(resilience, config, snapshot=file.snapshot, judge=judge, router=router)
    with _listening(arguments, resilience, controller) if arguments.listen else nullcontext():
        return _Rolling(arguments, clock, controller, judge, every).run()


class _Rolling:
    """The loop."""

    def __init__(self, arguments: argparse.Namespace, clock: Clock, controller: CanaryController, judge: CanaryJudge, every: float) -> None:
        self._arguments = arguments
        self._clock = clock
        self._controller = controller
        self._judge = judge
        self._every = every
        self._began = clock.monotonic()
        self._shown: tuple[str, str, bool] | None = None
        self._shown_at = -_REPEAT
        self._over_since: float | None = None

    def run(self) -> int:
        asked: list[int] = []
        wake = threading.Event()

        def end(number: int) -> None:
            asked.append(number)
            wake.set()

        controller, arguments = self._controller, self._arguments
        with _signals(end):
            # The evidence is about this checksum from here on; pods are asked once before anything is decided.
            self._look()
            status = controller.start(arguments.release, checksum=arguments.checksum)
            self._show("begins" if status.phase else "waits", status, status.reason)
            while True:
                self._look()
                decided = controller.evaluate()
                self._show(decided.step.value, decided.status, _why(decided))
                code = self._code(decided.status)
                if code is not None:
                    break
                if asked or self._clock.wait(wake, self._every) or asked:
                    break
            if code is None and arguments.abort_on_exit:
                self._abort(f"ended by {signal.Signals(asked[0]).name}")
            controller.stop()
        if code is not None:
            return code
        status = controller.status()
        now = (
            f"the candidate has {status.weight:.3%} now" if not status.trouble else f"nobody knows what the candidate has: {status.trouble}"
        )
        print(clean(f"somaresil canary: ended by {signal.Signals(asked[0]).name}; {now}"), file=sys.stderr)
        return 128 + asked[0]

    def _abort(self, reason: str) -> None:
        """Roll back, for as long as the router needs and is given; a second signal does not wait for it."""
        decided = self._controller.roll_back(reason)
        self._show(decided.step.value, decided.status, _why(decided))
        while self._code(decided.status) is None:
            self._clock.wait(threading.Event(), self._every)
            decided = self._controller.evaluate()
            self._show(decided.step.value, decided.status, _why(decided))

    def _look(self) -> None:
        look = getattr(self._judge, "look", None)
        if callable(look):
            look()

    def _code(self, status: CanaryStatus) -> int | None:
        """The exit code, when it is over; a router that has not taken the end is waited for, but not for ever."""
        if not status.over:
            return None
        if status.trouble:
            now = self._clock.monotonic()
            self._over_since = now if self._over_since is None else self._over_since
            return NOT_TAKEN if now - self._over_since >= _UNTAKEN else None
        return COMPLETE if status.phase == "complete" else ROLLED_BACK

    def _show(self, step: str, status: CanaryStatus, reason: str) -> None:
        now = self._clock.monotonic()
        if self._arguments.json:
            print(json.dumps(_document(step, status, reason, now - self._began), allow_nan=False), flush=True)
            return
        # Seconds that are left to bake are news to nobody.
        shown = (status.phase, step, bool(status.trouble))
        if shown == self._shown and now - self._shown_at < _REPEAT:
            return
        self._shown, self._shown_at = shown, now
        print(clean(f"{now - self._began:8.0f} s  {status.phase or '-':<12} {status.weight:7.2%}  {step}: {reason}"), flush=True)


def _why(decided: CanaryDecision) -> str:
    counts, trouble = decided.status.finding.counts, decided.status.trouble
    seen = f"{counts.candidate_bad} of {counts.candidate} bad, control {counts.control_bad} of {counts.control}"
    reason = decided.reason if seen in decided.reason else f"{decided.reason} ({seen})"
    return reason if trouble in reason else f"{reason}; {trouble}"


def _document(step: str, status: CanaryStatus, reason: str, seconds: float) -> dict[str, Any]:
    counts = status.finding.counts
    return {
        "seconds": round(seconds, 3),
        "step": step,
        "canary": status.canary,
        "version": status.version,
        "checksum": status.checksum,
        "phase": status.phase,
        "weight": status.weight,
        "paused": status.paused,
        "leads": status.leads,
        "verdict": status.finding.verdict.value,
        "reason": reason,
        "worse": status.finding.worse,
        "candidate_good": counts.candidate_good,
        "candidate_bad": counts.candidate_bad,
        "control_good": counts.control_good,
        "control_bad": counts.control_bad,
        "missing": list(status.missing),
        "trouble": status.trouble,
    }


def _said(file: RolloutFile) -> str:
    lines = [f"canary {file.config.name}: bad is what {', '.join(file.config.objectives)} says"]
    for phase in file.config.phases:
        proof = ", with proof" if phase.prove else ""
        overdue = "" if phase.longest == float("inf") else f", after {phase.longest:g} s {phase.overdue}"
        lines.append(f"  {phase.name:<12} {phase.weight:7.2%}  {phase.bake:g} s, {phase.minimum_events} events{proof}{overdue}")
    allowed = "any" if file.levels.allowed is None else f"{file.levels.allowed:.4g}"
    lines.append(f"  rolled back at a level of {file.config.alpha:g}; share of bad events that is allowed: {allowed}")
    lines.append(f"  evidence from {', '.join(kind for kind, _ in file.sources)}; snapshot: {file.snapshot or 'none'}")
    return _clean_lines(lines)


def _clean_lines(lines: list[str]) -> str:
    return "\n".join(clean(line) for line in lines)


@contextmanager
def _signals(end: Callable[[int], None]) -> Generator[None]:
    """Have the loop end after its look, once; a second signal ends the process as usual."""
    before: dict[signal.Signals, Any] = {}

    def handle(number: int, _: object) -> None:
        signal.signal(number, before.get(signal.Signals(number)) or signal.SIG_DFL)
        end(number)

    if threading.current_thread() is threading.main_thread():
        for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            # nohup ignores SIGHUP on purpose.
            if each is not signal.SIGHUP or signal.getsignal(each) is not signal.SIG_IGN:
                before[each] = signal.signal(each, handle)
    try:
        yield
    finally:
        for each, former in before.items():
            signal.signal(each, former or signal.SIG_DFL)


def _is_loopback(host: str) -> bool:
    """By its address: a name may be anybody's."""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


@contextmanager
def _listening(arguments: argparse.Namespace, resilience: Resilience, controller: CanaryController) -> Generator[None]:
    """Serve the verdict app in a thread for as long as it rolls."""
    from somaresil.mounted.auth import BearerToken
    from somaresil.verdict import verdict_app

    try:
        import uvicorn
    except ImportError:
        raise Impossible("--listen needs uvicorn: pip install uvicorn") from None
    host, _, port = arguments.listen.rpartition(":")
    host = host.strip("[]")
    check = Checker("--listen")
    if not host or not port.isdecimal() or int(port) > 65_535:  # noqa: PLR2004
        check.problem("listen", arguments.listen, "HOST:PORT", "port 0 is any")
    elif not _is_loopback(host) and not arguments.allow_host:
        check.problem("listen", arguments.listen, "an address of loopback, or --allow-host")
    token = os.environ.get(arguments.token_env)
    if not token:
        check.problem("token_env", arguments.token_env, "a variable that holds a token", "whoever can reach it can promote")
    check.finish()
    app = verdict_app({controller.config.name: controller}, resilience=resilience, auth=BearerToken(str(token), basic=True))
    try:
        bound = socket.create_server((host, int(port)), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as refused:
        raise Impossible(f"--listen {arguments.listen}: {refused.strerror or refused}") from None
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", access_log=False, lifespan="off", ws="none"))
    # Signals are ours.
    thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]}, name="somaresil-canary-listen", daemon=True)
    thread.start()
    address, number = bound.getsockname()[:2]
    print(clean(f"verdicts are at http://{address}:{number}"), file=sys.stderr, flush=True)
    try:
        yield
    finally:
        server.should_exit = True
        thread.join(5.0)
        bound.close()
