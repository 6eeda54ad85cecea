"""The drill on a terminal, or in a log: a live table or plain lines while it runs, and the report at its end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from rich.console import Console, Group
from rich.text import Text

from somaresil.colour import for_console, is_terminal
from somaresil.demo.report import ABSORBED_AT_LEAST, RECOVERED_WITHIN
from somaresil.demo.show import Drawing, Lines, headline, milliseconds, number, say, seconds, table_of

if TYPE_CHECKING:
    from typing import TextIO

    from somaresil.demo.drill import Moment, Phase
    from somaresil.demo.report import PhaseResult, Report

__all__ = ["LiveView", "PlainView", "print_report", "view_for"]

_STATE_STYLES: Final = {"closed": "green", "half_open": "yellow", "ramping": "yellow", "open": "bold red", "forced_open": "bold red"}
_LINE_EVERY: Final = 2.0


def view_for(stream: TextIO) -> LiveView | PlainView:
    """A live table when somebody is looking, lines otherwise."""
    return LiveView(Console(**for_console(stream))) if is_terminal(stream) else PlainView(stream)


class PlainView(Lines):
    """Lines, for pipes and logs."""

    _next_line = 0.0

    def phase(self, phase: Phase) -> None:
        """A headline."""
        self.note(f"== {phase.name}: {phase.says}")

    def moment(self, moment: Moment) -> None:
        """One line every two seconds."""
        if moment.elapsed < self._next_line:
            return
        self._next_line = moment.elapsed + _LINE_EVERY
        seen, gateway = moment.seen, moment.gateway
        circuits = [f"{name} {guard['state']}" for name, guard in gateway["guards"].items() if guard["state"] != "closed"]
        burns = [f"{name} {budget['burn_5m']:.2f}" for name, budget in gateway["budgets"].items() if budget["burn_5m"]]
        self.note(
            f"{moment.elapsed:5.1f} s  {seen.per_second:.1f} rps, p50 {milliseconds(seen.p50)}, p95 {milliseconds(seen.p95)}, "
            f"p99 {milliseconds(seen.p99)}, {seen.failed} failed, {seen.degraded} degraded, {_injected(gateway)} injected; "
            f"{', '.join(circuits) or 'all circuits closed'}; burn 5m: {', '.join(burns) or 'none'}"
        )

    def ended(self, result: PhaseResult) -> None:
        """What came of the phase."""
        seen = result.seen
        self.note(f"   {seen.requests} requests, {seen.failed} failed, {seen.degraded} degraded, {result.injected} faults injected")


class LiveView(Drawing):
    """A table that changes in place, with the lines of the phases above it."""

    def phase(self, phase: Phase) -> None:
        """A headline above the table."""
        self.line(Text.assemble((f"{phase.name:9}", "bold cyan"), phase.says))

    def moment(self, moment: Moment) -> None:
        """Draw the table anew."""
        self.draw(_dashboard(moment))

    def ended(self, result: PhaseResult) -> None:
        """What came of the phase."""
        seen = result.seen
        failed = (f"{seen.failed} failed", "bold red" if seen.failed else "")
        line = f"{'':9}{seen.requests} requests, ", failed, f", {seen.degraded} degraded, {result.injected} faults injected"
        self.line(Text.assemble(*line, style="dim"))


def _dashboard(moment: Moment) -> Group:
    seen = moment.seen
    head = Text.assemble(
        (f" {moment.phase.name} ", "bold reverse"),
        f" {moment.elapsed:4.1f} of {moment.duration:.0f} s",
        f"   {seen.per_second:5.1f} rps   {moment.in_flight} in flight   ",
        (f"{_injected(moment.gateway)} faults injected", "magenta"),
    )
    clients = table_of("last 5 s, as clients see it", "p50", "p95", "p99", "failed", "degraded")
    failed = Text(str(seen.failed), style="bold red" if seen.failed else "green")
    clients.add_row("requests", milliseconds(seen.p50), milliseconds(seen.p95), milliseconds(seen.p99), failed, str(seen.degraded))
    guards = table_of("guard", "circuit", "calls", "touched", "bad", "rejected")
    budgets = table_of("objective", "burn 5m", "burn 1h", "good", "bad", "budget left")
    for state in (moment.gateway, moment.worker):
        for name, guard in state["guards"].items():
            circuit = Text(guard["state"], style=_STATE_STYLES.get(guard["state"], ""))
            guards.add_row(_at(name, state), circuit, *(str(guard[key]) for key in ("calls", "touched", "bad", "rejected")))
        for name, budget in state["budgets"].items():
            burn = (number(budget["burn_5m"]), number(budget["burn_1h"]))
            budgets.add_row(_at(name, state), *burn, str(budget["good"]), str(budget["bad"]), _left(budget))
    return Group(Text(), head, clients, guards, budgets)


def print_report(report: Report, stream: TextIO) -> None:
    """The report, for people."""
    console = Console(**for_console(stream), highlight=False)
    for section in (_phases, _chaos, _absorbed, _recovery, _budgets, _twice, _verdict):
        section(console, report)


def _phases(console: Console, report: Report) -> None:
    console.print()
    table = table_of("phase", "requests", "rps", "p50", "p95", "p99", "failed", "degraded", "faults")
    for phase in report.phases:
        seen = phase.seen
        latencies = (milliseconds(value) for value in (seen.p50, seen.p95, seen.p99))
        failed = Text(str(seen.failed), style="bold red" if seen.failed else "")
        table.add_row(phase.name, str(seen.requests), f"{seen.per_second:.1f}", *latencies, failed, str(seen.degraded), str(phase.injected))
    console.print(table)
    say(console, "Latency counts from the intended start of a request. Degraded: a fallback answered.", style="dim")
    for failure in report.failures:
        ours = f"{failure.touched} of them touched by an experiment"
        say(console, f"Clients saw {failure.requests} x {failure.kind}: {failure.what} ({ours})", style="red")


def _chaos(console: Console, report: Report) -> None:
    chaos = report.chaos
    headline(console, f"Injected: {chaos.injected} faults")
    table = table_of("experiment", "fault", "rate", "faults", "ended by")
    for run in chaos.experiments:
        ended = {"expired": "its lease", "stop_all": "kill switch", None: "nothing yet"}.get(run["ended"], run["ended"])
        table.add_row(run["component"], run["fault"], f"{run['rate']:.0%}", str(run["injected"]), ended)
    console.print(table)
    say(console, f"Kill switch: {chaos.stop_milliseconds:.1f} ms over HTTP; {chaos.after_stop} faults after it.")


def _absorbed(console: Console, report: Report) -> None:
    absorbed = report.absorbed
    headline(console, f"Absorbed: {_share(absorbed.share)} (asked for: {ABSORBED_AT_LEAST:.0%})")
    table = table_of("touched calls of", "dependency answered", "fallback answered", "failed")
    for guard, by in absorbed.by_ending.items():
        table.add_row(guard, *(str(by.get(key, 0)) for key in ("dependency", "fallback", "failed")))
    console.print(table)
    good, touched = absorbed.touched_good, absorbed.touched
    say(console, f"Guards counted {good} of {touched} touched calls that ended well: {_share(absorbed.guards_share)}")
    good, touched = absorbed.for_clients_good, absorbed.for_clients
    say(console, f"Clients saw    {good} of {touched} in requests that ended well:    {_share(absorbed.clients_share)}")


def _recovery(console: Console, report: Report) -> None:
    memory = report.memory
    headline(console, f"Recovered: MTTR {seconds(report.mttr)} (asked for: each under {RECOVERED_WITHIN:.0f} s)")
    table = table_of("incident", "opened by", "first bad call to closed")
    for incident in report.incidents:
        took = seconds(incident.seconds) if incident.recovered else "not recovered"
        table.add_row(incident.id, "an experiment" if incident.injected else "failures of its own", took)
    console.print(table)
    say(console, f"Memory: {memory.acknowledged} exchanges acknowledged, {memory.missing} of them missing in the store;")
    say(console, f"        {memory.queued} writes waited in the outbox, {memory.waiting} still do.")


def _budgets(console: Console, report: Report) -> None:
    headline(console, "Error budgets: what was left after the steady phase, and at the end")
    table = table_of("objective", "target", "steady", "end", "good", "bad", "burn 5m", "burn 1h")
    for budget in report.budgets:
        name = f"{budget.slo}" if budget.service == "gateway" else f"{budget.slo} ({budget.service})"
        after = budget.after
        counts = (str(after["good"]), str(after["bad"]), number(after["burn_5m"]), number(after["burn_1h"]))
        table.add_row(name, f"{budget.target:g} %", _left(budget.before), _left(after), *counts)
    console.print(table)
    say(console, "Shares of the budget for the events seen so far: of periods of 7 and 30 days, this is the first minute.", style="dim")


def _twice(console: Console, report: Report) -> None:
    if report.prometheus is None:
        return
    headline(console, "Burn rates, computed twice")
    table = table_of("objective", "window", "in process", "PromQL", "difference")
    for compared in report.prometheus:
        figures = (_exact(compared[key]) for key in ("in_process", "promql", "difference"))
        table.add_row(compared["slo"], f"{compared['window']} s", *figures)
    console.print(table)
    say(console, "What differs is the extrapolation of increase() to the edges of its window.", style="dim")


def _verdict(console: Console, report: Report) -> None:
    verdict = report.verdict
    headline(console, f"Release the gateway now? {verdict['decision'].upper()}", "red" if verdict["blocks"] else "green")
    for reason in verdict["reasons"]:
        say(console, f"  {reason}")
    console.print()
    if report.passed:
        say(console, "The drill is PASSED: the faults were absorbed, and every circuit recovered.", style="bold green")
    else:
        say(console, "The drill is NOT PASSED:", style="bold red")
        for problem in report.problems:
            say(console, f"  {problem}")
    if report.hint is not None:
        say(console, f"Note: {report.hint}.", style="yellow")
    say(console, f"seed {report.seed}, {report.rate:g} requests a second, {report.seconds:.1f} s, somaresil {report.version}", style="dim")


def _at(name: str, state: dict[str, Any]) -> str:
    return name if state["service"] == "gateway" else f"{name} ({state['service']})"


def _injected(gateway: dict[str, Any]) -> int:
    return sum(run["injected"] for run in gateway["experiments"])


def _exact(value: float | None) -> str:
    return "no events" if value is None else f"{value:.6g}"


def _share(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.2%}"


def _left(budget: dict[str, Any]) -> str:
    share = budget["remaining_share"]
    return "-" if share is None else f"{share:.1%}"
