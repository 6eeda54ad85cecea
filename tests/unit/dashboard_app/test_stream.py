"""The stream: one producer, slow viewers, and nothing while nobody looks."""

from __future__ import annotations

import asyncio
import json
import zlib
from contextlib import contextmanager

import pytest

from somaresil import SystemClock
from somaresil.dashboard import stream as streams
from somaresil.dashboard.stream import Frame, Hub, Pace
from somaresil.events import DefectFound
from somaresil.listeners import Listeners
from tests.unit.dashboard_app.kit import Listener, Stand, messages

pytestmark = pytest.mark.asyncio

QUICK = Pace(tick=0.02, soonest=0.01, look=0.002, heartbeat=0.05, patience=0.2, again=0.05)


class Scripted:
    """Sources that count what they are asked."""

    def __init__(self):
        self.version = 0
        self.asked = 0
        self.watchers = 0
        self.events_now = []
        self.broken = None
        self.size = 0

    @contextmanager
    def watching(self):
        self.watchers += 1
        try:
            yield
        finally:
            self.watchers -= 1

    async def picture(self):
        self.asked += 1
        if self.broken:
            raise self.broken
        return {"number": self.asked, "padding": "x" * self.size}

    async def events(self, after, *, kind, about, most):
        first = after
        found = [entry for entry in self.events_now if entry["id"] > first][:most]
        return {"events": found, "next": max([first, *(entry["id"] for entry in self.events_now)]), "lost": 3 if after == -1 else 0}


@pytest.fixture
def sources():
    return Scripted()


@pytest.fixture
def told():
    return []


@pytest.fixture
def hub(sources, told):
    listeners = Listeners()
    listeners.add(told.append)
    return Hub(sources, sources.picture, SystemClock(), listeners, QUICK)


def looks(hub, *, packs=False, after=None, known=None):
    """Somebody who looks at the hub by itself."""

    async def always():
        return True

    async def app(scope, receive, send):
        await hub.serve(receive, send, headers=[], packs=packs, after=after, known=known or always)

    return Listener(app)


async def test_all_look_at_one_picture(hub, sources):
    viewers = [looks(hub) for _ in range(20)]
    for viewer in viewers:
        await viewer.hears(lambda body: len(messages(body, "picture")) >= 3)
    assert sources.asked <= len(messages(viewers[0].body, "picture")) + 2
    numbers = [message["number"] for message in messages(viewers[0].body, "picture")]
    assert numbers == sorted(numbers)
    assert viewers[0].body.startswith(b"retry: 2000\n\n")
    for viewer in viewers:
        await viewer.leaves()


async def test_nothing_is_computed_while_nobody_looks(hub, sources):
    first = looks(hub)
    await first.hears(b"event: picture")
    assert (sources.watchers, len(hub)) == (1, 1)
    await first.leaves()
    await asyncio.wait_for(hub._producer, 5.0)
    assert (sources.watchers, len(hub)) == (0, 0)
    asked = sources.asked
    second = looks(hub)
    await second.hears(b"event: picture")
    assert sources.asked > asked
    await second.leaves()


async def test_something_of_note_comes_sooner(sources, told):
    hub = Hub(sources, sources.picture, SystemClock(), Listeners(), Pace(tick=60.0, soonest=0.01, look=0.002))
    viewer = looks(hub)
    await viewer.hears(lambda body: len(messages(body, "picture")) == 1)
    sources.version += 1
    await viewer.hears(lambda body: len(messages(body, "picture")) == 2)
    hub.hurry()
    await viewer.hears(lambda body: len(messages(body, "picture")) == 3)
    await viewer.leaves()


async def test_events_come_with_their_ids_and_once(hub, sources):
    sources.events_now = [{"id": 1, "text": "before"}]
    viewer = looks(hub)
    await viewer.hears(b"event: picture")
    sources.events_now += [{"id": 2, "text": "a\nb"}, {"id": 3, "text": "c"}]
    sources.version += 1
    body = await viewer.hears(b'"c"')
    await viewer.hears(lambda body: len(messages(body, "picture")) >= 4)
    assert [event["id"] for event in messages(viewer.body, "event")] == [2, 3]
    assert b"id: 2\nevent: event\n" in body
    await viewer.leaves()


async def test_who_comes_back_gets_what_he_has_missed(hub, sources):
    sources.events_now = [{"id": number} for number in range(1, 6)]
    viewer = looks(hub, after=3)
    await viewer.hears(b"event: picture")
    assert [event["id"] for event in messages(viewer.body, "event")] == [4, 5]
    await viewer.leaves()
    late = looks(hub, after=-1)
    await late.hears(b"event: picture")
    assert messages(late.body, "lost") == [{"lost": 3}]
    await late.leaves()


