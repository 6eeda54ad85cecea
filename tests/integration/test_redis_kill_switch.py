"""The kill switch of a fleet in a real Redis: one process stops the others, the lever holds for all, and a lost Redis starts nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from somaresil import ChaosConfig, ConfigurationError, Resilience
from somaresil.events import SharedStateLost, SharedStateRestored
from tests.integration.servers import Redis

pytest.importorskip("redis")
RedisKillSwitch = pytest.importorskip("somaresil.integrations.killswitch").RedisKillSwitch
pytestmark = pytest.mark.server

PATIENCE = 20.0
OTHER = """
import sys
from somaresil import Resilience
from somaresil.integrations.killswitch import RedisKillSwitch

resilience = Resilience("fleet", environment="test")
with RedisKillSwitch(resilience, sys.argv[1]):
    assert getattr(resilience.chaos, sys.argv[2])()
"""


def until(seen) -> float:
    """Wait for it; how long that took."""
    began = time.monotonic()
    while not seen():
        assert time.monotonic() - began < PATIENCE, "it did not come true"
        threading.Event().wait(0.005)
    return time.monotonic() - began


@pytest.fixture
def make(monkeypatch, redis_server):
    """Make processes that obey the switch, all of them closed afterwards."""
    monkeypatch.setenv("SOMARESIL_CHAOS", "1")
    monkeypatch.setenv("SOMARESIL_CHAOS_SWITCH", "off")
    made = []

    def process(url=None):
        resilience = Resilience("fleet", environment="test")
        resilience.guard("dep")
        resilience.chaos.opt_in()
        made.append(RedisKillSwitch(resilience, url or redis_server.url))
        return resilience

    yield process
    for switch in made:
        switch.close()


def arm(resilience, **options):
    return resilience.chaos.arm(ChaosConfig("error", "dep", 1.0, 60.0, allow_overlap=True, **options))


def test_a_stop_reaches_every_process_long_before_the_end_of_a_lease(make):
    one, other = make(), make()
    run = arm(other)
    assert run.live
    assert one.chaos.stop_all()
    assert until(lambda: run.end_reason) < 10.0
    assert run.end_reason == "stop_all"
    assert arm(other).live


def test_so_does_one_from_a_process_that_runs_nothing(make, redis_server):
    run = arm(make())
    subprocess.run([sys.executable, "-c", OTHER, redis_server.url, "stop_all"], check=True, timeout=60)
    until(lambda: run.end_reason)


def test_the_lever_holds_for_the_fleet_and_for_those_that_come_later(make):
    one, other = make(), make()
    run = arm(other)
    one.chaos.engage("holiday", actor="alice")
    until(lambda: run.end_reason)
    for resilience in (one, other, make()):
        with pytest.raises(ConfigurationError, match="engaged by alice: holiday"):
            arm(resilience)
    assert other.chaos.disengage()
    assert arm(one).live


def test_while_redis_is_lost_nothing_starts_and_what_runs_goes_on(make, redis_server):
    resilience = make()
    events = []
    resilience.on(events.append, SharedStateLost, SharedStateRestored)
    run = arm(resilience)
    redis_server.kill()
    until(lambda: events)
    assert run.live
    with pytest.raises(ConfigurationError, match="switch"):
        arm(resilience)
    assert not resilience.chaos.stop_all()
    assert run.end_reason == "stop_all"
    with Redis(folder=redis_server.log.parent, port=redis_server.port):
        until(lambda: _tried(resilience))
        assert arm(resilience).live
        assert [type(event) for event in events[:2]] == [SharedStateLost, SharedStateRestored]


def _tried(resilience):
    try:
        arm(resilience).end()
    except ConfigurationError:
        return False
    return True


def test_a_redis_that_hangs_starts_nothing_and_keeps_nobody_for_long(make, redis_server):
    resilience = make()
    arm(resilience).end()
    os.kill(redis_server.pid, signal.SIGSTOP)
    try:
        began = time.monotonic()
        with pytest.raises(ConfigurationError, match="switch"):
            arm(resilience)
        assert time.monotonic() - began < 5.0
    finally:
        os.kill(redis_server.pid, signal.SIGCONT)


def test_a_redis_that_has_forgotten_everything_stops_what_runs(make, redis_server):
    one = make()
    one.chaos.stop_all()
    run = arm(one)
    assert one.chaos.safety.switches[0].read().stamp
    from redis import Redis as Client

    with Client.from_url(redis_server.url) as client:
        client.flushall()
    until(lambda: run.end_reason)


@pytest.mark.parametrize("options", [{"url": "http://x"}, {"prefix": ""}, {"poll": 5.0}])
def test_what_is_wrong_is_refused(options):
    given = {"url": "redis://localhost", **options}
    with pytest.raises(ConfigurationError, match=next(iter(options))):
        RedisKillSwitch(Resilience("x"), given.pop("url"), **given)
