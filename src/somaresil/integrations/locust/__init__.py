"""Locust with figures that can decide: waits that keep their timetable, streams measured by the token, and a judgement in the exit code.

::

    # locustfile.py
    from locust import task
    from somaresil.integrations.locust import SSEUser, Spike, constant_throughput, judge

    judge(thresholds={"p95": 2.0, "error_rate": 0.001, "answer": {"ttft_p95": 0.5}}, report="locust.json")

    class Shape(Spike):
        compress = 10

    class User(SSEUser):
        wait_time = constant_throughput(1)

        @task
        def answer(self):
            self.stream("/v1/llm/invoke/stream?prompt=hello", name="answer", end="done")

Needs ``pip install "somaresil[locust]"``. Importing this imports Locust, and that makes the whole process one of gevent: it belongs into
locustfiles.
"""

from __future__ import annotations

from somaresil.integrations._locust_pace import constant_pacing, constant_throughput, poisson
from somaresil.integrations.locust._judge import Judge, judge
from somaresil.integrations.locust._shapes import Baseline, RampToCapacity, ScenarioShape, Soak, Spike, Stress
from somaresil.integrations.locust._sse import SSEUser

__all__ = [
    "Baseline",
    "Judge",
    "RampToCapacity",
    "SSEUser",
    "ScenarioShape",
    "Soak",
    "Spike",
    "Stress",
    "constant_pacing",
    "constant_throughput",
    "judge",
    "poisson",
]
