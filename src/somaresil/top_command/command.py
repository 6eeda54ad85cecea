"""Asks a dashboard once, or shows it until the user has had enough."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from somaresil.clock import SystemClock
from somaresil.colour import is_terminal, wanted
from somaresil.remote import DONE, IMPOSSIBLE, REFUSED, Impossible, Remote, clean
from somaresil.top_command import TOKEN, URL
from somaresil.top_command.data import listed, mapped, real, text, whole
from somaresil.top_command.feed import LARGEST, Feed, ask_picture, asked
from somaresil.top_command.page import Look, Seen, plain
from somaresil.top_command.text import ASCII, UNICODE, shown
from somaresil.top_command.views import draw

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Mapping
    from typing import TextIO

    from somaresil.top_command.page import Page
    from somaresil.typing import Clock

__all__ = ["FAILURES", "failures", "run"]

INSTALL: Final = 'pip install "somaresil[top]"'
_OPEN: Final = frozenset({"open", "forced_open"})
_WIDTH: Final = 120
"""Cells of a line where nobody says how wide the paper is."""


def _open(picture: Mapping[str, Any]) -> list[str]:
    found = []
    for guard in listed(picture.get("guards")):
        states = {text(guard.get("state")), *(name for name, count in mapped(guard.get("states")).items() if whole(count))}
        if states & _OPEN:
            found.append(f"the circuit of {shown(guard.get('name') or '?', 60)} is open")
    return found


def _budget(picture: Mapping[str, Any]) -> list[str]:
    spent = [slo for slo in listed(picture.get("objectives")) if (left := real(slo.get("budget_left"))) is not None and left <= 0.0]
    return [f"the budget of {shown(slo.get('name') or '?', 60)} is used up" for slo in spent]


def _alert(picture: Mapping[str, Any]) -> list[str]:
    return [
        f"{shown(alert.get('severity') or 'alert', 20)}: {shown(slo.get('name') or '?', 60)}"
        for slo in listed(picture.get("objectives"))
        for alert in listed(slo.get("alerts"))
    ]


def _missing(picture: Mapping[str, Any]) -> list[str]:
    return [
        f"{shown(source.get('name') or '?', 60)} is {shown(source.get('state') or 'missing', 20)}"
        for source in listed(picture.get("sources"))
        if source.get("state") != "live"
    ]


def _chaos(picture: Mapping[str, Any]) -> list[str]:
    return [
        f"experiment {shown(each.get('id') or '?', 60)} runs"
        for each in listed(picture.get("experiments"))
        if each.get("state") == "running"
    ]


FAILURES: Final[dict[str, Callable[[Mapping[str, Any]], list[str]]]] = {
    "open": _open,
    "budget": _budget,
    "alert": _alert,
    "missing": _missing,
    "chaos": _chaos,
}
"""What can be wrong, by the names of ``--fail-on``."""


def failures(picture: Mapping[str, Any], kinds: list[str]) -> list[str]:
    """What of these kinds is wrong, in words."""
    return [said for kind in kinds for said in FAILURES[kind](picture)]


def run(arguments: argparse.Namespace, clock: Clock | None = None) -> int:
    """Do it, and give the exit code."""
    try:
        return _run(arguments, SystemClock() if clock is None else clock)
    except Impossible as why:
        print(f"somaresil top: {clean(str(why))}", file=sys.stderr)
        return IMPOSSIBLE
    except BrokenPipeError:
        # Whoever was reading has left. What Python still wants to flush at its end must not fail once more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except KeyboardInterrupt:
        return 130


def _run(arguments: argparse.Namespace, clock: Clock) -> int:
    remote = Remote(
        "dashboard",
        url=arguments.url,
        url_variable=URL,
        token_variable=arguments.token_env,
        timeout=arguments.timeout,
        largest=LARGEST,
        open_to_all=arguments.token_env == TOKEN,
        option="its address as an argument",
    )
    view = "guard" if arguments.guard and arguments.view is None else arguments.view or "overview"
    picture = ask_picture(remote)
    once = arguments.once or bool(arguments.fail_on)
    if arguments.json:
        return _once(remote, arguments, view, picture) if once else _follow(remote, arguments, view, picture, clock)
    if once or not is_terminal(sys.stdout):
        return _once(remote, arguments, view, picture)
    if find_spec("rich") is None:
        print(f"somaresil top: rich is not installed, so this is shown once. This installs it:\n\n    {INSTALL}\n", file=sys.stderr)
        return _once(remote, arguments, view, picture)
    return _live(remote, arguments, view, picture, clock)


def _draws(stream: TextIO) -> bool:
    """Whether what writes to it can be more than ASCII."""
    try:
        "".join(UNICODE).encode(stream.encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True


# -- once ---------------------------------------------------------------------------------------------------------------------------------


def _once(remote: Remote, arguments: argparse.Namespace, view: str, picture: dict[str, Any]) -> int:
    detail = asked(remote, f"/api/guards/{quote(arguments.guard, safe='')}") if view == "guard" and arguments.guard else None
    events = asked(remote, "/api/events?most=1000") if view == "events" else {}
    if arguments.json:
        print(json.dumps(detail if view == "guard" and detail is not None else events if view == "events" else picture, indent=2))
    else:
        seen = Seen(picture, detail, listed(events.get("events")), whole(events.get("lost")))
        width = _columns(sys.stdout)
        look = Look(view, width, arguments.filter, guard=arguments.guard or "", glyphs=UNICODE if _draws(sys.stdout) else ASCII)
        _print(draw(seen, look), width)
    wrong = failures(picture, arguments.fail_on)
    for each in wrong:
        print(f"somaresil top: {each}", file=sys.stderr)
    return REFUSED if wrong else DONE


def _print(page: Page, width: int) -> None:
    if wanted(sys.stdout) and find_spec("rich") is not None:
        from somaresil.top_command.screen import print_styled

        print_styled([*page.head, (), *page.body], width)
        return
    # What a terminal in another language cannot show must not end in an error.
    encoding = sys.stdout.encoding or "utf-8"
    print(plain(page).encode(encoding, "backslashreplace").decode(encoding))


def _columns(stream: TextIO) -> int:
    told = os.environ.get("COLUMNS", "")
    if told.isdecimal() and 0 < int(told) <= 1_000:  # noqa: PLR2004 - wider than any paper
        return int(told)
    try:
        return os.get_terminal_size(stream.fileno()).columns or _WIDTH
    except (OSError, ValueError):
        return _WIDTH


# -- on and on ----------------------------------------------------------------------------------------------------------------------------


def _follow(remote: Remote, arguments: argparse.Namespace, view: str, picture: dict[str, Any], clock: Clock) -> int:
    """A line of JSON for each picture, or for each event."""
    changed = threading.Event()
    feed = Feed(remote, clock, picture, interval=arguments.interval, changed=changed.set)
    feed.start()
    told: Any = None
    try:
        while True:
            seen = feed.seen()
            if view == "events":
                for event in feed.fresh():
                    print(json.dumps(event), flush=True)
            elif seen.picture is not told:
                print(json.dumps(seen.picture), flush=True)
                told = seen.picture
            clock.wait(changed, 60.0)
            changed.clear()
    finally:
        feed.stop()


def _live(remote: Remote, arguments: argparse.Namespace, view: str, picture: dict[str, Any], clock: Clock) -> int:
    from somaresil.top_command.screen import Alarm, show
    from somaresil.top_command.steering import Steering

    alarm = Alarm()
    feed = Feed(remote, clock, picture, interval=arguments.interval, changed=alarm.ring)
    feed.start()
    try:
        return show(feed, Steering(view, arguments.guard or "", wanted=arguments.filter, unicode=_draws(sys.stdout)), alarm, clock)
    finally:
        feed.stop()
        alarm.close()
