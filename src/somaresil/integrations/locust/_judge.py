"""The judgement of a Locust test: counts of every process come together at the master, and its exit code says what they mean.

Locust's master never sees a request, and its percentiles have two digits. So each worker counts for itself and tells the master what is new
with each of Locust's own reports; when a test ends, the master asks every worker for its last counts and waits for them. Whose last counts
do not come leaves the answer unknown: what is missing may be the worst.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import gevent
import locust
from gevent.event import Event
from locust.runners import MasterRunner, WorkerRunner

from somaresil.clock import SystemClock
from somaresil.config import Checker
from somaresil.errors import describe
from somaresil.integrations._locust_pace import LATE, PACES, missed
from somaresil.integrations._locust_report import ClientRun, LocustReport, checks_of, limits_of
from somaresil.integrations._locust_tally import Sum, Tally, ending_of
from somaresil.integrations.loadmetrics import LoadMetrics, address_of
from somaresil.integrations.locust._sse import ENDING, GAP_BOUNDS
from somaresil.load.arrivals import Stage
from somaresil.load.orders import Request
from somaresil.load.scenario import Scenario, ServerPart, is_loopback, read_scenario
from somaresil.load.server import Reading, ServerView, read, view_of
from somaresil.load.thresholds import Answer, Check, Threshold, bounds_of, threshold_of

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable

    from locust.env import Environment

    from somaresil.slo.objective import SLO

__all__ = ["Judge", "judge"]

_KEY: Final = "somaresil"
_FINISH: Final = "somaresil.finish"
_LAST: Final = "somaresil.last"
_PATIENCE: Final = 10.0
"""Seconds, beside the ``--stop-timeout``, in which workers must tell their last counts."""
_LOOK: Final = 0.05
_SLICE: Final = 1.0
_SHOWN_EVERY: Final = 1.0
_UNKNOWN: Final = 2
_LOCAL: Final = "locust"
_CLOCK: Final = SystemClock()
_LOG: Final = logging.getLogger("somaresil.locust")


def judge(
    scenario: str | os.PathLike[str] | None = None,
    *,
    thresholds: Mapping[str, Any] | Iterable[Threshold] = (),
    slos: str | os.PathLike[str] | Iterable[SLO] = (),
    metrics: str | None = None,
    server_slos: Iterable[str] = (),
    report: str | os.PathLike[str] | None = None,
    allow_hosts: Iterable[str] = (),
    tell: str | None = None,
) -> Judge:
    """Judge the tests of this locustfile; to be called once in it. Locust's exit code is then 0 (kept), 1 (not kept) or 2 (not known).

    - ``scenario``: a file of ``somaresil load``, of which the limits, the objectives and ``[server]`` count;
    - ``thresholds``: limits by name, as in such a file: ``{"p95": 2.0, "error_rate": 0.001, "answer": {"ttft_p95": 0.5}}``, or objects.
      The error rate is limited to 0.001 when nothing is said of it;
    - ``slos``: objectives, or a file of them;
    - ``metrics``: the address of the service's metrics in the text form of Prometheus, read at the beginning and at the end of a test;
      ``server_slos``: objectives that are judged by them;
    - ``report``: a file that gets the report, as JSON or (``.md``) Markdown; as text it goes to the standard output;
    - ``allow_hosts``: hosts that are not loopback and may be put under load. Locust ends with 2 for any other;
    - ``tell``: ``HOST:PORT`` at which Prometheus is answered while a test runs (:mod:`somaresil.integrations.loadmetrics`), by the master
      or the single process. Locust ends with 2 when somebody else is there.

    Raises :class:`~somaresil.errors.ConfigurationError`.
    """
    return Judge(
        scenario,
        thresholds=thresholds,
        slos=slos,
        metrics=metrics,
        server_slos=server_slos,
        report=report,
        allow_hosts=allow_hosts,
        tell=tell,
    ).listen()


class Judge:
    """What :func:`judge` makes. In a worker it counts, in the master it adds up and decides, in a single process it does both."""

    def __init__(
        self,
        scenario: str | os.PathLike[str] | None = None,
        *,
        thresholds: Mapping[str, Any] | Iterable[Threshold] = (),
        slos: str | os.PathLike[str] | Iterable[SLO] = (),
        metrics: str | None = None,
        server_slos: Iterable[str] = (),
        report: str | os.PathLike[str] | None = None,
        allow_hosts: Iterable[str] = (),
        tell: str | None = None,
    ) -> None:
        """Nothing is listened to yet. Arguments and errors are those of :func:`judge`."""
        found = None if scenario is None else read_scenario(scenario)
        self._scenario = found
        own = _thresholds(thresholds) if isinstance(thresholds, Mapping) else tuple(thresholds)
        self.limits = limits_of((*(() if found is None else found.thresholds), *own))
        self.slos = (*(() if found is None else found.slos), *_objectives(slos))
        self._server = ServerPart(metrics, tuple(server_slos)) if metrics is not None else None if found is None else found.server
        self._file = None if report is None else Path(report)
        if self._file is not None and not self._file.parent.is_dir():
            check = Checker("judge")
            check.problem("report", str(self._file), "a file in a folder that is there")
            check.finish()
        self._allowed = frozenset(allow_hosts)
        self._tell = None if tell is None else address_of(tell)
        if tell is not None and self._tell is None:
            check = Checker("judge")
            check.problem("tell", tell, "HOST:PORT, such as 127.0.0.1:9102")
            check.finish()
        bounds = bounds_of(self.limits, self.slos)
        GAP_BOUNDS.update(bounds.get("gap", ()))
        self.tally = Tally(bounds)
        self.sum = Sum(bounds)
        self._serving = ExitStack()
        self._environment: Environment | None = None
        self._begun: float | None = None
        self._ended: float | None = None
        self._started_at = 0.0
        self._complete = False
        self._before: Reading | str | None = None
        self._told = Event()
        self._workers: set[str] = set()
        """Those that were there in the test, whether they have told anything or not."""

    def listen(self) -> Judge:
        """Listen to Locust from now on, and give this object."""
        events = locust.events
        for hook, listener in (
            (events.init, self._init),
            (events.test_start, self._test_start),
            (events.test_stopping, self._test_stopping),
            (events.test_stop, self._test_stop),
            (events.request, self._request),
            (events.report_to_master, self._report_to_master),
            (events.worker_report, self._worker_report),
            (events.worker_connect, self._worker_connect),
            (events.quitting, self._quitting),
        ):
            hook.add_listener(listener)
        return self

    # -- what Locust tells ----------------------------------------------------------------------------------------------------------------

    def _init(self, environment: Environment, **_: Any) -> None:
        self._environment = environment
        runner = environment.runner
        if isinstance(runner, WorkerRunner):
            runner.register_message(_FINISH, self._finish)
        else:
            self._check_hosts(environment)
            if isinstance(runner, MasterRunner):
                runner.register_message(_LAST, self._last)
            if self._tell is not None:
                self._serve(environment, *self._tell)
        if not isinstance(runner, MasterRunner):
            gevent.spawn(self._watch)
        # The loop's idea of now is that of its last turn, before this file was imported: a --run-time would be over that much too early.
        gevent.get_hub().loop.update_now()

    def _serve(self, environment: Environment, host: str, port: int) -> None:
        metrics = LoadMetrics()
        try:
            # As long as the process lives.
            self._serving.enter_context(metrics.serve(host, port))
        except OSError as taken:
            _LOG.error("tell=%r: %s", f"{host}:{port}", describe(taken))
            raise SystemExit(_UNKNOWN) from None
        gevent.spawn(self._show, environment, metrics)

    def _show(self, environment: Environment, metrics: LoadMetrics) -> None:
        """Tell how the test goes, about once a second."""
        while True:
            gevent.sleep(_SHOWN_EVERY)
            if self._begun is None or self._ended is not None:
                continue
            try:
                if not isinstance(environment.runner, MasterRunner):
                    self.sum.add(_LOCAL, self.tally.take())
                users = 0 if environment.runner is None else environment.runner.user_count
                run = self._run(list(self.sum.problems))
                metrics.tell(self._about(environment, 1.0).name, run, in_flight=users, cpu=run.cpu)
            except Exception:  # noqa: BLE001 - what is shown must not end the test
                _LOG.exception("how the test goes cannot be told to Prometheus any more")
                return

    def _check_hosts(self, environment: Environment) -> None:
        hosts = [environment.host] if environment.host else [user.host for user in environment.user_classes]
        for address in hosts:
            host = urlsplit(address or "").hostname or ""
            if host and not is_loopback(host) and host not in self._allowed:
                _LOG.error("%s is not loopback: load is an attack where it is not expected; judge(allow_hosts=[%r]) allows it", host, host)
                raise SystemExit(_UNKNOWN)

    def _test_start(self, environment: Environment, **_: Any) -> None:
        self.tally.clear()
        self.sum.clear()
        self._complete = False
        self._ended = None
        self._begun = _CLOCK.monotonic()
        self._started_at = _CLOCK.time()
        if isinstance(environment.runner, MasterRunner):
            self._workers = {client.id for client in environment.runner.clients.all}
        if not isinstance(environment.runner, WorkerRunner):
            self._before = self._read()

    def _test_stopping(self, **_: Any) -> None:
        self._ended = now = _CLOCK.monotonic()
        self.tally.miss(missed(PACES, now))

    def _test_stop(self, environment: Environment, **_: Any) -> None:
        self._complete = True
        if isinstance(environment.runner, MasterRunner):
            self._gather(environment.runner)

    def _request(
        self,
        request_type: str,
        name: str,
        response_time: float | None,
        response_length: Any,
        exception: object = None,
        context: Mapping[str, Any] | None = None,
        response: Any = None,
        **_: Any,
    ) -> None:
        if context is not None and ENDING in context:
            if context[ENDING] is not None:
                self.tally.note(context[ENDING])
            return
        now = _CLOCK.monotonic()
        told = ending_of(request_type, name, response_time, exception, response, size=response_length, now=now, late=LATE.get())
        self.tally.note(told)

    # -- from the workers to the master ---------------------------------------------------------------------------------------------------

    def _report_to_master(self, data: dict[str, Any], **_: Any) -> None:
        data[_KEY] = self.tally.take()

    def _worker_report(self, client_id: str, data: Mapping[str, Any], **_: Any) -> None:
        if _KEY in data:
            self.sum.add(client_id, data[_KEY])

    def _worker_connect(self, client_id: str, **_: Any) -> None:
        self._workers.add(client_id)

    def _finish(self, environment: Environment, **_: Any) -> None:
        """The master wants the last counts. Not in the greenlet that reads its messages: stopping may take long."""
        gevent.spawn(self._finish_now, environment)

    def _finish_now(self, environment: Environment) -> None:
        runner = environment.runner
        if runner is not None:
            runner.stop()
            runner.send_message(_LAST, self.tally.take())

    def _last(self, msg: Any, **_: Any) -> None:
        self.sum.add(msg.node_id, msg.data, last=True)
        self._told.set()

    def _gather(self, runner: MasterRunner) -> None:
        wanted = self._workers | set(self.sum.clients)
        for client in wanted - self.sum.last:
            try:
                runner.send_message(_FINISH, None, client_id=client)
            except Exception as broken:  # noqa: BLE001 - a worker that is gone is found below
                _LOG.warning("%s could not be asked for its last counts: %s", client, describe(broken))
        deadline = _CLOCK.monotonic() + _PATIENCE + (runner.environment.stop_timeout or 0.0)
        while (wanted - self.sum.last) and (left := deadline - _CLOCK.monotonic()) > 0.0:
            self._told.clear()
            self._told.wait(timeout=left)
        for client in sorted(wanted - self.sum.last):
            self.sum.problems.append(f"{client} has not told its last counts")

    # -- the process itself ---------------------------------------------------------------------------------------------------------------

    def _watch(self) -> None:
        """How late waits are over, and how busy the process is, while a test runs."""
        began, cpu = _CLOCK.monotonic(), time.process_time()
        due = began
        while True:
            due += _LOOK
            gevent.sleep(max(0.0, due - _CLOCK.monotonic()))
            now = _CLOCK.monotonic()
            if self._begun is None or self._ended is not None:
                began, cpu, due = now, time.process_time(), now
                continue
            # Every look that was due counts: one long stall must not be one late look among many.
            self.tally.lag(now - due)
            while due + _LOOK <= now:
                due += _LOOK
                self.tally.lag(now - due)
            if now - began >= _SLICE:
                used = time.process_time()
                self.tally.busiest = max(self.tally.busiest, (used - cpu) / (now - began))
                began, cpu = now, used

    def _read(self) -> Reading | str | None:
        if self._server is None:
            return None
        try:
            return read(self._server.metrics)
        except (OSError, ValueError) as broken:
            return f"its metrics could not be read: {describe(broken)}"

    # -- the judgement --------------------------------------------------------------------------------------------------------------------

    def _quitting(self, environment: Environment, **_: Any) -> None:
        if isinstance(environment.runner, WorkerRunner):
            # The master has all counts, and decides.
            environment.process_exit_code = 0
            return
        try:
            report = self.report(environment)
            sys.stdout.write(f"\n{report.to_text()}\n")
            code = report.exit_code
            if self._file is not None:
                text = report.to_markdown() if self._file.suffix == ".md" else report.to_json()
                self._file.write_text(f"{text}\n", encoding="utf-8")
        except Exception:  # noqa: BLE001 - fail closed: what was not judged was not found good
            _LOG.exception("the test could not be judged")
            code = _UNKNOWN
        if code or environment.process_exit_code is None:
            environment.process_exit_code = code

    def report(self, environment: Environment) -> LocustReport:
        """What is known now, judged. For the master and for a single process."""
        runner = environment.runner
        distributed = isinstance(runner, MasterRunner)
        if isinstance(runner, MasterRunner):
            if not self._complete:
                self._gather(runner)
        else:
            self.sum.add(_LOCAL, self.tally.take(), last=True)
        problems = [*self.sum.problems, *(f"{client} was lost" for client in self.sum.missing if not self._complete or not distributed)]
        run = self._run(problems)
        checks = [*checks_of(self.limits, self.slos, run)]
        if problems:
            checks.append(Check("all counts", Answer.UNKNOWN, "; ".join(problems)))
        if runner is not None and runner.exceptions:
            failed = sum(int(each["count"]) for each in runner.exceptions.values())
            checks.append(Check("no errors in tasks", Answer.UNKNOWN, f"{failed} runs of tasks ended with an error of their own"))
        if not self._complete:
            run.notes.append("the test was not brought to its end")
        view = self._view()
        if self._server is not None and self._server.slos:
            checks += (ServerView(problem="the service was not read") if view is None else view).checks(self._server.slos)
        if self._scenario is not None and self._scenario.chaos is not None:
            run.notes.append("the experiments of the scenario are not started by Locust")
        return LocustReport(
            self._about(environment, run.seconds),
            run,
            tuple(checks),
            self._started_at,
            view,
            workers=len(self.sum.clients) if distributed else 0,
            locust_requests=environment.stats.total.num_requests,
        )

    def _run(self, problems: list[str]) -> ClientRun:
        """What all processes have told so far."""
        now = _CLOCK.monotonic()
        begun = now if self._begun is None else self._begun
        seconds = max((now if self._ended is None else self._ended) - begun, 1e-9)
        run = ClientRun(self.sum.books, seconds, seconds, complete=self._complete, notes=problems, clients=self.sum.clients)
        run.cpu = max((busiest for busiest, _ in self.sum.clients.values()), default=0.0)
        for _, lag in self.sum.clients.values():
            run.lateness.merge(lag)
        run.offered = run.books.total(parts=("calm", "chaos", "injected")).started
        return run

    def _view(self) -> ServerView | None:
        before = self._before
        if before is None:
            return None
        after = self._read()
        if isinstance(before, Reading) and isinstance(after, Reading):
            return view_of(before, after)
        return ServerView(problem=next(each for each in (before, after) if isinstance(each, str)))

    def _about(self, environment: Environment, seconds: float) -> Scenario:
        """Name and target for the report. Locust has no timetable; what a scenario must have besides is not shown."""
        host = environment.host or next((user.host for user in environment.user_classes if user.host), None) or "http://localhost"
        name = "locust" if self._scenario is None else self._scenario.name
        parts = urlsplit(host)
        target = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
        return Scenario(name, target, (Request("any", "/"),), (Stage(max(seconds, 1.0), 1.0),))


def _thresholds(given: Mapping[Any, Any]) -> tuple[Threshold, ...]:
    """Limits by name; tables of them by request."""
    check = Checker("thresholds")
    found: list[Threshold | None] = []
    for name, value in given.items():
        if isinstance(value, Mapping):
            found += [threshold_of(str(limit), each, str(name), check) for limit, each in value.items()]
        else:
            found.append(threshold_of(str(name), value, None, check))
    check.finish()
    return tuple(threshold for threshold in found if threshold is not None)


def _objectives(given: str | os.PathLike[str] | Iterable[SLO]) -> tuple[SLO, ...]:
    from os import PathLike

    if isinstance(given, str | PathLike):
        from somaresil.slofile import read_slos

        return tuple(read_slos(given).slos)
    return tuple(given)