async def test_who_is_slow_gets_the_newest_picture_and_is_told_what_he_has_lost(sources):
    hub = Hub(sources, sources.picture, SystemClock(), Listeners(), Pace(tick=0.01, look=0.002, patience=60.0))
    slow, quick = looks(hub), looks(hub)
    await slow.hears(b"event: picture")
    slow.takes.clear()
    for number in range(1, 601):
        sources.events_now.append({"id": number})
        if number % 200 == 0:
            sources.version += 1
            await quick.hears(f'"id":{number}}}'.encode())
    pictures = len(messages(slow.body, "picture"))
    slow.takes.set()
    await slow.hears(b'"id":600}')
    await slow.hears(lambda body: len(messages(body, "picture")) > pictures + 1)
    ids = [event["id"] for event in messages(slow.body, "event")]
    lost = sum(each["lost"] for each in messages(slow.body, "lost"))
    assert len(ids) + lost == 600
    assert ids == sorted(ids)
    assert ids[-256:] == list(range(345, 601))
    assert [event["id"] for event in messages(quick.body, "event")] == list(range(1, 601))
    for viewer in (slow, quick):
        await viewer.leaves()


async def test_who_takes_nothing_is_sent_away_and_nobody_waits_for_him(hub):
    stalled, other = looks(hub), looks(hub)
    await stalled.hears(b"event: picture")
    stalled.takes.clear()
    await asyncio.wait_for(stalled.task, 10.0)
    assert (hub.stalled, len(hub)) == (1, 1)
    seen = len(messages(other.body, "picture"))
    await other.hears(lambda body: len(messages(body, "picture")) >= seen + 3)
    await other.leaves()
    assert other.sent[-1]["more_body"] is False


async def test_a_request_that_is_cancelled_by_somebody_else_is_cancelled(hub):
    viewer = looks(hub)
    await viewer.hears(b"event: picture")
    viewer.task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await viewer.task
    assert (hub.stalled, len(hub)) == (0, 0)


async def test_a_viewer_hears_something_now_and_then(sources):
    hub = Hub(sources, sources.picture, SystemClock(), Listeners(), Pace(tick=60.0, look=0.002, heartbeat=0.02))
    viewer = looks(hub)
    await viewer.hears(lambda body: body.count(b": \n\n") >= 3)
    await viewer.leaves()


async def test_who_is_no_longer_known_is_sent_away(hub):
    answers = iter([True, False])

    async def known():
        return next(answers)

    viewer = looks(hub, known=known)
    await asyncio.wait_for(viewer.task, 10.0)
    assert viewer.sent[-1] == {"type": "http.response.body", "body": b"", "more_body": False}
    assert next(answers, None) is None


async def test_a_picture_that_cannot_be_made_is_reported_and_tried_again(hub, sources, told):
    sources.broken = ValueError("no picture")
    viewer = looks(hub)
    while sources.asked < 3:
        await asyncio.sleep(0)
    sources.broken = None
    await viewer.hears(b"event: picture")
    assert [event.where for event in told if isinstance(event, DefectFound)] == ["dashboard stream"]
    await viewer.leaves()


async def test_compressed_streams_are_whole_for_everybody_although_they_are_compressed_once(hub, sources):
    """Each began at another time, and all get the same bytes."""
    sources.size = 200_000
    first = looks(hub, packs=True)
    await first.hears(lambda body: len(body) > 500)
    second, plain = looks(hub, packs=True), looks(hub)
    for viewer in (first, second):
        await viewer.hears(lambda body: len(messages(zlib.decompressobj(31).decompress(body), "picture")) >= 4)
        assert len(viewer.body) < 50_000
        read = messages(zlib.decompressobj(31).decompress(viewer.body), "picture")
        assert [message["number"] for message in read] == sorted(message["number"] for message in read)
    await plain.hears(b"event: picture")
    assert max(len(message.get("body", b"")) for message in plain.sent) <= 32_768
    for viewer in (first, second, plain):
        await viewer.leaves()


async def test_large_pictures_come_less_often():
    """Writing them down takes a twentieth of the time at most."""

    class Costly:
        now = 0.0

        def monotonic(self):
            self.now += 0.05
            return self.now

        async def asleep(self, seconds):
            pass

    hub = Hub(Scripted(), Scripted().picture, Costly(), Listeners(), Pace())
    assert await hub._show_picture() == pytest.approx(2.0)


