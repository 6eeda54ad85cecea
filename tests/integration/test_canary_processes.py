"""A canary whose process is killed in the middle of a ramp, and two processes with one canary."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from contextlib import ExitStack, contextmanager
from datetime import timedelta

import pytest

from somaresil import SLO, CanaryConfig, CanaryController, Resilience

pytestmark = pytest.mark.slow

SERVICE = """
import json, sys
from datetime import timedelta
from pathlib import Path
from somaresil import SLO, Resilience
from somaresil.canary import CanaryConfig, CanaryController
from somaresil.canary.router import RouterStatus

class Router:
    # A load balancer that reads its share from a file, and another one with all orders.

    steps = True
    path = Path(sys.argv[1]).with_name("share")

    def order(self, word, share=None):
        with self.path.with_name("orders").open("a") as orders:
            print(word, "" if share is None else share, file=orders)
        if share is not None:
            self.path.write_text(str(share))

    def start(self, version):
        self.order("start")

    def set_weight(self, share):
        self.order("weight", share)

    def suspend(self):
        self.order("suspend")

    def resume(self):
        self.order("resume")

    def promote(self):
        self.order("promote", 1.0)

    def abort(self, reason):
        self.order("abort", 0.0)

    def status(self):
        return RouterStatus("", float(self.path.read_text()))

resilience = Resilience("service", seed=7)
resilience.slos.add(SLO("up", 95.0, timedelta(days=1)))
config = CanaryConfig(name="answer", bad="up", steps=[10, 50, 100], bake=3_600.0, interval=0.05, allowed=None)
controller = CanaryController(resilience, config, snapshot=sys.argv[1], router=Router())
controller.start("v2")

def tell():
    status = controller.status()
    found = status.finding
    counts = [found.counts.candidate_good, found.counts.candidate_bad, found.counts.control_good, found.counts.control_bad]
    print(json.dumps([status.phase, status.weight, status.leads, counts, found.worse, found.not_much_worse]), flush=True)

tell()
for line in sys.stdin:
    word = line.strip()
    if word == "promote":
        controller.promote()
    elif word == "look":
        controller.evaluate()
    elif word == "traffic":
        for number in range(200):
            controller.note(controller.choose(), bad=number % 40 == 0)
    elif word == "break":
        for number in range(200):
            side = controller.choose()
            controller.note(side, bad=side.candidate)
    tell()
"""


class Service:
    """A process that does what it is told, and says how it stands."""

    def __init__(self, process):
        self.process = process
        self.status = json.loads(process.stdout.readline())

    def tell(self, *words):
        for word in words:
            self.process.stdin.write(f"{word}\n".encode())
            self.process.stdin.flush()
            self.status = json.loads(self.process.stdout.readline())
        return self.status

    def kill(self):
        self.process.kill()
        self.process.wait(timeout=30)


@contextmanager
def service(path):
    with subprocess.Popen([sys.executable, "-c", SERVICE, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            yield Service(process)
        finally:
            process.kill()


def test_a_process_that_is_killed_in_the_middle_of_a_ramp_goes_on_at_the_same_weight_with_the_same_evidence(tmp_path):
    """Three times in a row; and a rollback outlives it too. The router is told everything once."""
    path = tmp_path / "answer.json"
    orders = tmp_path / "orders"
    with service(path) as first:
        assert first.status[:3] == ["ramp_10", 0.1, True]
        before = first.tell("traffic", "promote", "traffic", "look")
        assert before[:2] == ["ramp_50", 0.5]
        assert sum(before[3]) == 400
        first.kill()
    for _ in range(3):
        with service(path) as again:
            assert again.status == before
            assert again.tell("look") == before
            again.kill()
    assert orders.read_text().split() == ["start", "weight", "0.1", "weight", "0.5"]
    with service(path) as last:
        assert last.tell("break", "look")[:2] == ["rollback", 0.0]
        last.kill()
    with service(path) as after:
        assert after.status[:2] == ["rollback", 0.0]
        after.tell("look")
    assert orders.read_text().split()[5:] == ["abort", "0.0"]


def test_of_two_processes_one_leads_and_the_other_one_when_that_is_killed(tmp_path):
    """It goes on where the first one was, with the evidence of both, and the router does not notice."""
    path = tmp_path / "answer.json"
    with ExitStack() as running:
        first = running.enter_context(service(path))
        second = running.enter_context(service(path))
        assert (first.status[2], second.status[2]) == (True, False)
        assert second.tell("promote")[:2] == ["ramp_10", 0.1]
        first.tell("traffic", "promote", "look")
        assert second.tell("traffic", "look")[:3] == ["ramp_50", 0.5, False]
        first.kill()
        assert (tmp_path / "orders").read_text().split() == ["start", "weight", "0.1", "weight", "0.5"]
        taken = second.tell("look")
        assert taken[:3] == ["ramp_50", 0.5, True]
        assert sum(taken[3]) == 400
        third = running.enter_context(service(path))
        assert third.status[:3] == ["ramp_50", 0.5, False]


@pytest.mark.server
def test_the_leader_of_a_fleet_in_redis_leads_its_canary(redis_server, tmp_path):
    """One of two hosts moves it; when that one stands down the other one goes on."""
    redis = pytest.importorskip("redis")
    from somaresil.integrations.redisleader import RedisLeader

    def host(client):
        resilience = Resilience("fleet", environment="test")
        resilience.slos.add(SLO("up", 95.0, timedelta(days=1)))
        leader = RedisLeader(client, "fleet", lease=1.0)
        config = CanaryConfig(name="answer", bad="up", steps=[10, 50, 100], bake=3_600.0, interval=None)
        return resilience, leader, CanaryController(resilience, config, snapshot=tmp_path / "answer.json", leader=lambda: leader.leads)

    async def go():
        async with redis.asyncio.Redis.from_url(redis_server.url) as client:
            hosts = [host(client), host(client)]
            for resilience, leader, controller in hosts:
                await leader.start(resilience, lambda: None)
                await controller.start_canary("v2")
            (_, first, one), (_, second, two) = hosts
            try:
                assert (one.leads, two.leads) == (True, False)
                one.promote()
                assert two.promote().reason == "another process leads"
                await two.evaluate_phase()
                assert (one.weight, two.weight) == (0.5, 0.5)
                await first.stop()
                async with asyncio.timeout(20.0):
                    while not second.leads:
                        await asyncio.sleep(0.01)
                await one.evaluate_phase()
                await two.evaluate_phase()
                assert (one.leads, two.leads, two.promote().status.weight) == (False, True, 1.0)
            finally:
                await first.stop()
                await second.stop()

    asyncio.run(go())
