"""Tokens of pages: for one person at one service, for twelve hours, known by every worker that shares the secret."""

from __future__ import annotations

import os
import stat

import pytest

from somaresil import ManualClock
from somaresil.dashboard.tokens import Tokens

SECRET = "s" * 32
NOW = 1_700_000_000.0
PINNED = "1700043200.r8wioLAAiyV8PAucPz0Ube4fsK6wKA5PSIhtZPC4Wnw"


def test_a_token_is_good_for_twelve_hours_and_not_a_second_longer():
    clock = ManualClock(time=NOW)
    tokens = Tokens("shop", clock, secret=SECRET)
    token = tokens.give("ann")
    assert token.startswith(f"{int(NOW) + 43_200}.")
    assert "=" not in token
    clock.advance(43_199.0)
    assert tokens.knows(token, "ann")
    clock.advance(1.0)
    assert not tokens.knows(token, "ann")


def test_a_token_is_of_one_person_one_service_and_one_secret():
    clock = ManualClock(time=NOW)
    token = Tokens("shop", clock, secret=SECRET).give("ann")
    assert Tokens("shop", clock, secret=SECRET).knows(token, "ann")
    assert not Tokens("shop", clock, secret=SECRET).knows(token, "bob")
    assert not Tokens("till", clock, secret=SECRET).knows(token, "ann")
    assert not Tokens("shop", clock, secret="t" * 32).knows(token, "ann")
    assert not Tokens("shop", clock).knows(token, "ann")


def test_workers_of_two_versions_know_each_others_tokens():
    """What is signed, and how, stays as it is: a deployment must not throw people out."""
    tokens = Tokens("shop", ManualClock(time=NOW), secret=SECRET)
    assert tokens.give("ann") == PINNED


@pytest.mark.parametrize(
    "what", [None, "", ".", "x", "1e99.x", "²." + "a" * 43, "-1.x", "9" * 119 + ".", "9" * 121, "1700043200.", "1700043200.ö\ud800"]
)
def test_what_was_never_given_is_not_known_and_breaks_nothing(what):
    assert Tokens("shop", ManualClock(time=NOW), secret=SECRET).knows(what, "ann") is False


def test_a_token_with_another_time_is_another_token():
    clock = ManualClock(time=NOW)
    tokens = Tokens("shop", clock, secret=SECRET)
    until, _, signature = tokens.give("ann").partition(".")
    assert not tokens.knows(f"{int(until) + 1}.{signature}", "ann")
    assert not tokens.knows(f"0{until}.{signature}", "ann")


def test_a_process_without_a_folder_keeps_its_own_secret():
    clock = ManualClock(time=NOW)
    tokens = Tokens("shop", clock)
    assert tokens.knows(tokens.give("ann"), "ann")
    assert tokens.give("ann") == tokens.give("ann")


def test_the_first_worker_lays_the_secret_for_all_and_nobody_else_may_read_it(tmp_path):
    clock, folder = ManualClock(time=NOW), tmp_path / "workers"
    one, two = Tokens("shop", clock, folder=folder), Tokens("shop", clock, folder=folder)
    token = one.give("ann")
    assert two.knows(token, "ann")
    assert [each.name for each in folder.iterdir()] == ["csrf.key"]
    key = folder / "csrf.key"
    assert len(key.read_bytes()) == 32
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_the_half_of_a_secret_that_a_killed_worker_left_is_no_matter(tmp_path):
    """Nor is that somebody was faster between the look and the link."""
    clock, folder = ManualClock(time=NOW), tmp_path / "workers"
    folder.mkdir(mode=0o700)
    (folder / f".csrf.key.{os.getpid()}").write_bytes(b"half")
    tokens = Tokens("shop", clock, folder=folder)
    assert tokens.knows(tokens.give("ann"), "ann")
    assert [each.name for each in folder.iterdir()] == ["csrf.key"]


def test_the_secret_of_whoever_was_faster_counts(tmp_path, monkeypatch):
    clock, folder = ManualClock(time=NOW), tmp_path / "workers"
    first = Tokens("shop", clock, folder=folder)
    token = first.give("ann")
    really = type(folder).exists
    monkeypatch.setattr(type(folder), "exists", lambda path, **more: path.name != "csrf.key" and really(path, **more))
    assert Tokens("shop", clock, folder=folder).knows(token, "ann")
    assert [each.name for each in folder.iterdir()] == ["csrf.key"]


@pytest.mark.parametrize("length", [0, 31])
def test_a_secret_that_is_too_short_is_refused_with_the_way_out(tmp_path, length):
    folder = tmp_path / "workers"
    folder.mkdir(mode=0o700)
    (folder / "csrf.key").write_bytes(b"x" * length)
    (folder / "csrf.key").chmod(0o600)
    with pytest.raises(ValueError, match="holds no secret of 32 bytes; remove it"):
        Tokens("shop", ManualClock(), folder=folder).give("ann")
