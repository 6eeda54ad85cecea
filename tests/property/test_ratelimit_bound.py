"""The promise of a rate limit, read from outside: when calls begin, and what they cost.

In any t seconds a window lets in at most its burst and what refills in t, whatever the calls estimate, cost, wait or give back.
"""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from somaresil import ManualClock, RateLimit, RateLimited, RateWindow, Resilience, current_permit

calls = st.tuples(
    st.sampled_from([0.0, 0.0, 0.25, 1.0, 7.0, 40.0]),  # seconds before it comes
    st.sampled_from([0, 1, 3, 8]),  # tokens that are estimated
    st.sampled_from([0, 1, 3, 8, 20]),  # tokens that it takes
    st.sampled_from([0.0, 0.0, 0.5, 3.0]),  # seconds that it takes
    st.booleans(),  # whether it says how many tokens it has taken
)


@settings(max_examples=150)
@given(
    history=st.lists(calls, max_size=40),
    amount=st.sampled_from([2, 5]),
    burst=st.sampled_from([None, 1, 3]),
    waiting=st.booleans(),
)
def test_no_stretch_of_time_has_more_calls_or_tokens_than_it_should(history, amount, burst, waiting):
    """Tokens that were admitted, that is; what a call takes beyond its estimate is a debt, and the calls after it are fewer for it."""
    clock = ManualClock()
    windows = (RateWindow("tokens", 10, per=5.0, cost=lambda estimate, real, lasts, says: estimate),)
    line = {"max_waiting": 5, "max_wait": 20.0} if waiting else {}
    guard = Resilience("shop", clock=clock).guard("pay", rate_limit=RateLimit(amount, per=4.0, burst=burst, windows=windows, **line))
    begun: list[tuple[float, float, float]] = []
    waits: list[float] = []
    debt = 0.0

    @guard
    def pay(estimate, real, lasts, says):
        nonlocal debt
        began = clock.monotonic()
        clock.advance(lasts)
        if says:
            current_permit().settle(tokens=real)
            debt += max(0, real - estimate)
        begun.append((began, 1.0, min(estimate, real) if says else estimate))

    for pause, *call in history:
        clock.advance(pause)
        try:
            pay(*call)
        except RateLimited as rejection:
            waits.append(rejection.retry_after)
    assert all(wait > 0.0 for wait in waits)
    for brim, rate, column in ((amount if burst is None else burst, amount / 4.0, 1), (10, 2.0, 2)):
        for first in range(len(begun)):
            total = 0.0
            for last in range(first, len(begun)):
                total += begun[last][column]
                assert total <= brim + rate * (begun[last][0] - begun[first][0]) + 1e-4
    used = sum(tokens for _, _, tokens in begun) + debt
    left = guard.rate_limit.available()["tokens"]
    assert left <= 10.0
    assert left >= 10.0 - used - 1e-6, "nothing is taken that nobody has used"
