"""Which requests an experiment strikes, and which it never touches."""

from __future__ import annotations

import pytest

from somaresil import ChaosCeilings, ResilienceMiddleware
from tests.unit.chaos.kit import CUT, ERROR, LATENCY, Stand


@pytest.fixture
def stand():
    """A process with a middleware."""
    stand = Stand(ceilings=ChaosCeilings(protected_paths=("/admin/*",)))
    ResilienceMiddleware(None, stand.resilience)
    return stand


def test_requests_are_struck_by_path(stand):
    """A pattern over paths; guards are not touched."""
    run = stand.arm(ERROR, "http:/chat/*", status=502)
    struck, hit = stand.chaos.strike_request("/chat/7")
    assert struck is run
    assert hit.status == 502
    assert stand.chaos.strike_request("/items/7") is None
    assert stand.guard.switch.quiet
    assert run.injected == 1


@pytest.mark.parametrize(
    "path",
    [
        "/health",
        "/healthz",
        "/health/",
        "/health/ready",
        "/livez",
        "/live",
        "/live/",
        "/ready",
        "/readyz",
        "/startup",
        "/ping",
        "/ping/",
        "/metrics",
        "/metrics/",
        "/-/healthy",
        "/_soma/stop",
        "/v1/health",
        "/internal/metrics",
        "/admin/users",
    ],
)
def test_protected_paths_are_never_struck(stand, path):
    """Health, readiness, metrics and control routes, and those named at opt-in; behind a root path too, as servers write it."""
    stand.arm(ERROR, "http:*")
    assert stand.chaos.strike_request(path) is None
    assert stand.chaos.strike_request(f"/api{path}", "/api") is None
    assert stand.chaos.strike_request("/chat") is not None


def test_a_root_path_is_no_part_of_the_target(stand):
    """The same experiment means the same routes wherever the app is mounted; the full path may be named as well."""
    stand.arm(ERROR, "http:/chat")
    assert stand.chaos.strike_request("/api/chat", "/api") is not None
    assert stand.chaos.strike_request("/api/chat") is None
    stand.chaos.stop_all()
    stand.arm(ERROR, "http:/api/chat")
    assert stand.chaos.strike_request("/api/chat", "/api") is not None


def test_the_root_itself_may_be_struck(stand):
    """Also when the server leaves nothing of its path."""
    stand.arm(ERROR, "http:/")
    assert stand.chaos.strike_request("/") is not None
    assert stand.chaos.strike_request("/api", "/api") is not None


def test_the_first_experiment_that_hits_is_the_one(stand):
    """A request has one answer."""
    first = stand.arm(ERROR, "http:/x", rate=0.0)
    second = stand.arm(LATENCY, "http:/x")
    third = stand.arm(ERROR, "http:/x")
    assert stand.chaos.strike_request("/x")[0] is second
    assert (first.injected, second.injected, third.injected) == (0, 1, 0)


def test_stopping_leaves_the_middleware_alone(stand):
    """It looks at one tuple, and that is empty again; after the lease, with the next request."""
    run = stand.arm(ERROR, "http:/x")
    assert stand.chaos.http == (run,)
    stand.chaos.stop(run)
    assert stand.chaos.http == ()
    stand.arm(ERROR, "http:/x", duration=5.0)
    stand.clock.advance(5.0)
    assert stand.chaos.strike_request("/x") is None
    assert stand.chaos.http == ()


def test_a_response_to_be_cut_counts_when_it_is_cut(stand):
    """One that is shorter is not struck at all."""
    run = stand.arm(CUT, "http:/x", after_items=3, max_injections=1)
    for _ in range(3):
        assert stand.chaos.strike_request("/x")[1].body is not None
    assert run.injected == 0
    assert run.claim()
    assert not run.claim()
    assert (run.injected, run.end_reason) == (1, "used up")


def test_a_guard_added_later_is_not_armed_by_an_experiment_on_requests(stand):
    """Whatever its name."""
    stand.arm(ERROR, "http:*")
    assert stand.resilience.guard("http:x").switch.quiet


@pytest.mark.parametrize(("path", "root"), [("/apiary/7", "/api"), ("/api/chat", "/ap")])
def test_a_root_path_ends_at_a_slash(stand, path, root):
    """What only begins with the same letters is not behind the root path."""
    stand.arm(ERROR, "http:" + path.removeprefix(root))
    assert stand.chaos.strike_request(path, root) is None


def test_a_root_path_may_end_in_a_slash(stand):
    """The health route behind it is still protected."""
    stand.arm(ERROR, "http:*")
    assert stand.chaos.strike_request("/api/health", "/api/") is None
