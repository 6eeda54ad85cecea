"""What keys do, and what a screen of so many lines shows of a page. Nothing is read and nothing is drawn here."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from somaresil.top_command import VIEWS
from somaresil.top_command.page import Look, Page, Seen
from somaresil.top_command.text import ASCII, UNICODE, Glyphs, Line, Span, cut, fitted, shown, wrapped
from somaresil.top_command.views import draw

if TYPE_CHECKING:
    from collections.abc import Collection

__all__ = ["HELP", "Keyboard", "Steering", "keys_of"]

HELP: Final = (
    ("q", "quit"),
    ("1 - 6, tab", "overview, objectives, one guard, chaos, canaries, events"),
    ("up, down, k, j", "choose a row, or scroll"),
    ("page up, page down, home, end", "scroll"),
    ("enter", "look at the guard that is chosen; in the view of one: the next one"),
    ("escape", "back to the overview, or away with the filter"),
    ("/", "show only what has a text in its name"),
    ("d", "events of single calls too, or no more"),
    ("s", "the kill switch: stop every experiment, where you may"),
    ("?", "this"),
)
_LONGEST_FILTER: Final = 60
_SEQUENCES: Final = {
    b"\x1b[A": "up",
    b"\x1b[B": "down",
    b"\x1bOA": "up",
    b"\x1bOB": "down",
    b"\x1b[5~": "page up",
    b"\x1b[6~": "page down",
    b"\x1b[H": "home",
    b"\x1b[F": "end",
    b"\x1bOH": "home",
    b"\x1bOF": "end",
    b"\x1b[1~": "home",
    b"\x1b[4~": "end",
    b"\x1b[Z": "back tab",
}
_SINGLE: Final = {b"\r": "enter", b"\n": "enter", b"\t": "tab", b"\x7f": "backspace", b"\x08": "backspace", b"\x1b": "escape"}


def keys_of(data: bytes) -> list[str]:
    """The keys that a terminal has sent: names for those that write nothing, characters for the others."""
    found: list[str] = []
    while data:
        sequence = next((each for each in _SEQUENCES if data.startswith(each)), None)
        if sequence is not None:
            found.append(_SEQUENCES[sequence])
            data = data[len(sequence) :]
        elif data[:2] in {b"\x1b[", b"\x1bO"}:
            # A sequence that means nothing here: up to its last byte.
            end = next((place for place in range(2, len(data)) if 0x40 <= data[place] <= 0x7E), len(data) - 1)  # noqa: PLR2004 - ECMA-48
            data = data[end + 1 :]
        elif data[:1] in _SINGLE:
            found.append(_SINGLE[data[:1]])
            data = data[1:]
        else:
            text = data.split(b"\x1b", 1)[0]
            data = data[len(text) :]
            for each in text.decode("utf-8", "ignore"):
                name = _SINGLE.get(each.encode())
                if name is not None or each.isprintable():
                    found.append(name or each)
    return found


@dataclass(frozen=True, slots=True)
class Keyboard:
    """What is typed at the moment besides choosing views."""

    filtering: bool = False
    confirming: bool = False
    helping: bool = False


class Steering:
    """Which view is shown, and where in it."""

    def __init__(self, view: str, guard: str = "", *, wanted: str = "", unicode: bool = True) -> None:
        """Begin with a view."""
        self.look = Look(view=view, guard=guard, wanted=wanted, glyphs=UNICODE if unicode else ASCII)
        self.keyboard = Keyboard()
        self.first = 0
        """The line of the body that is on top."""
        self._page = Page()
        self._rows = 1
        self._follow = False

    @property
    def glyphs(self) -> Glyphs:
        """What drawings are made of."""
        return self.look.glyphs

    # -- keys -----------------------------------------------------------------------------------------------------------------------------

    def press(self, key: str, may: Collection[str] = ()) -> str | None:
        """Take a key. What is to be done: ``quit``, ``stop``, or None. ``may``: what the user is allowed to do there."""
        if self.keyboard.confirming:
            self.keyboard = Keyboard()
            return "stop" if key in {"y", "Y"} else None
        if self.keyboard.filtering:
            self._typed(key)
            return None
        if self.keyboard.helping:
            self.keyboard = Keyboard()
            return "quit" if key == "q" else None
        if key == "q":
            return "quit"
        if key == "s" and "stop" in may:
            self.keyboard = Keyboard(confirming=True)
        elif key == "/":
            self.keyboard = Keyboard(filtering=True)
        elif key == "?":
            self.keyboard = Keyboard(helping=True)
        elif key == "d":
            self.look = replace(self.look, detailed=not self.look.detailed)
        else:
            self._go(key)
        return None

    def _go(self, key: str) -> None:
        if key == "enter":
            self._enter()
        elif key == "escape":
            self._back()
        elif key in {"tab", "back tab"}:
            step = 1 if key == "tab" else -1
            self._show(VIEWS[(VIEWS.index(self.look.view) + step) % len(VIEWS)])
        elif key.isdecimal() and 1 <= int(key) <= len(VIEWS):
            self._show(VIEWS[int(key) - 1])
        else:
            self._move(key)

    def _typed(self, key: str) -> None:
        if key == "enter":
            self.keyboard = Keyboard()
        elif key == "escape":
            self.keyboard = Keyboard()
            self.look = replace(self.look, wanted="")
        elif key == "backspace":
            self.look = replace(self.look, wanted=self.look.wanted[:-1])
        elif len(key) == 1 and len(self.look.wanted) < _LONGEST_FILTER:
            self.look = replace(self.look, wanted=self.look.wanted + key)
        self.first = 0

    def _show(self, view: str) -> None:
        guard, chosen = self.look.guard, self.look.chosen
        if view == "guard":
            names = self._page.names
            guard = (chosen if self.look.view == "overview" and chosen in names else guard) or (names[0] if names else "")
        self.look = replace(self.look, view=view, guard=guard, chosen="" if view != self.look.view else chosen)
        self.first = 0

    def _enter(self) -> None:
        names = self._page.names
        if self.look.view == "overview" and self.look.chosen:
            self._show("guard")
        elif self.look.view == "guard" and names:
            place = names.index(self.look.guard) + 1 if self.look.guard in names else 0
            self.look = replace(self.look, guard=names[place % len(names)])
            self.first = 0

    def _back(self) -> None:
        if self.look.wanted:
            self.look = replace(self.look, wanted="")
        elif self.look.view != "overview":
            guard = self.look.guard
            self.look = replace(self.look, view="overview", chosen=guard)
            self._follow = True
        else:
            self.look = replace(self.look, chosen="")
        self.first = 0

    def _move(self, key: str) -> None:
        step = {"up": -1, "k": -1, "down": 1, "j": 1, "page up": -self._rows, "page down": self._rows}.get(key)
        names = self._page.names
        if step is not None and abs(step) == 1 and names and self.look.view != "guard":
            place = names.index(self.look.chosen) + step if self.look.chosen in names else 0 if step > 0 else len(names) - 1
            self.look = replace(self.look, chosen=names[max(0, min(len(names) - 1, place))])
            self._follow = True
        elif step is not None:
            self.first += step
        elif key == "home":
            self.first = 0
        elif key == "end":
            self.first = len(self._page.body)

    # -- the screen -----------------------------------------------------------------------------------------------------------------------

    def screen(self, seen: Seen, width: int, height: int, note: str = "", may: Collection[str] = ()) -> list[Line]:
        """The lines of a screen, exactly ``height`` of them at most."""
        width, height = max(1, width), max(1, height)
        self.look = replace(self.look, width=width)
        page = self._page = draw(seen, self.look)
        foot = self._foot(note, may)[: max(0, height - 1)]
        # The head never takes more than half: what is looked at is below it.
        head = [*page.head[: max(1, height // 2)], self._tabs()][: max(1, height - len(foot) - 1)]
        self._rows = rows = max(0, height - len(head) - len(foot))
        if self.keyboard.helping:
            body = [line for key, says in HELP for line in wrapped([Span(f"{key:<30}", "head"), Span(says)], width, self.glyphs.more)]
            return [*head, *body[:rows], *foot]
        if self._follow and page.chosen is not None:
            self.first = min(max(self.first, page.chosen - rows + 1), page.chosen)
            self._follow = False
        self.first = max(0, min(self.first, len(page.body) - rows))
        body = page.body[self.first : self.first + rows]
        return [*head, *body, *[()] * (rows - len(body)), *foot]

    def _tabs(self) -> Line:
        tabs: list[Span] = []
        short = self.look.width < 70  # noqa: PLR2004 - six names and their numbers
        for number, view in enumerate(VIEWS, 1):
            name = view[:4] if short else view
            tabs += [Span(f" {number} {name} ", "tab" if view == self.look.view else "dim")]
        return fitted(tabs, self.look.width, self.glyphs.more)

    def _foot(self, note: str, may: Collection[str]) -> list[Line]:
        width, more = self.look.width, self.glyphs.more
        if self.keyboard.confirming:
            return [fitted([Span("stop every experiment of this service? y: yes, any other key: no", "bad")], width, more)]
        if self.keyboard.filtering or self.look.wanted:
            typed = cut(shown(self.look.wanted), max(1, width - 12), more)
            said = [Span(f"filter: {typed}", "head"), Span("_" if self.keyboard.filtering else "   escape: none", "dim")]
            lines = [fitted(said, width, more)]
        else:
            known = "q quit   1-6 views   / filter   enter guard   ? help" + ("   s kill switch" if "stop" in may else "")
            lines = [fitted([Span(known, "dim")], width, more)]
        return [fitted([Span(shown(note, 500), "head")], width, more), *lines] if note else lines
