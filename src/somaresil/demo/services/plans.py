"""What may be started from the dashboard: plans that somebody has approved. Each ends by itself."""

from __future__ import annotations

from typing import Final

from somaresil.chaos.plan import ChaosPlan, FaultWindow

__all__ = ["PLANS"]

PLANS: Final = {
    "slow model": ChaosPlan([FaultWindow("llm.stream", "latency", 0.0, 60.0, rate=0.2, delay=0.8)]),
    "model fails": ChaosPlan([FaultWindow("llm.stream", "error", 0.0, 45.0, rate=0.9, error="ConnectionError")]),
    "worker hangs": ChaosPlan([FaultWindow("worker.call", "latency", 0.0, 60.0, rate=0.25, delay=1.5)]),
    "memory is cut off": ChaosPlan([FaultWindow("memory.write", "error", 0.0, 45.0, error="ConnectionRefusedError")]),
    "one after the other": ChaosPlan(
        [
            FaultWindow("llm.stream", "latency", 0.0, 30.0, rate=0.3, delay=0.5),
            FaultWindow("memory.write", "error", 30.0, 20.0, rate=0.9, error="ConnectionError"),
            FaultWindow("worker.call", "error", 60.0, 20.0, rate=0.3),
        ]
    ),
}
"""By the names that operators see."""