async def test_everybody_goes_when_the_server_wants_to_end(hub, monkeypatch):
    """It waits for streams, which never end, and tells apps nothing before."""
    import signal

    class Server:
        should_exit = False

        def handle_exit(self, number, frame):
            raise AssertionError

    server = Server()
    monkeypatch.setattr(streams.signal, "getsignal", lambda number: server.handle_exit if number == signal.SIGTERM else signal.SIG_DFL)
    viewer = looks(hub)
    await viewer.hears(b"event: picture")
    assert not streams.server_leaves()
    server.should_exit = True
    await asyncio.wait_for(viewer.task, 10.0)
    assert viewer.sent[-1]["more_body"] is False


async def test_a_message_is_one_line_whatever_is_in_it():
    frame = Frame.of("event", {"text": "a\nb\r\u2028: data: x"}, 7)
    lines = frame.plain.decode().splitlines()
    assert lines[:2] == ["id: 7", "event: event"]
    assert json.loads(lines[2][6:]) == {"text": "a\nb\r\u2028: data: x"}
    with pytest.raises(ValueError, match="Out of range"):
        Frame.of("event", float("nan"))


async def test_more_viewers_than_may_are_asked_to_come_back():
    stand = Stand(clock=SystemClock(), most_viewers=2, pace=QUICK)
    viewers = [Listener(stand.app) for _ in range(2)]
    for viewer in viewers:
        await viewer.hears(b"event: picture")
    answer = await stand.get("/api/stream")
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
    assert stand.app.viewers == 2
    for viewer in viewers:
        await viewer.leaves()
    again = Listener(stand.app)
    await again.hears(b"event: picture")
    await again.leaves()
    stand.app.stop()


async def test_a_stream_says_what_proxies_and_browsers_need_to_know():
    stand = Stand(clock=SystemClock(), pace=QUICK)
    viewer = Listener(stand.app, headers=[(b"accept-encoding", b"gzip"), (b"last-event-id", b"\xff\x00")])
    await viewer.hears(lambda body: b"event: picture" in zlib.decompressobj(31).decompress(body))
    headers = dict(viewer.sent[0]["headers"])
    assert headers[b"content-type"] == b"text/event-stream"
    assert (headers[b"content-encoding"], headers[b"x-accel-buffering"], headers[b"vary"]) == (b"gzip", b"no", b"accept-encoding")
    assert b"no-transform" in headers[b"cache-control"]
    assert messages(zlib.decompressobj(31).decompress(viewer.body), "picture")[0]["plans"]
    stand.app.stop()
    await asyncio.wait_for(viewer.task, 10.0)
    assert stand.app.viewers == 0


async def test_what_is_done_is_seen_soon():
    stand = Stand(clock=SystemClock(), pace=Pace(tick=60.0, soonest=0.01, look=0.002))
    viewer = Listener(stand.app)
    await viewer.hears(b'"closed"')
    assert (await stand.post("/api/breakers/llm.invoke/trip", {})).status_code == 200
    await viewer.hears(b'"open"')
    await viewer.leaves()
    stand.app.stop()


async def test_the_end_of_the_server_is_the_end_of_the_app(stand):
    said = []
    waiting = [{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}]

    async def receive():
        return waiting.pop(0)

    async def send(message):
        said.append(message["type"])

    await stand.app({"type": "lifespan"}, receive, send)
    assert said == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
    await stand.app({"type": "websocket", "path": "/_soma/api/stream", "headers": []}, receive, send)
    assert said[-1] == "websocket.close"


async def test_a_stream_that_breaks_after_its_beginning_ends_and_is_reported(hub, sources, told):
    """Another answer would be one too many."""

    async def broken(after, **question):
        raise KeyError("no events")

    sources.events = broken
    viewer = looks(hub, after=1)
    await asyncio.wait_for(viewer.task, 10.0)
    assert [message["type"] for message in viewer.sent] == ["http.response.start"]
    assert [event.where for event in told if isinstance(event, DefectFound)] == ["dashboard stream"]


async def test_a_client_that_has_gone_while_it_is_told_something_is_no_defect(hub, told):
    sent = []

    async def send(message):
        sent.append(message)
        if len(sent) > 2:
            raise OSError("gone")

    async def receive():
        raise RuntimeError("so has the server")

    async def known():
        return True

    await asyncio.wait_for(hub.serve(receive, send, headers=[], packs=False, after=None, known=known), 10.0)
    assert (len(hub), told) == (0, [])


async def test_who_comes_after_the_end_is_asked_to_come_back(stand):
    stand.app.stop()
    answer = await stand.get("/api/stream")
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
