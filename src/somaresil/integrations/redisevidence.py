"""The evidence of pods through Redis: each writes what it has seen, the judge reads all of it.

    evidence = RedisEvidence("redis://localhost:6379/0", "gateway")
    EvidenceTeller(resilience, bad="availability", to=[evidence])                       # in each pod
    FleetJudge(resilience, name="gateway", bad="availability", sources=[evidence])      # in the judge

Keys (``P`` is the prefix, ``N`` the name; all of a fleet lie in one slot of a cluster): ``P:{N}:evidence:<instance>`` has the telling of a
process and ends ``keep`` seconds after it was written, ``P:{N}:evidence`` is a sorted set of the processes by when they have written, of
which the last 256 are kept. A pod that is gone is missing until its key has ended.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from somaresil.canary.fleet import MOST_PODS, Absent, Reading, Told
from somaresil.config import Checker
from somaresil.integrations.redis import redis_client

if TYPE_CHECKING:
    from datetime import timedelta

__all__ = ["RedisEvidence"]

_LARGEST: Final = 65_536


class RedisEvidence:
    """Both ends: called with a telling it writes that, :meth:`read` gives those of all.

    An answer of Redis is waited for for a second. Raises :class:`~somaresil.errors.ConfigurationError`; when it is called, what the client
    of Redis raises.
    """

    instant = False
    role = ""

    def __init__(self, url: str, name: str, *, prefix: str = "somaresil", keep: float | timedelta = 60.0) -> None:
        """Nothing is asked yet."""
        check = Checker("RedisEvidence")
        check.name("name", name)
        check.name("prefix", prefix)
        self._keep = check.seconds("keep", keep, minimum=1.0, maximum=3_600.0)
        self._client: Any = redis_client(check, url)
        check.finish()
        self._key = f"{prefix}:{{{name}}}:evidence"

    def __repr__(self) -> str:
        """Where it is."""
        return f"<RedisEvidence {self._key}>"

    def __call__(self, telling: dict[str, Any]) -> None:
        """Write what a process has seen."""
        text, instance, keep = json.dumps(telling, allow_nan=False), str(telling["instance"]), int(self._keep * 1_000)
        with self._client.pipeline(transaction=True) as steps:
            steps.set(f"{self._key}:{instance}", text, px=keep)
            steps.zadd(self._key, {instance: float(telling["time"])})
            steps.zremrangebyrank(self._key, 0, -MOST_PODS - 1)
            steps.pexpire(self._key, max(keep, 60_000))
            steps.execute()

    def read(self) -> Reading:
        """What all of them have written, and which of those that did is not to be read."""
        instances = [_text(each) for each in self._client.zrevrange(self._key, 0, MOST_PODS - 1)]
        if not instances:
            return Reading()
        told: list[Told] = []
        absent: list[Absent] = []
        gone: list[str] = []
        for instance, text in zip(instances, self._client.mget([f"{self._key}:{instance}" for instance in instances]), strict=True):
            if text is None:
                gone.append(instance)
                continue
            try:
                if len(text) > _LARGEST:
                    raise ValueError(instance)  # noqa: TRY301 - told as what is no JSON
                told.append(Told(json.loads(text), instance))
            except (ValueError, RecursionError):
                absent.append(Absent(instance, "what it wrote is no evidence"))
        if gone:
            self._client.zrem(self._key, *gone)
        return Reading(tuple(told), tuple(absent))


def _text(value: str | bytes) -> str:
    return value if isinstance(value, str) else value.decode("utf-8", "replace")
