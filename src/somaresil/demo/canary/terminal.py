"""The demo of a canary on a terminal, or in a log: while it runs, and its report."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from rich.console import Console, Group
from rich.text import Text

from somaresil.colour import for_console, is_terminal
from somaresil.demo.canary.report import sparkline
from somaresil.demo.show import Drawing, Lines, headline, milliseconds, say, seconds, table_of

if TYPE_CHECKING:
    from typing import TextIO

    from somaresil.demo.canary.acts import Act
    from somaresil.demo.canary.report import ActResult, CanaryReport, Side
    from somaresil.demo.canary.run import Moment

__all__ = ["LiveView", "PlainView", "print_report", "view_for"]

_LINE_EVERY: Final = 1.0
_BAR: Final = 30
_OUTCOMES: Final = {"rollback": "rolled back", "complete": "promoted to all of the traffic"}


def view_for(stream: TextIO) -> LiveView | PlainView:
    """A drawing when somebody is looking, lines otherwise."""
    return LiveView(Console(**for_console(stream))) if is_terminal(stream) else PlainView(stream)


class PlainView(Lines):
    """Lines, for pipes and logs."""

    _next_line = 0.0

    def act(self, act: Act) -> None:
        """A headline."""
        self._next_line = 0.0
        self.note(f"== {act.name}: version {act.version}; {act.says}")

    def moment(self, moment: Moment) -> None:
        """One line a second."""
        if moment.elapsed < self._next_line:
            return
        self._next_line = moment.elapsed + _LINE_EVERY
        side = moment.candidate
        self.note(
            f"{moment.elapsed:5.1f} s  {moment.phase}, {moment.weight:.0%}: {side.requests} requests in 5 s, {side.failed} failed, "
            f"{side.late} late, p50 {milliseconds(side.p50)}, p95 {milliseconds(side.p95)}; {_evidence(moment)}"
        )

    def ended(self, result: ActResult) -> None:
        """What became of it."""
        self.note(f"   {_ending(result)}")


class LiveView(Drawing):
    """A table that changes in place, with the lines of the versions above it."""

    def act(self, act: Act) -> None:
        """A headline above the table."""
        self.line(Text.assemble((f"{act.name:9}", "bold cyan"), f"version {act.version}: {act.says}"))

    def moment(self, moment: Moment) -> None:
        """Draw the table anew."""
        head = Text.assemble(
            (f" {moment.phase or 'waiting'} ", "bold reverse"),
            f" {moment.elapsed:4.1f} of at most {moment.longest:.0f} s   {moment.weight:.0%} of the traffic   {moment.in_flight} in flight",
        )
        sides = table_of("last 5 s, as users see it", "requests", "p50", "p95", "p99", "failed", "late")
        for name, side in (("before", moment.control), (moment.act.version, moment.candidate)):
            sides.add_row(name, *_figures(side))
        self.draw(
            Group(Text(), head, sides, Text(_evidence(moment)), Text(_gauge(moment), style="magenta"), Text(moment.reason, style="dim"))
        )

    def ended(self, result: ActResult) -> None:
        """What became of it, above the table."""
        self.line(Text(f"{'':9}{_ending(result)}", style="green" if result.outcome == result.wanted else "bold red"))


def print_report(report: CanaryReport, stream: TextIO) -> None:
    """The report, for people."""
    console = Console(**for_console(stream), highlight=False)
    for act in report.acts:
        _act(console, act, report)
    console.print()
    table = table_of("version", "outcome", "after", "from first bad", "requests", "bad", "evidence")
    for act in report.acts:
        outcome = Text(act.outcome, style="green" if act.outcome == act.wanted else "bold red")
        figures = (str(act.candidate.requests), str(act.candidate.bad), f"{act.evidence:.3g}")
        table.add_row(f"{act.version} {act.name}", outcome, seconds(act.seconds), seconds(act.detection_seconds), *figures)
    console.print(table)
    say(console, f"An answer is bad when it fails, breaks off, or takes more than {report.limit:g} s from when it was sent.", style="dim")
    console.print()
    if report.passed:
        say(console, "PASSED: each bad version was rolled back, and the good one was promoted.", style="bold green")
    else:
        say(console, "NOT PASSED:", style="bold red")
        for problem in report.problems:
            say(console, f"  {problem}")
    if report.hint is not None:
        say(console, f"Note: {report.hint}.", style="yellow")
    about = f"seed {report.seed}, {report.rate:g} requests a second, {report.seconds:.1f} s, split by {report.router}"
    say(console, f"{about}, somaresil {report.version}", style="dim")


def _act(console: Console, act: ActResult, report: CanaryReport) -> None:
    headline(console, f"{act.version}, {act.name}: {act.says}")
    say(console, _ending(act), style="green" if act.outcome == act.wanted else "bold red")
    table = table_of("as users saw it", "requests", "p50", "p95", "p99", "failed", "late")
    for name, side in (("version before", act.control), (act.version, act.candidate)):
        table.add_row(name, *_figures(side))
    console.print(table)
    for what, count in act.failures.items():
        say(console, f"{count} x {what}", style="red")
    last = act.curve[-1].requests if act.curve else 0
    say(console, f"evidence over its {last} requests: 1 {sparkline(act.curve, report.threshold)} {report.threshold:g}", style="magenta")
    steps = ", ".join(f"{move.phase} at {move.at:.1f} s" for move in act.moves)
    say(console, f"{steps}: {act.reason}", style="dim")


def _ending(act: ActResult) -> str:
    if act.seconds is None:
        return f"still in {act.outcome} when its time was up"
    said = f"{_OUTCOMES.get(act.outcome, act.outcome)} after {act.seconds:.1f} s and {act.candidate.requests} requests"
    if act.outcome != "rollback":
        return f"{said}, {act.candidate.bad} of them bad"
    first = "" if act.detection_seconds is None else f", {act.detection_seconds:.1f} s after the first of them"
    return f"{said}; users had {act.bad_before} bad answers by then{first}"


def _figures(side: Side) -> tuple[str | Text, ...]:
    wrong = (Text(str(count), style="bold red" if count else "") for count in (side.failed, side.late))
    return (str(side.requests), *(milliseconds(value) for value in (side.p50, side.p95, side.p99)), *wrong)


def _evidence(moment: Moment) -> str:
    point = moment.latest
    if point is None:
        return "no evidence yet"
    return f"evidence {point.evidence:.3g} of {moment.threshold:g} ({point.bad} of {point.requests} bad)"


def _gauge(moment: Moment) -> str:
    point = moment.latest
    height = 0.0 if point is None else math.log(max(point.evidence, 1.0)) / math.log(moment.threshold)
    full = min(_BAR, round(height * _BAR))
    return f"[{'#' * full}{'.' * (_BAR - full)}]"
