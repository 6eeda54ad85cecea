"""Weights for a real HAProxy: set while it runs, kept over a reload."""

from __future__ import annotations

import os
import signal
import threading
import time

import pytest

from somaresil.canary.render.proxies import haproxy_rules
from somaresil.canary.router import RouterError, TrafficRouter
from somaresil.integrations.haproxy import HAProxyWeights
from tests.integration.routing import HAProxy, asked, find, load, upstream

pytestmark = pytest.mark.server


@pytest.fixture
def haproxy(tmp_path):
    """Give a factory of running HAProxies whose candidate has nothing."""
    binary = find("haproxy")
    if binary is None:
        pytest.skip("haproxy is not installed: `apt-get install haproxy`, or run `nox -s tests` as root")
    weights = tmp_path / "canary.map"
    HAProxyWeights(weights, name="answer", socket=None).start("v2")
    with upstream("old") as old, upstream("new") as new:
        running = []

        def start(key=None, **options):
            lines = haproxy_rules(str(weights), "answer", "stable", "candidate", key)
            server = HAProxy(folder=tmp_path / "haproxy", binary=binary, stable=old, candidate=new, rules=lines, **options)
            server.start()
            running.append(server)
            server.weights = weights
            server.router = HAProxyWeights(weights, name="answer", socket=server.socket)
            return server

        try:
            yield start
        finally:
            for server in running:
                server.stop()


def test_shares_are_those_that_were_set(haproxy):
    """None, a tenth, a half and all of the requests, with connections that are kept."""
    server = haproxy()
    router = server.router
    assert isinstance(router, TrafficRouter)
    router.start("v2")
    assert asked(server.port, 200) == {"old": 200}
    router.set_weight(0.1)
    assert 60 <= asked(server.port, 1_000)["new"] <= 145
    router.set_weight(0.5)
    assert 430 <= asked(server.port, 1_000)["new"] <= 570
    router.promote()
    assert asked(server.port, 200) == {"new": 200}
    assert (router.status().weight, router.status().phase) == (1.0, "Promoted")
    router.abort("too many errors")
    assert asked(server.port, 200) == {"old": 200}


def test_a_reload_keeps_the_share_and_loses_no_request(haproxy):
    """HAProxy reads the file anew, and has what it had."""
    server = haproxy()
    server.router.set_weight(0.5)
    with load(server.port) as total:
        before = server.worker()
        deadline, again = time.monotonic() + 30, 0.0
        seen = []
        # The old process answers for a while beside the new one, and a master that has just started may miss a signal.
        while len(seen) < 5 and time.monotonic() < deadline:
            if not seen and time.monotonic() >= again:
                os.kill(server.pid, signal.SIGUSR2)
                again = time.monotonic() + 3.0
            worker = server.worker()
            seen = [] if worker in {before, None} else [*seen, worker]
            threading.Event().wait(0.02)
        assert len(seen) == 5
        answered = sum(total.values())
        while sum(total.values()) < answered + 50 and time.monotonic() < deadline:
            threading.Event().wait(0.02)
    assert set(total) == {"old", "new"}
    assert 430 <= asked(server.port, 1_000)["new"] <= 570
    assert server.router.status().weight == 0.5
    server.router.set_weight(0.0)
    assert asked(server.port, 100) == {"old": 100}


def test_a_user_stays_with_the_candidate_as_its_share_grows(haproxy):
    """Sticky by a header."""
    server = haproxy(key="req.hdr(x-user)")

    def new():
        return {number for number in range(60) if asked(server.port, 2, headers={"X-User": f"user-{number}"})["new"] == 2}

    server.router.set_weight(0.2)
    few = new()
    server.router.set_weight(0.6)
    assert few
    assert few < new() < set(range(60))


def test_what_somebody_else_has_set_is_seen_and_mended(haproxy):
    """The status is HAProxy's; telling the same share again corrects it; an entry that is gone means no traffic."""
    server = haproxy()
    server.router.set_weight(0.5)
    server.router._say(str(server.socket), f"set map {server.weights} answer 100")
    assert server.router.status().weight == 0.01
    server.router.set_weight(0.5)
    assert server.router.status().weight == 0.5
    server.router._say(str(server.socket), f"clear map {server.weights}")
    assert server.router.status().weight == 0.0
    server.router.set_weight(0.5)
    assert server.router.status().weight == 0.5


def test_a_socket_that_does_not_obey_is_an_error(haproxy, tmp_path):
    """Nobody there, or a map that it does not use: the file is what it was, unless traffic was to be taken away."""
    server = haproxy()
    server.router.set_weight(0.25)
    before = server.weights.read_bytes()
    with pytest.raises(RouterError, match="is HAProxy running"):
        HAProxyWeights(server.weights, name="answer", socket=tmp_path / "absent").set_weight(0.5)
    with pytest.raises(RouterError, match="does its configuration use it"):
        HAProxyWeights(server.weights, name="answer", socket=server.socket, map_file="/other.map").set_weight(0.5)
    assert server.weights.read_bytes() == before
    with pytest.raises(RouterError, match="is HAProxy running"):
        HAProxyWeights(server.weights, name="answer", socket=tmp_path / "absent").abort("it fails")
    assert server.weights.read_text(encoding="utf-8").endswith("\nanswer 0\n")
    assert server.router.status().weight == 0.25
