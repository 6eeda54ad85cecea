"""The live view on a terminal: keys in, lines out, and the terminal as it was before when it ends, whatever ends it."""

from __future__ import annotations

import os
import select
import signal
import sys
import termios
import tty
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, Final

from rich.console import Console
from rich.live import Live
from rich.text import Text

from somaresil.colour import for_console
from somaresil.top_command.steering import Steering, keys_of

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence
    from typing import TextIO

    from somaresil.top_command.feed import Feed
    from somaresil.top_command.text import Line
    from somaresil.typing import Clock

__all__ = ["Alarm", "print_styled", "show", "styled"]

_STYLES: Final = {
    "good": "green",
    "warn": "yellow",
    "bad": "bold red",
    "dim": "dim",
    "head": "bold",
    "mark": "magenta",
    "tab": "bold reverse",
}
_TICK: Final = 1.0
"""Seconds after which it is drawn again when nothing has come: ages grow."""
_SHORTEST: Final = 0.1
"""Seconds from one drawing to the next, unless a key is pressed."""
_SHARE: Final = 4.0
"""So many times as long as a drawing took nothing is drawn: a terminal must not keep a processor busy with a thousand guards."""
_MOST_TYPED: Final = 1_024
_SIGNALS: Final = (signal.SIGTERM, signal.SIGHUP)


class Alarm:
    """Wakes whoever waits in ``select``: from other threads and from signal handlers."""

    def __init__(self) -> None:
        """Nobody has rung."""
        self.inlet, self._outlet = os.pipe()
        os.set_blocking(self.inlet, False)
        os.set_blocking(self._outlet, False)

    def ring(self) -> None:
        """Wake it."""
        try:
            os.write(self._outlet, b"!")
        except OSError:
            # It is full: there is enough to wake up for. Or it is closed: nobody sleeps any more.
            return

    def clear(self) -> None:
        """Take what has rung."""
        try:
            while os.read(self.inlet, 4_096):
                pass
        except BlockingIOError:
            return

    def close(self) -> None:
        """Let go of it."""
        # Whoever still rings must not write to a file that has got its number.
        outlet, self._outlet = self._outlet, -1
        os.close(outlet)
        os.close(self.inlet)


def styled(lines: Sequence[Line], encoding: str = "utf-8") -> Text:
    """Lines with their styles; what cannot be written in this encoding as escapes."""
    text = Text(no_wrap=True, overflow="crop", end="")
    for place, line in enumerate(lines):
        if place:
            text.append("\n")
        for span in line:
            text.append(span.text.encode(encoding, "backslashreplace").decode(encoding), _STYLES.get(span.style, ""))
    return text


def print_styled(lines: Sequence[Line], width: int) -> None:
    """Print them once, with their styles."""
    console = Console(**for_console(sys.stdout), width=width)
    console.print(styled(lines, console.encoding), crop=False)


@contextmanager
def _keys(stream: TextIO) -> Generator[int | None]:
    """The descriptor of a terminal that gives each key at once; None: there is no keyboard."""
    if not stream.isatty():
        yield None
        return
    descriptor = stream.fileno()
    before: list[Any] = termios.tcgetattr(descriptor)
    try:
        tty.setcbreak(descriptor)
        after: list[Any] = termios.tcgetattr(descriptor)
        # Stopped by a key it would leave its screen on the terminal of the shell.
        after[6][termios.VSUSP] = b"\0"
        termios.tcsetattr(descriptor, termios.TCSANOW, after)
        yield descriptor
    finally:
        termios.tcsetattr(descriptor, termios.TCSANOW, before)


@contextmanager
def _ending(asked: list[int], alarm: Alarm) -> Generator[None]:
    """Note the signals that ask for the end."""

    def end(number: int, _: Any) -> None:
        asked.append(number)
        alarm.ring()

    def resized(_number: int, _frame: object) -> None:
        alarm.ring()

    before = {number: signal.signal(number, end) for number in _SIGNALS}
    # A window of another size is drawn at once.
    before[signal.SIGWINCH] = signal.signal(signal.SIGWINCH, resized)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def show(feed: Feed, steering: Steering, alarm: Alarm, clock: Clock) -> int:
    """Show it until the user has had enough. 0, or 128 + n: ended by signal n."""
    console = Console(**for_console(sys.stdout))
    asked: list[int] = []
    with ExitStack() as stack:
        stack.enter_context(_ending(asked, alarm))
        descriptor = stack.enter_context(_keys(sys.stdin))
        live = Live(console=console, screen=True, auto_refresh=False, redirect_stdout=False, redirect_stderr=False)
        stack.enter_context(live)
        while not asked:
            # The size is asked each time: a window is made smaller without a word.
            size = console.size
            if steering.look.view == "guard":
                feed.look_at(steering.look.guard)
            else:
                feed.look_at("")
            began = clock.monotonic()
            lines = steering.screen(feed.seen(), size.width, size.height, feed.note, feed.may)
            live.update(styled(lines, console.encoding), refresh=True)
            if _attend(feed, steering, alarm, descriptor, max(_SHORTEST, _SHARE * (clock.monotonic() - began))):
                return 0
    return 128 + asked[0]


def _attend(feed: Feed, steering: Steering, alarm: Alarm, descriptor: int | None, pause: float) -> bool:
    """Wait for something to happen, for ``pause`` seconds for keys alone; whether the user has had enough."""
    keyboard = [] if descriptor is None else [descriptor]
    ready = select.select(keyboard, [], [], pause)[0] or select.select([alarm.inlet, *keyboard], [], [], _TICK)[0]
    alarm.clear()
    if descriptor is None or descriptor not in ready:
        return False
    typed = os.read(descriptor, _MOST_TYPED)
    if not typed:
        # The terminal is gone.
        return True
    for key in keys_of(typed):
        wanted = steering.press(key, feed.may)
        if wanted == "quit":
            return True
        if wanted == "stop":
            feed.note = "stopping ..."
            feed.do("/api/stop")
        elif feed.note:
            feed.note = ""
    return False
