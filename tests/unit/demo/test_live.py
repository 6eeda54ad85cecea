"""The parts of the live demo that need no process: doors, load, plans, and what it says."""

from __future__ import annotations

import asyncio
import json
import socket
import sys

import pytest

from somaresil import ChaosCeilings, Resilience
from somaresil.demo import DemoError
from somaresil.demo.live import LiveOptions, run
from somaresil.demo.live.main import Lines
from somaresil.demo.live.run import Place
from somaresil.demo.processes import HOST, _doors
from somaresil.demo.services.plans import PLANS


def close(doors):
    for door in doors:
        door.close()


def test_doors_are_on_one_port():
    """As many as were asked for, each a socket of its own."""
    doors = _doors(3, 0)
    try:
        assert len({door.getsockname() for door in doors}) == 1
        assert len({door.fileno() for door in doors}) == 3
    finally:
        close(doors)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the processes wait at one socket")
def test_connections_are_dealt_out():
    """No process is always the first: of many connections each door gets some."""
    doors = _doors(4, 0)
    clients = []
    try:
        for door in doors:
            door.settimeout(0)
        for _ in range(80):
            clients.append(socket.create_connection(doors[0].getsockname(), 5))
        taken = []
        for door in doors:
            count = 0
            while True:
                try:
                    door.accept()[0].close()
                except BlockingIOError:
                    break
                count += 1
            taken.append(count)
        assert sum(taken) == 80
        assert min(taken) > 0
    finally:
        close([*clients, *doors])


@pytest.mark.parametrize("shared", [False, True])
def test_a_port_that_is_taken_is_refused(shared):
    """Also when who has it would share it: half of the requests would go there."""
    with socket.socket() as other:
        if shared:
            other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        other.bind((HOST, 0))
        other.listen(1)
        with pytest.raises(OSError, match="in use"):
            close(_doors(2, other.getsockname()[1]))


def test_a_port_that_is_taken_is_said(monkeypatch):
    """With what to do, and nothing is left running."""
    with socket.socket() as other:
        other.bind((HOST, 0))
        other.listen(1)
        port = other.getsockname()[1]

        class View:
            def note(self, text): ...

        with pytest.raises(DemoError, match=rf"port {port} of 127.0.0.1 cannot be had: .*Choose another, or none"):
            asyncio.run(run.run(LiveOptions(port=port), View()))


def test_the_load_goes_on_with_other_requests_when_a_spell_is_over(monkeypatch):
    """Books that grow with the days are begun anew, and no spell is like the one before."""
    seen = []

    class Session:
        def __init__(self, scenario):
            seen.append(scenario)

        async def run(self):
            if len(seen) == 3:
                raise asyncio.CancelledError

    monkeypatch.setattr(run, "Session", Session)
    with pytest.raises(asyncio.CancelledError):
        asyncio.run(run._offer("http://127.0.0.1:1", LiveOptions(seed=-4, rate=7.0)))
    assert [scenario.seed for scenario in seen] == [4, 5, 6]
    assert {scenario.peak for scenario in seen} == {7.0}
    assert {request.kind for request in seen[0].requests} == {"http", "sse"}


def test_every_plan_may_be_started(monkeypatch):
    """Within the ceilings of the gateway, at guards that it has, and each ends within two minutes."""
    monkeypatch.setenv("SOMARESIL_CHAOS", "1")
    monkeypatch.setenv("SOMARESIL_CHAOS_SWITCH", "off")
    resilience = Resilience("gateway", environment="demo", seed=1)
    for name in ("worker.call", "llm.stream", "memory.write"):
        resilience.guard(name)
    resilience.chaos.opt_in(ChaosCeilings(duration=600.0, delay=5.0))
    for plan in PLANS.values():
        resilience.chaos.check_plan(plan)
        assert max(window.end for window in plan.windows) <= 120.0


def test_where_it_is_is_said_to_people_and_to_programs(capsys):
    """As lines with the command to look, or as one line of JSON with nothing around it."""
    place = Place("http://127.0.0.1:1/_soma/", "http://127.0.0.1:1", "you", "t" * 40, {"gateway-1": 7})
    Lines(as_json=False).ready(place)
    said = capsys.readouterr().out
    assert f"SOMARESIL_DASHBOARD_TOKEN={'t' * 40} python -m somaresil top http://127.0.0.1:1/_soma/" in said
    lines = Lines(as_json=True)
    lines.note("starting")
    lines.ready(place)
    told = capsys.readouterr()
    assert json.loads(told.out) == place.as_dict()
    assert told.err == "starting\n"
