"""What is shown on a terminal or in a log, by both demos: lines, a drawing that changes in place, tables and figures."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from rich.live import Live
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from typing import TextIO

    from rich.console import Console, RenderableType

__all__ = ["Drawing", "Lines", "headline", "milliseconds", "number", "say", "seconds", "table_of"]


class Lines:
    """Lines, for pipes and logs."""

    def __init__(self, stream: TextIO) -> None:
        """Write to ``stream``."""
        self._stream = stream

    def __enter__(self) -> Self:
        """Nothing to prepare."""
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing to clean up."""

    def note(self, text: str) -> None:
        """One line."""
        print(text, file=self._stream, flush=True)


class Drawing:
    """Something that changes in place, with lines above it."""

    def __init__(self, console: Console) -> None:
        """Draw on ``console``."""
        self._console = console
        self._live = Live(console=console, refresh_per_second=8, transient=True)

    def __enter__(self) -> Self:
        """Begin to draw."""
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Take the drawing away; the lines stay."""
        self._live.stop()

    def note(self, text: str) -> None:
        """A line above it."""
        self.line(Text(text, style="dim"))

    def line(self, text: Text) -> None:
        """The same in colours."""
        self._console.print(text)

    def draw(self, what: RenderableType) -> None:
        """Draw it anew."""
        self._live.update(what)


def say(console: Console, text: str, style: str = "") -> None:
    """One line, however long."""
    # Whoever reads a log wants whole lines, and a terminal wraps by itself.
    console.print(text, style=style, soft_wrap=True)


def headline(console: Console, text: str, style: str = "") -> None:
    """A line in bold, with an empty one above it."""
    console.print()
    console.print(text, style=f"bold {style}".strip())


def table_of(first: str, *others: str) -> Table:
    """A table of figures: the first column is text."""
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    table.add_column(first, no_wrap=True)
    for name in others:
        table.add_column(name, justify="right")
    return table


def milliseconds(seconds: float | None) -> str:
    """As a duration of calls is read."""
    return "-" if seconds is None else f"{seconds * 1000.0:.0f} ms"


def seconds(seconds: float | None) -> str:
    """As longer ones are read."""
    return "-" if seconds is None else f"{seconds:.1f} s"


def number(value: float | None) -> str:
    """With two decimals."""
    return "-" if value is None else f"{value:.2f}"
