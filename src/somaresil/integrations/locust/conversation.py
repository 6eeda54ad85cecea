"""A user of an agent service: messages, uploads and streamed answers, three to one to two.

It runs as it is against the gateway of ``python -m somaresil demo``; make a subclass, or a copy, for a service of yours::

    # locustfile.py
    from somaresil.integrations.locust import Baseline, judge
    from somaresil.integrations.locust.conversation import LIMITS, ConversationUser

    judge(thresholds=LIMITS)

    class Shape(Baseline):
        pass
"""

from __future__ import annotations

import os
from itertools import count
from typing import TYPE_CHECKING, Any, Final

from locust import task

from somaresil.integrations._locust_pace import constant_throughput
from somaresil.integrations.locust._sse import SSEUser

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["LIMITS", "ConversationUser"]

LIMITS: Final[Mapping[str, Any]] = {
    "p50": 0.5,
    "p95": 2.0,
    "p99": 5.0,
    # The model of the demo fails on purpose, and breaks off one stream in two hundred.
    "error_rate": 0.01,
    "truncated": 0.03,
    "events": {"ttft_p95": 2.0},
}
"""What ``somaresil load template`` is judged by too; an error rate of 0.001 for a service of yours."""
_TEXT: Final = b"All the load of the world fits into a file that says so often enough. "
_UPLOAD: Final = (_TEXT * 1000)[:65_536]
_SESSIONS: Final = 50


class ConversationUser(SSEUser):
    """A request a second, whatever became of the one before."""

    wait_time = constant_throughput(1.0)
    stream_timeout = 10.0
    numbers = count()

    def on_start(self) -> None:
        """Different in every test: a service that remembers what it has seen must not take this one for another."""
        self.run_id = os.urandom(4).hex()
        self.session = f"s{next(self.numbers) % _SESSIONS}"

    def _id(self) -> dict[str, str]:
        return {"x-request-id": f"{self.run_id}-{next(self.numbers)}"}

    @task(3)
    def message(self) -> None:
        """Ask."""
        body = {"session": self.session, "text": f"question {next(self.numbers)}"}
        self.client.post("/v1/session/message", json=body, headers=self._id(), name="message", timeout=10.0)

    @task(1)
    def upload(self) -> None:
        """Hand in a file of 64 KiB."""
        address = f"/v1/session/upload?session={self.session}"
        self.client.post(address, data=_UPLOAD, headers={"content-type": "text/plain"}, name="upload", timeout=10.0)

    @task(2)
    def events(self) -> None:
        """Read an answer as it is written."""
        self.stream("/v1/llm/invoke/stream?prompt=question", name="events", end="done", headers=self._id())
