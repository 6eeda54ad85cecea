"""The command top where it is rare: followed in the process, at a terminal, and by readers that leave."""

from __future__ import annotations

import argparse
import json
import os
import pty
import sys
from argparse import ArgumentTypeError

import pytest

from somaresil.cli import main
from somaresil.clock import SystemClock
from somaresil.top_command import cli, command, feed, page, screen
from somaresil.top_command.page import Look
from somaresil.top_command.steering import Steering
from somaresil.top_command.text import Span
from tests.unit.top_command.kit import NAME, PICTURE, TOKEN, event, picture, serving
from tests.unit.top_command.test_feed import remote_of


@pytest.fixture
def board(monkeypatch):
    """A dashboard, its address, and the token that opens it."""
    monkeypatch.setenv(NAME, TOKEN)
    monkeypatch.setenv("COLUMNS", "100")
    with serving() as (dashboard, url):
        yield dashboard, url


class Ends(SystemClock):
    """Ctrl-C once there is enough."""

    def __init__(self, enough):
        super().__init__()
        self.enough = enough

    def wait(self, event, timeout):
        if self.enough():
            raise KeyboardInterrupt
        return super().wait(event, 20.0)


@pytest.mark.parametrize("view", ["overview", "events"])
def test_what_is_followed_is_told_a_line_each_and_each_once(board, capsys, view):
    """Pictures, or events, the old ones first; Ctrl-C ends it with 130."""
    told = []

    def enough():
        told.extend(json.loads(line) for line in capsys.readouterr().out.splitlines())
        return len(told) >= (1 if view == "overview" else 2)

    assert command.run(_parsed(board[1], "--json", "--view", view), Ends(enough)) == 130
    if view == "overview":
        assert told[0] == PICTURE
    else:
        assert [each["id"] for each in told] == [1, 2]


def _parsed(*words):
    parser = argparse.ArgumentParser()
    cli.add_to(parser.add_subparsers())
    return parser.parse_args(["top", *words])


def test_a_reader_that_has_left_ends_it_as_a_signal_would(monkeypatch, board):
    """128 + SIGPIPE, and nothing is flushed to him once more."""
    done = []

    def leaves(*_):
        raise BrokenPipeError

    monkeypatch.setattr(command, "_run", leaves)
    monkeypatch.setattr(command.os, "dup2", lambda new, old: done.append(old))
    monkeypatch.setattr(sys, "stdout", sys.__stdout__)
    assert command.run(_parsed(board[1])) == 141
    assert done == [sys.__stdout__.fileno()]


def test_without_rich_a_terminal_gets_it_once_and_the_way_out(board, capsys, monkeypatch):
    """And that is a success."""
    monkeypatch.setattr(command, "is_terminal", lambda stream: True)
    monkeypatch.setattr(command, "find_spec", lambda name: None)
    assert main(["top", board[1]]) == 0
    shown = capsys.readouterr()
    assert "llm.invoke" in shown.out
    assert "rich is not installed" in shown.err
    assert "pip install" in shown.err


def test_the_width_is_that_of_the_terminal_unless_told(monkeypatch):
    """Nonsense is not taken; without a terminal there is a usual one."""
    master, slave = pty.openpty()
    with os.fdopen(slave, "w") as stream, os.fdopen(master, "rb"):
        for told, width in (("77", 77), ("0", 132), ("x", 132), ("9999", 132), (None, 132)):
            monkeypatch.setattr(os, "get_terminal_size", lambda descriptor: os.terminal_size((132, 40)))
            monkeypatch.setenv("COLUMNS", told) if told is not None else monkeypatch.delenv("COLUMNS")
            assert command._columns(stream) == width

        def none(descriptor):
            raise OSError(25, "no terminal")

        monkeypatch.setattr(os, "get_terminal_size", none)
        assert command._columns(stream) == command._WIDTH


@pytest.mark.parametrize("text", ["x", "0", "nan", "1e9", ""])
def test_an_interval_is_seconds_within_bounds(text):
    """Anything else is refused with them."""
    assert cli._interval("2.5") == 2.5
    with pytest.raises(ArgumentTypeError, match="expected seconds from"):
        cli._interval(text)


def test_an_alarm_that_is_full_or_closed_is_enough():
    """Whoever sleeps is woken once; to ring it again is no error."""
    alarm = screen.Alarm()
    for _ in range(70_000):
        alarm.ring()
    assert os.read(alarm.inlet, 1) == b"!"
    alarm.clear()
    with pytest.raises(BlockingIOError):
        os.read(alarm.inlet, 1)
    alarm.close()
    alarm.ring()


def test_what_is_printed_once_has_styles_and_is_not_cut(capsys, monkeypatch):
    """For terminals; names that would steer them are escapes by then."""
    monkeypatch.setattr(screen, "for_console", lambda stream: {"file": stream, "force_terminal": True, "color_system": "standard"})
    screen.print_styled([(Span("open", "bad"), Span(" llm", ""))], 40)
    out = capsys.readouterr().out
    assert "\x1b[1;31mopen" in out
    assert "llm" in out


class Keys:
    """A feed that notes what it was asked."""

    note, may = "stopped", frozenset({"stop"})

    def __init__(self):
        self.did = []

    def do(self, what):
        self.did.append(what)


@pytest.mark.parametrize(("typed", "ends"), [(b"q", True), (b"2", False), (None, False)])
def test_a_key_is_attended_to_and_a_note_ends_with_it(typed, ends):
    """Without one the time passes; a terminal that is gone has had enough."""
    alarm, keys = screen.Alarm(), Keys()
    reading, writing = os.pipe()
    try:
        if typed is None:
            alarm.ring()
        else:
            os.write(writing, typed)
        found = screen._attend(keys, Steering("overview", "", wanted="", unicode=True), alarm, reading, 0.0)
        assert found is ends
        if typed == b"2":
            assert keys.note == ""
        os.close(writing)
        writing = -1
        if typed is None:
            assert screen._attend(keys, Steering("overview", "", wanted="", unicode=True), alarm, reading, 0.0)
    finally:
        alarm.close()
        os.close(reading)
        if writing >= 0:
            os.close(writing)


def test_known_events_are_bounded(board, monkeypatch):
    """The oldest is forgotten."""
    remote = remote_of(board[1])
    monkeypatch.setattr(feed, "MOST_EVENTS", 2)
    made = feed.Feed(remote, SystemClock(), picture(), interval=1.0, changed=lambda: None)
    assert [made._is_new(event(number)) for number in range(6)] == [True] * 6
    assert not made._is_new(event(5))
    assert len(made._known) == 4


def test_a_time_that_no_wall_shows_is_a_dash():
    """And not an error."""
    look = Look("overview", 80, "", guard="", glyphs=page.UNICODE if hasattr(page, "UNICODE") else None)
    assert page.clock(1e300, look) == "-"
    assert page.clock(None, look) == "-"
