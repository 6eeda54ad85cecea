"""Dashboards of other pods: asked in the background, believed only as far as can be checked, and waited for by nobody."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from somaresil import ConfigurationError, Resilience
from somaresil.clock import SystemClock
from somaresil.dashboard.sources import Sources

TOKEN = "a-token-of-peers"


class Pod:
    """A dashboard at an address, that answers as it is told."""

    def __init__(self):
        pod = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                pod.asked.append((self.path, dict(self.headers)))
                pod.answer(self)

            def log_message(self, *_):
                pass

        self.asked = []
        self.answer = lambda handler: handler.send_error(404)
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()
        self.address = f"http://127.0.0.1:{self._server.server_port}/_soma"

    def says(self, data, status=200, kind="application/json", **headers):
        body = data if isinstance(data, bytes) else json.dumps(data).encode()

        def answer(handler):
            handler.send_response(status)
            for name, value in {"content-type": kind, "content-length": str(len(body)), **headers}.items():
                handler.send_header(name, value)
            handler.end_headers()
            handler.wfile.write(body)

        self.answer = answer

    def close(self):
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def pod():
    made = Pod()
    yield made
    made.close()


def service(name="gateway", calls=0):
    resilience = Resilience(name, instance="pod")
    guard = resilience.guard("llm", breaker=True)
    for _ in range(calls):
        guard.call(int)
    return resilience


def portrait_of(calls, name="gateway"):
    return asyncio.run(Sources(service(name, calls)).own())


def look(sources, holds, seconds=20.0):
    """The first picture of which something holds; none takes long."""
    until = time.monotonic() + seconds
    while True:
        shown = asyncio.run(sources.picture())
        if holds(shown):
            return shown
        assert time.monotonic() < until, shown["sources"]
        sources._peers._peers = {place: _due(peer) for place, peer in sources._peers._peers.items()}


def _due(peer):
    if not peer.pending:
        peer.asked_at = float("-inf")
    return peer


def source(shown, kind="peer"):
    (found,) = [each for each in shown["sources"] if each["kind"] == kind]
    return found


def test_a_peer_is_added(pod):
    """Its calls count, it is named with its address, and the token goes to it."""
    pod.says(portrait_of(5))
    sources = Sources(service(calls=2), peers=[pod.address], token=TOKEN)
    shown = look(sources, lambda shown: source(shown)["state"] == "live")
    assert shown["guards"][0]["totals"]["good"] == 7
    assert shown["guards"][0]["states"] == {"closed": 2}
    assert source(shown)["address"] == pod.address
    path, headers = pod.asked[0]
    assert (path, headers["Authorization"]) == ("/_soma/api/picture?own=1", f"Bearer {TOKEN}")
    assert asyncio.run(sources.guard("llm"))["totals"]["good"] == 7


def test_the_first_picture_does_not_wait(pod):
    """Nor does any other: a peer that is slow is not there yet."""
    release = threading.Event()
    pod.answer = lambda _: release.wait(20.0)
    sources = Sources(service(), peers=[pod.address], token=TOKEN)
    begun = time.monotonic()
    shown = asyncio.run(sources.picture())
    assert time.monotonic() - begun < 1.5
    assert source(shown)["state"] == "missing"
    look(sources, lambda shown: "no answer within 2 s" in source(shown)["why"])
    release.set()


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ({"data": b"no"}, "JSON"),
        ({"data": {"version": 1}}, "something else"),
        ({"data": {"version": 7, "form": "portrait"}}, "another version"),
        ({"data": {"version": 1, "form": "portrait"}}, "not there"),
        ({"data": b"{}", "status": 302, "location": "http://127.0.0.1:1/"}, "status 302"),
        ({"data": b"{}", "status": 404}, "status 404"),
        ({"data": b"<html>", "kind": "text/html"}, "something else than JSON"),
        ({"data": b"[" * 100_000}, "Recursion"),
    ],
)
def test_what_a_peer_may_not_say(pod, said, why):
    """It is missing, with a word why; the page is there, and no redirect is followed."""
    pod.says(**said)
    sources = Sources(service(calls=1), peers=[pod.address], token=TOKEN)
    shown = look(sources, lambda shown: why in source(shown)["why"])
    assert source(shown)["state"] == "missing"
    assert shown["guards"][0]["totals"]["good"] == 1


def test_nobody_there(pod):
    """A port that nobody listens on is said to be one."""
    pod.close()
    sources = Sources(service(), peers=[pod.address], token=TOKEN)
    look(sources, lambda shown: "ConnectionRefusedError" in source(shown)["why"])


def test_a_peer_that_is_this_process_is_not_counted_twice(pod):
    """A name that stands for all pods stands for this one too."""
    sources = Sources(service(calls=3), peers=[pod.address], token=TOKEN)
    pod.says(asyncio.run(sources.own()))
    shown = look(sources, lambda shown: [each["kind"] for each in shown["sources"]] == ["self"])
    assert shown["guards"][0]["totals"]["good"] == 3


def test_another_service_and_another_time(pod):
    """Neither is added to what is shown."""
    sources = Sources(service(), peers=[pod.address], token=TOKEN)
    pod.says(portrait_of(3, name="worker"))
    look(sources, lambda shown: "another service" in source(shown)["why"])
    portrait = portrait_of(3)
    pod.says({**portrait, "at": portrait["at"] + 3_600.0})
    sources = Sources(service(), peers=[pod.address], token=TOKEN)
    look(sources, lambda shown: "its clock is 3600 s ahead" in source(shown)["why"])


def test_a_clock_that_differs_a_little_moves_nothing(pod):
    """Calls of a peer whose clock is 20 seconds ahead lie in the columns of now, and rates are those of a minute."""
    told = Resilience("gateway", instance="pod", clock=_Ahead())
    told.guard("llm").call(int)
    theirs = Sources(told)
    theirs.local.start()
    told.call("llm", int)
    theirs.local.history._since -= 30.0
    pod.says(asyncio.run(theirs.own()))
    sources = Sources(service(), peers=[pod.address], token=TOKEN)
    shown = look(sources, lambda shown: source(shown)["state"] == "live")
    assert abs(shown["at"] - time.time()) < 5.0
    assert shown["guards"][0]["window"] == pytest.approx(30.0, abs=5.0)
    assert abs(shown["columns"][-1] - time.time()) < 20.0
    theirs.stop()


class _Ahead(SystemClock):
    def time(self):
        return time.time() + 20.0


def test_a_name_stands_for_all_its_addresses(pod):
    """``dns+http`` looks it up, in the background too; one that is not known is said to be so."""
    pod.says(portrait_of(4))
    port = pod.address.rsplit(":", 1)[1]
    sources = Sources(service(), peers=[f"dns+http://localhost:{port}", "dns+http://nowhere.invalid:80/_soma"], token=TOKEN)
    shown = look(sources, lambda shown: any(each["state"] == "live" and each["kind"] == "peer" for each in shown["sources"]))
    assert shown["guards"][0]["totals"]["good"] == 4
    assert pod.asked[0][1]["Host"].startswith("localhost:")
    look(sources, lambda shown: any("not known" in each["why"] for each in shown["sources"]))


@pytest.mark.parametrize(
    ("peers", "token", "paths"),
    [
        ("http://a", TOKEN, ["dashboard.peers"]),
        (["ftp://a", "http://u:p@a/", "http://a?x=1", "http://", "http://a:99999"], TOKEN, [f"dashboard.peers[{n}]" for n in range(5)]),
        (["http://a b", 3, "http://a\n"], TOKEN, [f"dashboard.peers[{n}]" for n in range(3)]),
        (["http://a"], None, ["dashboard.peer_token"]),
        (["http://a"], "new\nline", ["dashboard.peer_token"]),
        (["http://a"], "", ["dashboard.peer_token"]),
        ([f"http://a:{n}" for n in range(1, 100)], TOKEN, ["dashboard.peers"]),
    ],
)
def test_wrong_addresses_are_refused(peers, token, paths):
    """All at once, and the token is not told."""
    with pytest.raises(ConfigurationError) as wrong:
        Sources(service(), peers=peers, token=token)
    assert [problem.path for problem in wrong.value.problems] == paths
    assert "new" not in str(wrong.value)
