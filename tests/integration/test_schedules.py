"""Several processes, one real Redis: one leads, each occurrence runs once, and without Redis nothing runs."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from somaresil import ConfigurationError, Resilience
from somaresil.events import LeadershipChanged, SharedStateLost, SharedStateRestored
from somaresil.gameday import Schedule, Scheduler

if TYPE_CHECKING:
    from tests.integration.servers import Redis

redis = pytest.importorskip("redis")
RedisLeader = pytest.importorskip("somaresil.integrations.redisleader").RedisLeader

LEASE = 1.0

# A process of the fleet: it writes down what it runs, and when it leads.
MEMBER = """
import asyncio, json, os, sys, time
import redis.asyncio
from somaresil import Resilience
from somaresil.events import LeadershipChanged
from somaresil.gameday import Schedule, Scheduler
from somaresil.integrations.redisleader import RedisLeader

url, log, lease = sys.argv[1], os.open(sys.argv[2], os.O_WRONLY | os.O_APPEND), float(sys.argv[3])

def say(**what):
    os.write(log, (json.dumps({"pid": os.getpid(), "at": time.monotonic(), **what}) + "\\n").encode())

async def main():
    resilience = Resilience("fleet", environment="test")
    resilience.chaos.opt_in()
    resilience.on(lambda event: say(leads=event.leads, fence=event.fence), LeadershipChanged)
    async with redis.asyncio.Redis.from_url(url, socket_timeout=1.0) as client:
        scheduler = Scheduler(resilience, leader=RedisLeader(client, "fleet", lease=lease), look_every=0.1)
        async def run():
            say(ran=scheduler.history("often")[-1].occurrence)
        scheduler.add(Schedule("often", "* * * * * *", missed="run_once", starting_deadline=30.0, longest=5.0), run)
        async with scheduler:
            say(ready=True)
            await asyncio.to_thread(sys.stdin.read)

