"""The rights that the page for operators gives a service in Redis are enough for it, and reach no further than its own keys."""

import re
import shlex
from pathlib import Path
from queue import SimpleQueue

import pytest

from somaresil import CircuitBreaker, Resilience

redis = pytest.importorskip("redis")

PAGE = Path(__file__).resolve().parents[2] / "docs" / "operations" / "redis.md"


@pytest.fixture
def url(redis_server):
    """As the user whom the command of the page makes."""
    (command,) = re.findall(r"^\$ redis-cli (ACL SETUSER .+)$", PAGE.read_text(), re.MULTILINE)
    with redis.Redis.from_url(redis_server.url) as admin:
        assert admin.execute_command(*shlex.split(command))
    return redis_server.url.replace("redis://", "redis://gateway:a-long-secret@")


def test_circuits_are_shared_and_the_switch_is_read_with_these_rights(url):
    """A transition in one process is followed in the other; the lever is written and read."""
    from somaresil.events import BreakerChanged
    from somaresil.integrations.killswitch import RedisKillSwitch
    from somaresil.integrations.redis import share

    first, second = (Resilience("gateway", instance=name, environment="staging") for name in ("a", "b"))
    seen = SimpleQueue()
    second.on(seen.put, BreakerChanged)
    for each in (first, second):
        each.guard("llm.invoke", breaker=CircuitBreaker())
    with share(first, url) as mine, share(second, url) as theirs, RedisKillSwitch(first, url) as switch:
        assert mine.wait(10.0)
        assert theirs.wait(10.0)
        first.breaker("llm.invoke").trip(30.0)
        assert seen.get(timeout=20.0).cause == "fleet_opened"
        switch.move_lever(True)
        switch.prepare()
        assert switch.read().engaged


def test_other_keys_are_out_of_reach(url):
    """Those of another service, and the administration of the server."""
    with redis.Redis.from_url(url) as service:
        assert service.set("somaresil:{gateway}:circuit:x", "1")
        for forbidden in (("SET", "somaresil:{billing}:circuit:x", "1"), ("FLUSHALL",), ("CONFIG", "GET", "*"), ("KEYS", "*")):
            with pytest.raises(redis.exceptions.NoPermissionError):
                service.execute_command(*forbidden)
