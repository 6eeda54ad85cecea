"""Keys, and what a screen shows of a page."""

from __future__ import annotations

import pytest

from somaresil.top_command.page import Seen
from somaresil.top_command.steering import HELP, Steering, keys_of
from tests.unit.top_command.kit import DETAIL, GUARD, event, picture


def written(lines):
    return ["".join(span.text for span in line).rstrip() for line in lines]


def many(count):
    """A picture with so many guards."""
    return Seen(picture(guards=[{**GUARD, "name": f"guard-{number:03}", "state": "closed"} for number in range(count)], sources=[]))


def steer(seen, *keys, view="overview", size=(100, 24), may=()):
    """After these keys, each with a drawing before it: the steering and the lines."""
    steering = Steering(view)
    lines = steering.screen(seen, *size, may=may)
    for key in keys:
        steering.press(key, may)
        lines = steering.screen(seen, *size, may=may)
    return steering, written(lines)


@pytest.mark.parametrize(
    ("data", "keys"),
    [
        (b"q", ["q"]),
        (b"\x1b[A\x1b[B\x1bOA", ["up", "down", "up"]),
        (b"\x1b[5~\x1b[6~\x1b[H\x1b[4~", ["page up", "page down", "home", "end"]),
        (b"\x1b", ["escape"]),
        (b"\x1bq", ["escape", "q"]),
        (b"a\rb\n\t\x7f", ["a", "enter", "b", "enter", "tab", "backspace"]),
        (b"\x1b[1;5Cx", ["x"]),
        (b"\x1b[200~", []),
        (b"\x1b[", []),
        ("é模".encode(), ["é", "模"]),
        (b"\xff\x00\x07ok", ["o", "k"]),
        (b"", []),
    ],
)
def test_keys_are_what_was_typed(data, keys):
    """Sequences have names, characters are themselves, what means nothing is left out."""
    assert keys_of(data) == keys


@pytest.mark.parametrize(
    ("key", "view"), [("1", "overview"), ("2", "slos"), ("3", "guard"), ("4", "chaos"), ("5", "canary"), ("6", "events"), ("7", "overview")]
)
def test_numbers_choose_views(key, view):
    """1 to 6; other numbers do nothing."""
    assert steer(many(3), key)[0].look.view == view


def test_tab_goes_round():
    """Forwards and backwards."""
    assert steer(many(3), *["tab"] * 5)[0].look.view == "events"
    assert steer(many(3), *["tab"] * 6)[0].look.view == "overview"
    assert steer(many(3), "back tab")[0].look.view == "events"


def test_a_row_is_chosen_and_looked_at():
    """Down twice, enter: the second guard; enter again: the third; escape: back, where one was."""
    steering, lines = steer(many(5), "down", "down")
    assert any("▸" in line and "guard-001" in line for line in lines)
    steering, lines = steer(many(5), "down", "down", "enter")
    assert (steering.look.view, steering.look.guard) == ("guard", "guard-001")
    steering, lines = steer(many(5), "down", "down", "enter", "enter")
    assert steering.look.guard == "guard-002"
    steering, lines = steer(many(5), "down", "down", "enter", "enter", "escape")
    assert (steering.look.view, steering.look.chosen) == ("overview", "guard-002")
    assert any("▸" in line and "guard-002" in line for line in lines)


def test_choosing_stays_within_the_rows():
    """Up from the first is the first, down from the last is the last, and none is fine."""
    assert steer(many(3), "up", "up", "up", "up", "up")[0].look.chosen == "guard-000"
    assert steer(many(3), *["down"] * 9)[0].look.chosen == "guard-002"
    assert steer(many(0), "down", "enter", "up", "page down", "end")[0].look.view == "overview"


def test_what_is_chosen_is_scrolled_into_sight():
    """Of a hundred guards the one far below is on the screen, and the head stays."""
    _, lines = steer(many(100), *["down"] * 60, size=(100, 15))
    assert any("▸" in line and "guard-059" in line for line in lines)
    assert lines[0].startswith("gateway")
    assert len(lines) == 15


