"""What is kept up to date in the background: by the stream, by asking, and after everything has broken off."""

from __future__ import annotations

import threading
from contextlib import contextmanager

import pytest

from somaresil.clock import SystemClock
from somaresil.remote import Impossible, Remote
from somaresil.top_command.feed import MOST_EVENTS, MOST_OF_CALLS, Feed, ask_picture, asked
from somaresil.top_command.steering import Steering
from tests.unit.top_command.kit import NAME, TOKEN, event, eventually, picture, serving


@pytest.fixture
def board(monkeypatch):
    """A dashboard, its address, and the token that opens it."""
    monkeypatch.setenv(NAME, TOKEN)
    with serving() as (dashboard, url):
        yield dashboard, url


def remote_of(url, timeout=5.0):
    return Remote("dashboard", url=url, url_variable="U", token_variable=NAME, timeout=timeout, open_to_all=True)


class Impatient(SystemClock):
    """Waits a twentieth of the time."""

    def wait(self, event, timeout):
        return super().wait(event, timeout / 20.0)


@contextmanager
def feeding(url, **options):
    """A feed that runs, and its bell."""
    remote = remote_of(url)
    bell = threading.Event()
    feed = Feed(remote, Impatient(), ask_picture(remote), interval=options.pop("interval", 1.0), changed=bell.set, **options)
    feed.start()
    try:
        yield feed
    finally:
        feed.stop()
        assert not any(thread.is_alive() for thread in feed._threads)


def test_pictures_and_events_come_by_the_stream(board):
    """What the dashboard sends is seen, without another question for the picture."""
    dashboard, url = board
    with feeding(url) as feed:
        assert eventually(lambda: dashboard.streaming == 1 and len(feed.seen().events) == 2)
        dashboard.say("picture", picture(service="renamed"))
        dashboard.say("event", event(3, "new"), "3")
        assert eventually(lambda: feed.seen().picture["service"] == "renamed" and feed.seen().events[-1]["text"] == "new")
        assert sum("/api/picture" in path for _, path, _ in dashboard.asked) == 1
        assert feed.may == {"stop"}
        assert feed.seen().trouble == ""


def test_a_stream_that_breaks_off_is_taken_up_where_it_was(board):
    """The next one asks for what comes after the last event, and events that come twice are there once."""
    dashboard, url = board
    with feeding(url, interval=0.2) as feed:
        assert eventually(lambda: dashboard.streaming == 1)
        dashboard.say("event", event(3, "new"), "3")
        assert eventually(lambda: len(feed.seen().events) == 3)
        dashboard.end_streams()
        assert eventually(lambda: sum("/api/stream" in path for _, path, _ in dashboard.asked) >= 2, 10.0)
        again = [headers for _, path, headers in dashboard.asked if "/api/stream" in path][1]
        assert {name.lower(): value for name, value in again.items()}["last-event-id"] == "3"
        dashboard.say("event", event(3, "new"), "3")
        dashboard.say("event", event(4, "newer"), "4")
        assert eventually(lambda: feed.seen().events[-1]["text"] == "newer")
        assert [each["id"] for each in feed.seen().events] == [1, 2, 3, 4]


def test_without_a_stream_it_asks(board):
    """A dashboard behind something that lets no stream through is asked again and again."""
    dashboard, url = board
    dashboard.streams = False
    with feeding(url, interval=0.2) as feed:
        dashboard.picture = picture(service="renamed")
        assert eventually(lambda: feed.seen().picture["service"] == "renamed")
        dashboard.events = [*dashboard.events, event(3, "new")]
        assert eventually(lambda: len(feed.seen().events) == 3)
        assert feed.seen().trouble == ""


def test_trouble_is_told_and_passes(board):
    """While nothing answers the last picture stays, with the reason; when something does, all is well again."""
    dashboard, url = board
    with feeding(url, interval=0.2) as feed:
        assert eventually(lambda: dashboard.streaming == 1)
        dashboard.refuse = 404
        dashboard.end_streams()
        assert eventually(lambda: "status 404" in feed.seen().trouble or "has ended" in feed.seen().trouble)
        assert feed.seen().picture["service"] == "gateway"
        dashboard.refuse = None
        dashboard.picture = picture(service="back")
        assert eventually(lambda: feed.seen().trouble == "" and feed.seen().picture["service"] == "back", 10.0)


@pytest.mark.parametrize("data", ["[1, 2]", "no JSON", '{"version": 1}', '{"version": "1", "guards": []}', "[" * 100_000])
def test_a_stream_of_something_else_is_trouble(board, data):
    """What is no picture is not shown, and breaks nothing."""
    dashboard, url = board
    with feeding(url, interval=0.2) as feed:
        assert eventually(lambda: dashboard.streaming == 1)
        dashboard.refuse = 404
        dashboard.say("picture", data)
        assert eventually(lambda: "not one of the dashboard" in feed.seen().trouble)
        assert feed.seen().picture["service"] == "gateway"