asyncio.run(main())
"""


@pytest.fixture(autouse=True)
def allowed(monkeypatch):
    """Allow chaos in the environment."""
    monkeypatch.setenv("SOMARESIL_CHAOS", "1")
    monkeypatch.delenv("SOMARESIL_ENVIRONMENT", raising=False)


class Fleet:
    """Five processes, and what they have written."""

    def __init__(self, server: Redis, folder) -> None:
        self.log = folder / "log"
        self.log.touch()
        command = [sys.executable, "-c", MEMBER, server.url, str(self.log), str(LEASE)]
        self.processes = [subprocess.Popen(command, stdin=subprocess.PIPE) for _ in range(5)]

    def lines(self, what: str) -> list[dict]:
        return [line for line in map(json.loads, self.log.read_text().splitlines()) if what in line]

    def wait(self, condition, patience: float = 20.0) -> None:
        until = time.monotonic() + patience
        while not condition():
            assert time.monotonic() < until, self.log.read_text()
            time.sleep(0.02)

    def leader(self) -> int | None:
        """The process that leads, as the last lines say."""
        leads: dict[int, bool] = {line["pid"]: line["leads"] for line in self.lines("leads")}
        alive = {process.pid for process in self.processes if process.poll() is None}
        return next((pid for pid, yes in leads.items() if yes and pid in alive), None)

    def stop(self) -> None:
        for process in self.processes:
            if process.poll() is None:
                os.kill(process.pid, signal.SIGCONT)
            process.stdin.close()
        for process in self.processes:
            try:
                process.wait(10.0)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@pytest.mark.server
def test_five_processes_run_each_occurrence_once(redis_server, tmp_path):
    """Also when the leader is killed, when one that was stopped goes on as if it led, and when it goes away politely."""
    fleet = Fleet(redis_server, tmp_path)
    try:
        fleet.wait(lambda: len(fleet.lines("ready")) == 5 and len(fleet.lines("ran")) >= 2)
        victim = fleet.leader()
        assert victim is not None
        killed = time.monotonic()
        os.kill(victim, signal.SIGKILL)
        next(process for process in fleet.processes if process.pid == victim).wait()
        fleet.wait(lambda: fleet.leader() is not None)
        taken = next(line for line in fleet.lines("leads") if line["at"] > killed)
        assert taken["fence"] > next(line for line in fleet.lines("leads") if line["pid"] == victim)["fence"]
        second = fleet.leader()
        fleet.wait(lambda: fleet.lines("ran")[-1]["pid"] == second)
        os.kill(second, signal.SIGSTOP)
        stopped = time.monotonic()
        fleet.wait(lambda: any(line["leads"] and line["at"] > stopped for line in fleet.lines("leads")))
        time.sleep(1.5)
        os.kill(second, signal.SIGCONT)
        # As many as it takes to see that nobody runs one twice: how long that is depends on the machine.
        fleet.wait(lambda: sum(line["pid"] != second and line["at"] > stopped for line in fleet.lines("ran")) >= 3)
        fleet.wait(lambda: len({line["ran"] for line in fleet.lines("ran")}) >= 5)
    finally:
        fleet.stop()
    ran = Counter(line["ran"] for line in fleet.lines("ran"))
    assert set(ran.values()) == {1}, ran
    fences = [line["fence"] for line in sorted(fleet.lines("leads"), key=lambda line: line["at"]) if line["leads"]]
    assert fences == sorted(fences)
    assert len(set(fences)) >= 3


class Member:
    """One scheduler of several in this process."""

    def __init__(self, url: str, ran: list, *, lease: float = LEASE, **options) -> None:
        self.resilience = Resilience("fleet", environment="test")
        self.resilience.chaos.opt_in()
        self.events: list = []
        self.resilience.on(self.events.append, LeadershipChanged, SharedStateLost, SharedStateRestored)
        self.client = redis.asyncio.Redis.from_url(url, socket_timeout=1.0)
        self.leader = RedisLeader(self.client, "fleet", lease=lease)
        self.scheduler = Scheduler(self.resilience, leader=self.leader, look_every=0.1)

        async def run():
            ran.append((self, self.scheduler.history("often")[-1].occurrence))

        self.scheduler.add(Schedule("often", "* * * * * *", longest=5.0, **options), run)

    def kinds(self) -> list:
        return [type(event).__name__ for event in self.events]

    async def __aenter__(self):
        await self.scheduler.start()
        return self

    async def __aexit__(self, *_):
        await self.scheduler.stop()
        await self.client.aclose()


async def until(condition, patience: float = 15.0) -> None:
    """Wait for something that happens elsewhere."""
    end = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < end
        await asyncio.sleep(0.02)


@pytest.mark.server
def test_one_that_stops_lets_another_lead_at_once(redis_server):
    """It gives the lease back; nobody waits for its end."""

    async def main():
        ran: list = []
        # It would last longer than anybody here waits.
        first, second = Member(redis_server.url, ran, lease=6.0), Member(redis_server.url, ran, lease=6.0)
        await first.scheduler.start()
        async with second:
            assert first.leader.leads
            assert not second.leader.leads
            assert second.scheduler.state == "waiting"
            await first.__aexit__()
            await until(lambda: second.leader.leads, patience=5.0)
            assert second.leader.fence > first.leader.fence
            await until(lambda: ran)
        assert not second.leader.leads
        assert second.kinds() == ["LeadershipChanged", "LeadershipChanged"]

    asyncio.run(main())


@pytest.mark.server
def test_a_split_brain_runs_an_occurrence_once(redis_server):
    """Two that both believe to lead: who does not hold the lease is told so when it claims, and who held it claims nothing twice."""

    async def main():
        ran: list = []
        async with Member(redis_server.url, ran) as first, Member(redis_server.url, ran) as second:
            second.leader._until = float("inf")
            assert (await second.leader.claim("often", "often@1", keep=60.0, exclusive=None)).reason == "lost"
            assert not second.leader.leads
            assert (await first.leader.claim("often", "often@1", keep=60.0, exclusive=None)).granted
            # An answer that was lost on its way is asked for again.
            assert (await first.leader.claim("often", "often@1", keep=60.0, exclusive=None)).granted
            await first.leader.stop()
            await until(lambda: second.leader.leads)
            assert (await second.leader.claim("often", "often@1", keep=60.0, exclusive=None)).reason == "taken"

    asyncio.run(main())


@pytest.mark.server
def test_one_run_at_a_time_holds_over_the_whole_fleet(redis_server):
    """Until it is done, or its time is over."""

    async def main():
        async with Member(redis_server.url, []) as member:
            claim, done = member.leader.claim, member.leader.done
            assert (await claim("long", "long@1", keep=60.0, exclusive=0.2)).granted
            assert (await claim("long", "long@2", keep=60.0, exclusive=0.2)).reason == "running"
            await done("long", "long@9")
            assert (await claim("long", "long@2", keep=60.0, exclusive=0.2)).reason == "running"
            await done("long", "long@1")
            assert (await claim("long", "long@2", keep=60.0, exclusive=0.2)).granted
            await asyncio.sleep(0.25)
            assert (await claim("long", "long@3", keep=60.0, exclusive=0.2)).granted

    asyncio.run(main())


@pytest.mark.server
def test_without_redis_nothing_runs(redis_server, caplog):
    """Told once, however long it lasts; when it is back, empty, one leads again with a higher fence and goes on."""

    async def main():
        ran: list = []
        async with Member(redis_server.url, ran) as member:
            await until(lambda: len(ran) >= 2)
            fence = member.leader.fence
            await asyncio.to_thread(redis_server.kill)
            await asyncio.sleep(LEASE + 0.2)
            before = len(ran)
            assert not member.leader.leads
            await asyncio.sleep(2.2)
            assert len(ran) == before
            assert member.kinds().count("SharedStateLost") == 1
            await asyncio.to_thread(redis_server.start)
            await until(lambda: len(ran) >= before + 2)
            assert member.leader.fence > fence
            assert member.kinds().count("SharedStateRestored") == 1
        assert len({occurrence for _, occurrence in ran}) == len(ran)

    asyncio.run(main())
    assert len([record for record in caplog.records if "cannot be asked for" in record.getMessage()]) == 1


@pytest.mark.server
def test_a_redis_that_hangs_is_one_that_is_not_there(redis_server):
    """It accepts what is sent and never answers: the lease runs out here too, and nothing waits for long."""

    async def main():
        ran: list = []
        async with Member(redis_server.url, ran) as member:
            await until(lambda: ran)
            os.kill(redis_server.pid, signal.SIGSTOP)
            try:
                await asyncio.sleep(LEASE + 0.6)
                before = len(ran)
                assert not member.leader.leads
                await asyncio.sleep(1.5)
                assert len(ran) == before
            finally:
                os.kill(redis_server.pid, signal.SIGCONT)
            await until(lambda: len(ran) > before)

    asyncio.run(main())


def test_what_is_no_leader_is_refused():
    """A client that blocks, a name that is none, a lease that is too short."""
    with pytest.raises(ConfigurationError) as caught:
        RedisLeader(redis.Redis(), "a b", lease=0.1, prefix="")
    assert [problem.path for problem in caught.value.problems] == [
        "RedisLeader.client",
        "RedisLeader.name",
        "RedisLeader.prefix",
        "RedisLeader.lease",
    ]
