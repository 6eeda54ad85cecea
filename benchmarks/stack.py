"""What each policy costs a call that goes well, one added to the other, beside the pipelines of peers.

Each row is a guard around a coroutine function that returns its argument, with a breaker and one policy more than the row above; the last
is everything at once, in a request that has a deadline: rate limit, bulkhead, breaker, retry and a hedge that is armed and not used.
The peers' rows are their own compositions in their defaults. Times are over the bare function.
"""

from __future__ import annotations

from typing import Any

from _measure import BARE, Benchmark, Timing, awaits, ratio

from somaresil import Bulkhead, Hedge, RateLimit, Resilience

PACKAGES = ("somaresil", "nopanic", "pyresilience", "interlock-cb")
LIMIT = 10.0
ALL = "deadline, rate limit, bulkhead, breaker, retry, hedge armed"
NOPANIC = "nopanic compose(fallback, retry, breaker, timeout)"
PYRESILIENCE = "pyresilience retry, timeout, breaker, bulkhead"


async def aplain(value: Any) -> Any:
    return value


def other(*_args: Any, **_kwargs: Any) -> Any:
    return 0


def nopanic() -> Any:
    import nopanic

    return nopanic.compose(nopanic.fallback(other), nopanic.retry(), nopanic.circuit_breaker(), nopanic.timeout(LIMIT))(aplain)


def pyresilience() -> Any:
    import pyresilience as peer

    return peer.resilient(
        retry=peer.RetryConfig(),
        timeout=peer.TimeoutConfig(LIMIT),
        circuit_breaker=peer.CircuitBreakerConfig(),
        bulkhead=peer.BulkheadConfig(max_concurrent=10),
    )(aplain)


def rows(resilience: Resilience) -> dict[str, Any]:
    """A guard a row; the rate is far above what is called here."""
    options: dict[str, Any] = {
        "breaker": {"breaker": True},
        "breaker, retry": {"breaker": True, "retry": 3},
        "breaker, retry, fallback": {"breaker": True, "retry": 3, "fallback": other},
    }
    rate = RateLimit(1e9, per=1.0)
    hedge = {"hedge": Hedge(0.5), "idempotent": True}
    options |= {
        "breaker, timeout": {"breaker": True, "timeout": LIMIT},
        "breaker, bulkhead": {"breaker": True, "bulkhead": Bulkhead(8)},
        "breaker, rate limit": {"breaker": True, "rate_limit": rate},
        "breaker, hedge armed": {"breaker": True, **hedge},
        "rate limit, bulkhead, breaker, retry, timeout": {
            "breaker": True,
            "retry": 3,
            "bulkhead": Bulkhead(8),
            "rate_limit": rate,
            "timeout": LIMIT,
        },
        ALL: {"breaker": True, "retry": 3, "bulkhead": Bulkhead(8), "rate_limit": rate, **hedge},
    }
    return {name: resilience.guard(name.replace(", ", "-").replace(" ", "_"), **given)(aplain) for name, given in options.items()}


def measure(bench: Benchmark) -> None:
    ours = Resilience("bench", environment="staging", seed=1)
    cases = {BARE: aplain, **rows(ours), NOPANIC: bench.peer("nopanic", nopanic), PYRESILIENCE: bench.peer("pyresilience", pyresilience)}
    timing = Timing(awaits, cases)

    def ratios() -> list[Any]:
        return [
            ratio("everything, of nopanic's compose", timing.over(ALL), timing.over(NOPANIC), 0.35),
            ratio("everything, of pyresilience's stack", timing.over(ALL), timing.over(PYRESILIENCE), 0.10),
        ]

    # The whole table is measured within one request: the deadline is looked for, and found, at each call of ours.
    with ours.deadline(3_000.0):
        bench.measure([timing], 7.0, ratios)
    bench.tables.append(timing.table("a call that goes well, async, with a deadline"))


if __name__ == "__main__":
    benchmark = Benchmark(__doc__ or "", PACKAGES)
    measure(benchmark)
    benchmark.finish()