def test_more_about_a_guard_is_asked_for_while_it_is_looked_at(board):
    """And for no other, and not for one that is not there."""
    dashboard, url = board
    with feeding(url, interval=0.2) as feed:
        feed.look_at("llm.invoke")
        assert eventually(lambda: feed.seen().detail is not None)
        assert feed.seen().detail["rejections"] == {"circuit_open": 5}
        feed.look_at("a/b?c")
        assert eventually(lambda: feed.seen().detail is None)
        assert any(path.endswith("/api/guards/a%2Fb%3Fc") for _, path, _ in dashboard.asked)


def test_something_is_done_and_what_came_of_it_is_said(board):
    """With the header against other sites, and names of those that were not reached."""
    dashboard, url = board
    with feeding(url, interval=0.2) as feed:
        feed.do("/api/stop")
        assert eventually(lambda: feed.note == "done in 1 process")
        dashboard.stopped = {
            "done": False,
            "sources": [{"name": "a", "done": True, "problem": ""}, {"name": "b\x1b[2J", "done": False, "problem": "no answer"}],
        }
        feed.do("/api/stop")
        assert eventually(lambda: feed.note == "done in 1, not in b\x1b[2J (no answer)")
        # It is the screen that shows it: harmlessly.
        lines = Steering("overview").screen(feed.seen(), 100, 30, feed.note)
        assert any("b\\x1b[2J (no answer)" in span.text for line in lines for span in line)


def test_a_kill_switch_without_an_answer_names_the_one_that_needs_none(board):
    """The file of the host stops experiments when nobody answers."""
    dashboard, url = board
    with feeding(url, interval=0.2) as feed:
        assert eventually(lambda: dashboard.streaming == 1)
        dashboard.refuse = 404
        feed.do("/api/stop")
        assert eventually(lambda: feed.note.startswith("not done: "))
        assert feed.note.endswith("On its host: somaresil chaos stop --host gateway")


def test_fresh_events_are_told_once(board):
    """As they came, the old ones first."""
    dashboard, url = board
    with feeding(url) as feed:
        assert eventually(lambda: len(feed.seen().events) == 2)
        assert [each["id"] for each in feed.fresh()] == [1, 2]
        dashboard.say("event", event(3, "new"), "3")
        assert eventually(lambda: len(feed.seen().events) == 3)
        assert [each["id"] for each in feed.fresh()] == [3]
        assert feed.fresh() == []


def test_a_header_of_another_process_is_asked_for_again(board):
    """Of several processes behind one address each may want its own."""
    dashboard, url = board
    dashboard.csrf_wrong = 2
    with feeding(url, interval=0.2) as feed:
        feed.do("/api/stop")
        assert eventually(lambda: feed.note == "done in 1 process")
        dashboard.csrf_wrong = 9
        feed.do("/api/stop")
        assert eventually(lambda: feed.note == "refused (403): not of this page")


def test_what_is_kept_is_bounded(board):
    """However many events come, so many are kept, in the order of their times."""
    dashboard, url = board
    with feeding(url) as feed:
        assert eventually(lambda: dashboard.streaming == 1)
        for number in reversed(range(3 * MOST_EVENTS)):
            dashboard.say("event", event(number, f"event {number}"))
        assert eventually(lambda: len(feed.seen().events) == MOST_EVENTS)
        times = [each["at"] for each in feed.seen().events]
        assert times == sorted(times)
        assert len(feed._known) <= 2 * MOST_EVENTS


def test_events_of_single_calls_push_nothing_else_out(board):
    """Of a busy service there are hundreds a second."""
    dashboard, url = board
    with feeding(url) as feed:
        assert eventually(lambda: len(feed.seen().events) == 2 and dashboard.streaming == 1)
        for number in range(MOST_EVENTS):
            dashboard.say("event", event(100 + number, f"call {number} ended", level="debug"))
        dashboard.say("event", event(9_999, "the last"))
        assert eventually(lambda: feed.seen().events[-1]["text"] == "the last")
        told = [each["text"] for each in feed.seen().events]
        assert told[:2] == ["a circuit opened", "it closed again"]
        assert len(told) == 3 + MOST_OF_CALLS


def test_the_version_is_looked_at(board):
    """A picture of another version is refused with what to do."""
    dashboard, url = board
    dashboard.picture = picture(version=2)
    with pytest.raises(Impossible, match="version 2 of the picture, and this command understands 1"):
        ask_picture(remote_of(url))


def test_what_is_refused_is_said(board):
    """A question about what is not there."""
    _, url = board
    with pytest.raises(Impossible, match=r"refused \(404\): there is no such resource"):
        asked(remote_of(url), "/api/guards/nobody")
