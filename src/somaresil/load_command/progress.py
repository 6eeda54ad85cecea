"""A run on a terminal, or in a log: a live table where rich is installed and somebody looks, lines elsewhere."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final, Protocol

from somaresil.colour import for_console, is_terminal
from somaresil.load.arrivals import rate_at
from somaresil.load.report import milliseconds

if TYPE_CHECKING:
    from typing import TextIO

    from somaresil.load.generator import Point, Run
    from somaresil.load.scenario import Scenario

__all__ = ["LiveProgress", "NoProgress", "PlainProgress", "Progress", "progress_for"]

_LINE_EVERY: Final = 5.0
_ROWS: Final = 12


class Progress(Protocol):
    """Shows a run."""

    def point(self, point: Point, run: Run, /) -> None:
        """A slice has ended."""
        ...

    def note(self, text: str) -> None:
        """Something else is to be said."""
        ...

    def close(self) -> None:
        """Nothing more comes."""
        ...


def progress_for(stream: TextIO, scenario: Scenario, *, quiet: bool) -> Progress:
    """The one that fits."""
    if quiet:
        return NoProgress()
    if is_terminal(stream) and find_spec("rich") is not None:
        from rich.console import Console

        return LiveProgress(Console(**for_console(stream)), scenario)
    return PlainProgress(stream, scenario)


class NoProgress:
    """Says nothing."""

    def point(self, point: Point, run: Run, /) -> None:
        """Nothing."""

    def note(self, text: str) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


class PlainProgress:
    """A line every few seconds."""

    def __init__(self, stream: TextIO, scenario: Scenario) -> None:
        """Write to ``stream``."""
        self._stream = stream
        self._scenario = scenario
        self._next = 0.0

    def point(self, point: Point, _: Run, /) -> None:
        """One line, when it is time for one."""
        if point.at >= self._next:
            self._next = point.at + min(_LINE_EVERY, self._scenario.seconds / 10.0)
            self.note(f"{point.at:7.1f} of {self._scenario.seconds:.0f} s  {_words(point)}")

    def note(self, text: str) -> None:
        """One line."""
        print("".join(c if c.isprintable() else "?" for c in text), file=self._stream, flush=True)

    def close(self) -> None:
        """Nothing is kept open."""


class LiveProgress:
    """A table that changes in place."""

    def __init__(self, console: Any, scenario: Scenario) -> None:
        """Begin to draw on ``console``."""
        from rich.live import Live

        self._console = console
        self._scenario = scenario
        self._live = Live(console=console, refresh_per_second=4, transient=True)
        self._live.start()

    def point(self, point: Point, run: Run, /) -> None:
        """Draw it anew."""
        from rich.table import Table
        from rich.text import Text

        scenario = self._scenario
        done = min(1.0, point.at / scenario.seconds)
        bar = "#" * round(30 * done) + "." * (30 - round(30 * done))
        title = f"{scenario.name}  {bar}  {point.at:.0f} of {scenario.seconds:.0f} s  {rate_at(scenario.stages, point.at):.4g}/s wanted"
        table = Table(title=Text(title), title_justify="left")
        for column in ("at", "offered/s", "good/s", "failed", "dropped", "p50", "p95", "first p95", "in flight", "cpu", "late"):
            table.add_column(column, justify="right")
        for each in run.points[-_ROWS:]:
            table.add_row(*_cells(each), style="magenta" if each.chaos else "red" if each.failed or each.dropped else "")
        self._live.update(table)

    def note(self, text: str) -> None:
        """A line above the table."""
        from rich.text import Text

        self._console.print(Text(text))

    def close(self) -> None:
        """Take the table away."""
        self._live.stop()


def _cells(point: Point) -> tuple[str, ...]:
    return (
        f"{point.at:.0f} s",
        f"{point.offered / point.seconds:.4g}",
        f"{point.good / point.seconds:.4g}",
        str(point.failed),
        str(point.dropped),
        milliseconds(point.p50),
        milliseconds(point.p95),
        milliseconds(point.first),
        str(point.in_flight),
        f"{point.cpu:.0%}",
        milliseconds(point.late),
    )


def _words(point: Point) -> str:
    chaos = ", an experiment runs" if point.chaos else ""
    return (
        f"{point.offered / point.seconds:.4g} offered/s, {point.good / point.seconds:.4g} good/s, {point.failed} failed, "
        f"{point.dropped} dropped, p50 {milliseconds(point.p50)}, p95 {milliseconds(point.p95)}, {point.in_flight} in flight, "
        f"cpu {point.cpu:.0%}{chaos}"
    )