def test_pages_scroll_to_the_end_and_no_further():
    """End shows the last line, home the first, and a page more than there is shows the last."""
    _, lines = steer(many(100), "end", size=(100, 15))
    assert any("limit 100" in line for line in lines)
    _, further = steer(many(100), "end", "page down", size=(100, 15))
    assert further == lines
    _, home = steer(many(100), "end", "home", size=(100, 15))
    assert any("guard-000" in line for line in home)


def test_a_filter_is_typed_and_taken_away():
    """Only what has the text in its name is shown; escape shows everything again."""
    steering, lines = steer(many(30), "/", "0", "1", "x", "backspace", "enter", size=(100, 60))
    assert steering.look.wanted == "01"
    assert sum("guard-" in line for line in lines) == 11
    assert "filter: 01" in lines[-1]
    steering, lines = steer(many(30), "/", "0", "1", "enter", "escape", size=(100, 60))
    assert steering.look.wanted == ""
    assert sum("guard-" in line for line in lines) == 30
    steering, _ = steer(many(3), "/", "q", "escape")
    assert (steering.look.wanted, steering.look.view) == ("", "overview")
    steering, _ = steer(many(3), "/", *"a" * 200)
    assert len(steering.look.wanted) == 60


def test_a_filter_cannot_steer_the_terminal():
    """What is typed is shown as harmlessly as what comes from the service."""
    _, lines = steer(many(1), "/", "\u202e", "enter")
    assert "\u202e" not in "".join(lines)


def test_the_kill_switch_asks_first():
    """y throws it, anything else does not; without permission the key does nothing."""
    steering = Steering("overview")
    steering.screen(many(1), 100, 24)
    assert steering.press("s", {"stop"}) is None
    assert "stop every experiment" in written(steering.screen(many(1), 100, 24))[-1]
    assert steering.press("y", {"stop"}) == "stop"
    steering.press("s", {"stop"})
    assert steering.press("enter", {"stop"}) is None
    assert steering.press("y", {"stop"}) is None
    assert not steering.keyboard.confirming
    steering.press("s", {"canary"})
    assert not steering.keyboard.confirming
    assert "kill switch" not in written(steering.screen(many(1), 100, 24))[-1]
    assert "s kill switch" in written(steering.screen(many(1), 100, 24, may={"stop"}))[-1]


def test_events_of_single_calls_come_and_go():
    """With one key."""
    steering, _ = steer(many(1), "d")
    assert steering.look.detailed
    assert not steer(many(1), "d", "d")[0].look.detailed


def test_help_says_every_key_and_goes_with_the_next_one():
    """The table of keys is on the screen until something is pressed."""
    steering, lines = steer(many(1), "?", size=(100, 40))
    assert all(any(key in line for line in lines) for key, _ in HELP)
    steering.press("j")
    assert not steering.keyboard.helping
    assert Steering("overview").press("q") == "quit"


@pytest.mark.parametrize("view", ["overview", "slos", "guard", "chaos", "canary", "events"])
@pytest.mark.parametrize("size", [(60, 24), (20, 6), (1, 1), (3, 2), (200, 60)])
def test_a_screen_is_as_large_as_the_terminal(view, size):
    """No line too many and none too wide, whatever the size."""
    steering = Steering(view, "llm.invoke")
    seen = Seen(picture(), DETAIL, [event(1)], trouble="no answer", age=12.0)
    lines = written(steering.screen(seen, *size, note="stopping ...", may={"stop"}))
    assert len(lines) <= size[1]
    assert all(len(line) <= size[0] for line in lines)


def test_trouble_is_said_on_top():
    """Why nothing new comes, and for how long."""
    lines = written(Steering("overview").screen(Seen(picture(), trouble="nothing listens there", age=12.0), 100, 30))
    assert any("nothing new for 12 s: nothing listens there" in line for line in lines)


def test_ascii_is_enough():
    """A terminal that can show nothing else gets nothing else."""
    steering = Steering("overview", unicode=False)
    for view in "123456":
        steering.press(view)
        lines = written(steering.screen(Seen(picture(), DETAIL, [event(1)]), 50, 40))
        assert all(line.isascii() for line in lines)
