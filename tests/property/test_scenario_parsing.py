"""Whatever a scenario file says, it is read or its problems are named; nothing else ever comes out."""

import contextlib

from hypothesis import given
from hypothesis import strategies as st

from somaresil.errors import ConfigurationError
from somaresil.load.http import Target
from somaresil.load.orders import Orders
from somaresil.load.scenario import Scenario, read_scenario

WORDS = st.sampled_from(["1m", "a", "/a", "sse", "{n}", "http://127.0.0.1/m"])
SCALARS = st.none() | st.booleans() | st.integers(-5, 10**6) | st.floats() | st.text(max_size=12) | WORDS
OF_REQUESTS = "name path weight kind method headers json body upload expect timeout end messages items size field filename"
OF_PARTS = "seconds rate to users to_users p95 error_rate ttft_p95 a file names metrics slos url token_env windows target start duration"
NAMES = st.sampled_from([*OF_REQUESTS.split(), *OF_PARTS.split()])
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=5), max_leaves=12)
OPTIONS = dict.fromkeys(["kind", "headers", "json", "upload", "messages", "expect", "items", "end", "timeout", "weight", "method"], VALUES)
REQUEST = st.fixed_dictionaries({"name": st.just("a"), "path": st.just("/a")}, optional=OPTIONS)
TOP = {
    "name": st.just("s") | VALUES,
    "target": st.just("http://127.0.0.1:1") | VALUES,
    "stages": st.just([{"seconds": 1, "rate": 5}]) | VALUES,
    "requests": st.lists(REQUEST, min_size=1, max_size=2) | VALUES,
}
OPTIONAL = dict.fromkeys(
    ["seed", "arrival", "preset", "users", "think", "max_in_flight", "timeout", "sessions", "thresholds", "slo", "server", "chaos"], VALUES
)


@given(st.fixed_dictionaries(TOP, optional=OPTIONAL))
def test_a_scenario_is_read_or_its_problems_are_named(data):
    """No mistake in a file is a traceback."""
    found = None
    with contextlib.suppress(ConfigurationError):
        found = read_scenario(data)
    assert found is None or isinstance(found, Scenario)
    if found is not None:
        # What was read can be made.
        order = Orders(found.requests, Target.of(found.target))(0)
        assert order.payload.data
