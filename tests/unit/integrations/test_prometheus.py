"""The metrics of one process: right families, right numbers, bounded, and served whatever breaks."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import threading
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta

import pytest
from prometheus_client import REGISTRY, CollectorRegistry, Counter, generate_latest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from somaresil import (
    SLO,
    AdaptiveLimit,
    ChaosConfig,
    ChaosExperiment,
    CircuitBreaker,
    ConfigurationError,
    Endpoint,
    ManualClock,
    Outcome,
    RateLimit,
    RateWindow,
    Resilience,
    StaleCache,
)
from somaresil.canary import CanaryConfig, CanaryController
from somaresil.events import DefectFound, ResourceExhausted
from somaresil.integrations._families import FAMILIES, Histogram
from somaresil.integrations._readings import Reading, add_up
from somaresil.integrations.prometheus import MetricsApp, ResilienceCollector, install, metrics_app

OPENMETRICS = "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5"


@pytest.fixture
def clock():
    return ManualClock()


@pytest.fixture
def resilience(clock, monkeypatch):
    monkeypatch.delenv("PROMETHEUS_MULTIPROC_DIR", raising=False)
    return Resilience("service", clock=clock, seed=1, environment="test")


@pytest.fixture
def registry():
    return CollectorRegistry()


def fail(*_):
    raise ValueError


def fail_through(guard, times=1):
    for _ in range(times):
        with pytest.raises(ValueError, match=r"^$"):
            guard.call(fail)


def scrape(registry):
    """Give {(sample name, sorted labels): value}, read back from the text that is served; no sample may be there twice."""
    samples = [sample for family in parse_text(generate_latest(registry).decode()) for sample in family.samples]
    found = {(sample.name, *sorted(sample.labels.items())): sample.value for sample in samples}
    assert len(found) == len(samples)
    return found


def value(registry, name, **labels):
    return scrape(registry).get((name, *sorted(labels.items())))


def test_what_is_left_of_a_rate_limit_can_be_read(resilience, registry, clock):
    """By unit; a window in debt has nothing, and a guard without a limit has no row."""
    install(resilience, registry)
    guard = resilience.guard("llm", rate_limit=RateLimit(10, per=10.0, windows=(RateWindow("tokens", 100, per=10.0, cost=150),)))
    resilience.guard("other")
    guard.call(int)
    assert value(registry, "somaresil_rate_limit_available", guard="llm", unit="calls") == 9.0
    assert value(registry, "somaresil_rate_limit_available", guard="llm", unit="tokens") == 0.0
    assert value(registry, "somaresil_rate_limit_available", guard="other", unit="calls") is None
    clock.advance(10.0)
    assert value(registry, "somaresil_rate_limit_available", guard="llm", unit="tokens") == 50.0


def test_calls_are_counted_by_guard_outcome_and_injection(resilience, registry):
    """Each end of a call is one of them, and the two outcomes that a rate is made of are there from the start."""
    install(resilience, registry)
    guard = resilience.guard("llm.invoke", breaker=CircuitBreaker(consecutive_failures=2, failure_rate=None))
    assert value(registry, "somaresil_calls_total", guard="llm.invoke", outcome="bad", injected="false") == 0
    for _ in range(3):
        guard.call(int)
    fail_through(guard, 2)
    with pytest.raises(Exception, match="circuit open"):
        guard.call(int)
    with pytest.raises(KeyboardInterrupt):
        resilience.guard("other").call(lambda: (_ for _ in ()).throw(KeyboardInterrupt))
    found = {key[1:]: number for key, number in scrape(registry).items() if key[0] == "somaresil_calls_total" and number}
    assert {(dict(labels)["guard"], dict(labels)["outcome"]): number for labels, number in found.items()} == {
        ("llm.invoke", "good"): 3,
        ("llm.invoke", "bad"): 2,
        ("llm.invoke", "rejected"): 1,
        ("other", "abandoned"): 1,
    }


def test_durations_are_a_histogram_over_the_bounds_of_the_guard(resilience, clock, registry):
    """A threshold of an objective is a bucket, a bound belongs to its bucket, and calls that were not made are not in it."""
    resilience.slos.add(SLO("fast", 95.0, timedelta(days=7), latency=2.0))
    install(resilience, registry)
    guard = resilience.guard("db", slo="fast", breaker=CircuitBreaker(consecutive_failures=1))
    guard.call(clock.advance, 2.0)
    guard.call(clock.advance, 3.0)
    with pytest.raises(ValueError, match=r"^$"):
        guard.call(lambda: (clock.advance(20.0), fail()))
    with pytest.raises(Exception, match="circuit open"):
        guard.call(int)
    buckets = {
        le: value(registry, "somaresil_call_duration_seconds_bucket", guard="db", le=le) for le in ("1.0", "2.0", "2.5", "5.0", "+Inf")
    }
    assert buckets == {"1.0": 0, "2.0": 1, "2.5": 1, "5.0": 2, "+Inf": 3}


def test_a_sum_that_is_not_known_is_not_made_up(resilience, registry):
    """The guard's histogram has neither sum nor count, the ones whose sum is known have both."""
    install(resilience, registry)
    resilience.guard("db", breaker=True).call(int)
    names = {key[0] for key in scrape(registry)}
    assert "somaresil_call_duration_seconds_bucket" in names
    assert not names & {"somaresil_call_duration_seconds_sum", "somaresil_call_duration_seconds_count"}
    assert {"somaresil_recovery_seconds_sum", "somaresil_recovery_seconds_count"} <= names


def test_the_breaker_shows_one_state_and_counts_its_steps(resilience, clock, registry):
    """Exactly one state is 1; each step into a state is counted; the incident is in the recovery histogram when it is over."""
    install(resilience, registry)
    options = CircuitBreaker(consecutive_failures=1, failure_rate=None, open_duration=10.0, open_jitter=0.0, half_open_calls=1)
    guard = resilience.guard("db", breaker=options)
    fail_through(guard)

    def states():
        return {dict(key[1:])["state"]: number for key, number in scrape(registry).items() if key[0] == "somaresil_breaker_state"}

    assert {state for state, number in states().items() if number} == {"open"}
    assert sum(states().values()) == 1
    clock.advance(11.0)
    guard.call(int)
    assert {state for state, number in states().items() if number} == {"closed"}
    for state in ("open", "half_open", "closed"):
        assert value(registry, "somaresil_breaker_transitions_total", guard="db", to=state) == 1
    assert value(registry, "somaresil_recovery_seconds_bucket", guard="db", le="10.0") == 0
    assert value(registry, "somaresil_recovery_seconds_bucket", guard="db", le="30.0") == 1
    assert value(registry, "somaresil_recovery_seconds_sum", guard="db") == pytest.approx(11.0)


def test_injected_faults_are_counted_over_all_experiments(resilience, registry, monkeypatch):
    """By guard and kind, experiments of long ago included, and the calls that they touched are marked."""
    monkeypatch.setenv("SOMARESIL_CHAOS", "1")
    resilience.chaos.opt_in()
    install(resilience, registry)
    guard = resilience.guard("db")
    for _ in range(70):
        run = resilience.chaos.arm(ChaosConfig(ChaosExperiment.ERROR_INJECTION, "d*", 1.0, error=ValueError))
        fail_through(guard)
        resilience.chaos.stop(run)
    assert len(resilience.chaos.history) <= 64
    assert value(registry, "somaresil_faults_injected_total", component="db", fault="error") == 70
    assert value(registry, "somaresil_calls_total", guard="db", outcome="bad", injected="true") == 70


@pytest.fixture
def allowed(monkeypatch):
    """A process of the machine's clock that may be attacked, for the damage is real."""
    monkeypatch.setenv("SOMARESIL_CHAOS", "1")
    resilience = Resilience("tests", environment="test")
    resilience.chaos.opt_in()
    yield resilience
    resilience.chaos.stop_all(here_only=True)


def taken(resilience):
    """A pool of two connections of which an experiment has both."""
    free, all_taken = ["a", "b"], threading.Event()
    resilience.chaos.register_pool("db", checkout=free.pop, giveback=free.append, size=2)
    resilience.on(lambda _: all_taken.set(), ResourceExhausted)
    run = resilience.chaos.arm(ChaosConfig(ChaosExperiment.RESOURCE_EXHAUSTION, "resource:pool:db", 1.0, 60.0))
    assert all_taken.wait(20)
    return run


def test_a_resource_that_is_taken_is_shown_while_it_is_and_counted_when_it_is_given_back(allowed, registry):
    """What is there, how much is held, and why it ended; what is over stays with zero, so that nobody reads an old value."""
    install(allowed, registry)
    run = taken(allowed)
    labels = {"component": "resource:pool:db", "fault": "resource_exhaust"}
    assert value(registry, "somaresil_process_faults", **labels) == 1
    assert value(registry, "somaresil_resource_held", resource="resource:pool:db", unit="connections") == 2
    run.end("condition burn_rate(up) > 2")
    assert value(registry, "somaresil_process_faults", **labels) == 0
    assert value(registry, "somaresil_process_faults_released_total", **labels, reason="condition") == 1
    assert ("somaresil_resource_held" in {key[0] for key in scrape(registry)}) is False


def test_what_a_resource_experiment_measures_is_exported(allowed, registry):
    """By the names that its effect gives it."""
    install(allowed, registry)
    run = allowed.chaos.arm(ChaosConfig(ChaosExperiment.RESOURCE_EXHAUSTION, "resource:gil", 0.1, 60.0))
    assert value(registry, "somaresil_resource_effect", resource="resource:gil", measure="cpu_seconds") is not None
    assert value(registry, "somaresil_resource_held", resource="resource:gil", unit="threads") == 1
    run.end()


def test_a_partition_is_shown_while_it_lasts(allowed, registry):
    """It holds no resource; a dry run is not there at all."""
    install(allowed, registry)
    config = ChaosConfig(ChaosExperiment.NETWORK_PARTITION, "net:192.0.2.1:9", 1.0, 60.0)
    labels = {"component": "net:192.0.2.1:9", "fault": "network_partition"}
    allowed.chaos.arm(replace(config, dry_run=True, allow_overlap=True)).end()
    assert "somaresil_process_faults" not in {key[0] for key in scrape(registry)}
    run = allowed.chaos.arm(replace(config, allow_overlap=True))
    assert value(registry, "somaresil_process_faults", **labels) == 1
    run.end()
    assert value(registry, "somaresil_process_faults", **labels) == 0
    assert value(registry, "somaresil_process_faults_released_total", **labels, reason="stopped") == 1


def test_of_what_workers_have_measured_the_largest_counts():
    """A loop that was late in one worker is not later for there being two."""
    one, two = Reading(), Reading()
    for reading, late in ((one, 0.5), (two, 0.2)):
        reading.rows["somaresil_resource_effect"]["resource:gil", "loop_lag_max"] = late
        reading.rows["somaresil_resource_held"]["resource:gil", "threads"] = 1
    whole = add_up([one, two]).rows
    assert whole["somaresil_resource_effect"] == {("resource:gil", "loop_lag_max"): 0.5}
    assert whole["somaresil_resource_held"] == {("resource:gil", "threads"): 2}


def test_objectives_and_their_events_are_exported(resilience, clock, registry):
    """Good and bad as the objective sees them, and the objective without the dust of floating point."""
    resilience.slos.add(SLO("up", 99.9, timedelta(days=30)), SLO("fast", 95.0, timedelta(days=7), latency=2.0))
    install(resilience, registry)
    guard = resilience.guard("db", slo=["up", "fast"])
    guard.call(int)
    guard.call(clock.advance, 3.0)
    fail_through(guard)
    events = {
        slo: tuple(value(registry, "somaresil_sli_events_total", slo=slo, outcome=outcome) for outcome in ("good", "bad"))
        for slo in ("up", "fast")
    }
    assert events == {"up": (2, 1), "fast": (1, 2)}
    assert value(registry, "somaresil_slo_objective_ratio", slo="up") == 0.999


def test_events_of_an_objective_never_go_back(resilience, registry, monkeypatch):
    """An incident that ends is counted nowhere for a moment; to Prometheus a counter that falls would be a restart."""
    resilience.slos.add(SLO("recovery", 95.0, timedelta(days=30), recovery=300.0))
    install(resilience, registry)
    series = resilience.slos.series("recovery")
    seen = []
    for totals in ((4, 3), (4, 2), (5, 3)):
        monkeypatch.setattr(type(series), "totals", lambda _, totals=totals: totals)
        seen.append(value(registry, "somaresil_sli_events_total", slo="recovery", outcome="bad"))
    assert seen == [3, 3, 3]


def test_requests_have_the_labels_of_the_otel_conventions(resilience, registry):
    """Method, route and status; error_type on a server error only; no status when no response was begun; websockets are no requests."""
    install(resilience, registry)
    for method, route, status in (("GET", "/a/{id}", 200), ("POST", "/b", 503), ("GET", "/gone", 0), ("WEBSOCKET", "/ws", 0)):
        cell = resilience.routes.cell(method, route, status, ())
        cell.add(Outcome.GOOD, 0.2, 0.1, resilience.clock.monotonic(), injected=False)
    samples = [dict(key[1:]) for key in scrape(registry) if key[0] == "http_server_request_duration_seconds_count"]
    assert samples == [
        {"http_request_method": "GET", "http_response_status_code": "200", "http_route": "/a/{id}"},
        {"error_type": "503", "http_request_method": "POST", "http_response_status_code": "503", "http_route": "/b"},
        {"http_request_method": "GET", "http_route": "/gone"},
    ]
    labels = {"http_request_method": "GET", "http_response_status_code": "200", "http_route": "/a/{id}"}
    assert value(registry, "http_server_request_duration_seconds_sum", **labels) == pytest.approx(0.2)
    assert value(registry, "http_server_time_to_first_byte_seconds_sum", **labels) == pytest.approx(0.1)
    assert value(registry, "http_server_time_to_first_byte_seconds_bucket", le="0.1", **labels) == 1


@pytest.mark.parametrize("route", ['/"quoted"', "/back\\slash", "/new\nline", "/ünïcode/{x}", "/}{,="])
def test_labels_survive_the_text_format(resilience, registry, route):
    """Quotes, backslashes and line breaks come out as they went in, in both formats."""
    install(resilience, registry)
    resilience.routes.cell("GET", route, 200, ()).add(Outcome.GOOD, 0.2, None, 0.0, injected=False)
    for accept, parse in (("", parse_text), (OPENMETRICS, parse_openmetrics)):
        body = get(MetricsApp(resilience, registry, lambda: None), accept=accept)[2].decode()
        routes = {sample.labels.get("http_route") for family in parse(body) for sample in family.samples}
        assert route in routes


# -- bounds -----------------------------------------------------------------------------------------------------------------------------


def test_a_limit_shows_how_many_it_lets_in_and_how_many_are_there(resilience, registry):
    """Of bulkheads and adaptive limits alike; a guard without one has no such row."""
    install(resilience, registry)
    resilience.guard("plain").call(int)
    bulkhead = resilience.guard("db", bulkhead=3)
    resilience.guard("llm", bulkhead=AdaptiveLimit(initial=7))
    with bulkhead:
        assert value(registry, "somaresil_concurrency", guard="db", state="active") == 1
    assert value(registry, "somaresil_concurrency", guard="db", state="active") == 0
    assert value(registry, "somaresil_concurrency", guard="db", state="waiting") == 0
    found = {dict(key[1:])["guard"]: number for key, number in scrape(registry).items() if key[0] == "somaresil_concurrency_limit"}
    assert found == {"db": 3, "llm": 7}


def sets_of(registry):
    """Give the number of label sets of each family, buckets aside."""
    sets = {}
    for name, *labels in scrape(registry):
        family = name.removesuffix("_total").removesuffix("_bucket").removesuffix("_count").removesuffix("_sum").removesuffix("_ratio")
        sets.setdefault(family, set()).add(tuple(label for label in labels if label[0] != "le"))
    return {family: len(found) for family, found in sets.items()}


KINDS = {
    *("somaresil_sli_group_events", "somaresil_sli_slices", "somaresil_sli_injected_events"),
    *("somaresil_slo_part_weight", "somaresil_slo_chaos_budget", "somaresil_slo_previous_error_budget_consumed"),
}
"""What only some kinds of objectives have."""


def parsed(registry):
    """Everything as Prometheus reads it from the text."""
    text = generate_latest(registry).decode()
    return {(sample.name, *sorted(sample.labels.items())): sample.value for family in parse_text(text) for sample in family.samples}


def test_objectives_of_every_kind_are_exported(resilience, registry, clock):
    """Groups, slices, parts, experiments apart and the period before, as a parser of the text format reads them."""
    install(resilience, registry)
    day = timedelta(days=1)
    sliced = {"budgeting": "timeslices", "time_slice_window": 60.0, "time_slice_target": 0.9}
    resilience.slos.add(
        SLO("up", 90.0, day, group_by="who"),
        SLO("sliced", 90.0, day, **sliced),
        SLO("apart", 90.0, day, injected="separate", chaos_budget_percentage=2.5),
        SLO("daily", 90.0, calendar="day"),
        SLO("all", 90.0, day, parts={"up": 1.0, "apart": 2.5}),
    )

    @resilience.guard("g", slo=["up", "sliced", "apart", "daily"])
    def call(fine, who):
        if not fine:
            raise LookupError

    for fine, who in [(True, 'a"\n\\b'), (True, "b"), (True, "b"), (True, "b"), (False, "b")]:
        with suppress(LookupError):
            call(fine, who)
    before = parsed(registry)
    assert before["somaresil_sli_group_events_total", ("group", 'a"\n\\b'), ("outcome", "good"), ("slo", "up")] == 1
    assert before["somaresil_sli_group_events_total", ("group", "b"), ("outcome", "bad"), ("slo", "up")] == 1
    assert before["somaresil_sli_slices_total", ("outcome", "bad"), ("slo", "sliced")] == 0
    assert before["somaresil_sli_injected_events_total", ("outcome", "bad"), ("slo", "apart")] == 0
    assert before["somaresil_slo_part_weight", ("part", "apart"), ("slo", "all")] == 2.5
    assert before["somaresil_slo_chaos_budget_ratio", ("slo", "apart")] == 0.025
    assert not any(key[0] == "somaresil_slo_previous_error_budget_consumed_ratio" for key in before)
    clock.advance(86_400.0)
    after = parsed(registry)
    assert after["somaresil_sli_slices_total", ("outcome", "bad"), ("slo", "sliced")] == 1
    assert after["somaresil_slo_previous_error_budget_consumed_ratio", ("slo", "daily")] == pytest.approx(2.0)
    assert set(before) <= set(after)


def test_a_flood_of_tenants_shows_as_one(resilience, registry):
    """Ten thousand labels from outside are at most two hundred sets, and no event is lost, with several objectives too."""
    install(resilience, registry)
    for number in range(10):
        resilience.slos.add(SLO(f"up{number}", 90.0, timedelta(days=1), group_by="tenant"))
    guard = resilience.guard("g", slo=[f"up{number}" for number in range(10)])

    @guard
    def call(tenant):
        return tenant

    for number in range(10_000):
        call(f"t{number}")
    found = {key: number for key, number in parsed(registry).items() if key[0] == "somaresil_sli_group_events_total"}
    assert len(found) <= 200
    assert sum(found.values()) == 100_000
    assert found["somaresil_sli_group_events_total", ("group", "_other"), ("outcome", "good"), ("slo", "_other")] > 0
    assert found["somaresil_sli_group_events_total", ("group", "_other"), ("outcome", "good"), ("slo", "up0")] == 9_980


def test_no_metric_has_more_than_two_hundred_label_sets(resilience, registry):
    """Guards, objectives and routes without end are added up under `_other`, and no call is lost."""
    install(resilience, registry)
    for number in range(300):
        resilience.slos.add(SLO(f"slo{number}", 99.0, timedelta(days=1)))
        limit = RateLimit(10, per=3600.0)
        guard = resilience.guard(f"g{number}", breaker=True, slo=f"slo{number}", retry=1, bulkhead=2, rate_limit=limit)
        resilience.guard(f"h{number}", idempotent=True, hedge=1.0, single_flight=True)
        guard.call(int)
        guard.keyed("key").call(int)
        guard.shadow.note("timeout", "time_out")
        resilience.ignored.note("grpc-timeout")
        assert resilience.chaos.requests.carried("no plan") is None
        canary = CanaryController(resilience, CanaryConfig(name=f"c{number}", bad=f"slo{number}", interval=None))
        canary.start("v2")
        canary.promote()
        if number < 50:
            resilience.pool(f"pool{number}", [Endpoint("eu", 1)])
        fail_through(guard)
        resilience.routes.cell("GET", f"/{number}", 200, ()).add(Outcome.GOOD, 0.2, 0.1, 0.0, injected=False)
    sets = sets_of(registry)
    chaos = (
        "somaresil_faults_",
        "somaresil_process_faults",
        "somaresil_resource_",
        "somaresil_experiments",
        "somaresil_shared_state",
        "somaresil_defects",
        "somaresil_chaos_allowed",
        "somaresil_runtime_violations",
    )
    assert set(sets) == {name for name in FAMILIES if not name.startswith(chaos) and name not in KINDS}
    assert max(sets.values()) <= 200
    found = scrape(registry)
    assert sum(number for key, number in found.items() if key[0] == "somaresil_calls_total") == 900
    assert sum(number for key, number in found.items() if key[0] == "somaresil_sli_events_total") == 900
    assert sum(number for key, number in found.items() if key[0] == "somaresil_breaker_state") == 300
    assert sum(number for key, number in found.items() if key[0] == "somaresil_breaker_keys") == 300
    assert sum(number for key, number in found.items() if key[0] == "http_server_request_duration_seconds_count") == 300
    counted = {key: number for key, number in found.items() if key[0] == "somaresil_call_duration_seconds_bucket"}
    assert sum(number for key, number in counted.items() if dict(key[1:])["le"] == "+Inf") == 900


def test_endpoints_of_a_pool_show_their_state_and_their_ejections(resilience, registry):
    """One state of each is 1; ejections begin at 0."""
    install(resilience, registry)
    pool = resilience.pool("llm", [Endpoint("eu", fail), Endpoint("us", int)])
    ejections = {"pool": "llm", "endpoint": "eu", "cause": "consecutive_failures"}
    assert value(registry, "somaresil_pool_endpoint_ejections_total", **ejections) == 0.0
    while pool.view().endpoints["eu"].state == "healthy":
        with suppress(ValueError):
            pool.call(lambda endpoint: endpoint.target())
    assert value(registry, "somaresil_pool_endpoint_ejections_total", **ejections) == 1.0
    states = {key: number for key, number in scrape(registry).items() if key[0] == "somaresil_pool_endpoint_state"}
    shown = {(dict(key[1:])["endpoint"], dict(key[1:])["state"]) for key, number in states.items() if number}
    assert shown == {("eu", "ejected"), ("us", "healthy")}
    assert len(states) == 12


def test_further_attempts_and_reused_answers_are_counted(resilience, registry, clock):
    """By result, and by how a caller got an answer that was not made for him; all of them are there from the start."""
    install(resilience, registry)
    resilience.guard("hedged", idempotent=True, hedge=1.0).hedge.note(None, 1, "lost")
    guard = resilience.guard("remembered", single_flight=True, fallback=StaleCache(60, max_age=10, key=lambda number: number))
    answers = iter([1, ValueError("down")])

    @guard
    def call(number):
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    before = scrape(registry)
    assert [call(1), call(1)] == [1, 1]
    clock.advance(11.0)
    assert call(1) == 1
    found = scrape(registry)
    results = {dict(key[1:])["result"]: number for key, number in found.items() if key[0] == "somaresil_hedges_total"}
    assert results == {"won": 0, "lost": 1, "failed": 0, "budget": 0, "idempotency": 0}
    how = {dict(key[1:])["how"]: number for key, number in found.items() if key[0] == "somaresil_reused_answers_total"}
    assert how == {"fresh": 1, "stale": 1, "shared": 0}
    assert {key for key in found if "reused" in key[0]} == {key for key in before if "reused" in key[0]}


def test_a_guard_moves_into_other_as_a_whole(resilience, registry):
    """A guard whose errors alone moved away would look better than it is."""
    install(resilience, registry, limit=12)
    for number in range(5):
        guard = resilience.guard(f"g{number}")
        guard.call(int)
        fail_through(guard)
    found = {}
    for key, number in scrape(registry).items():
        if key[0] == "somaresil_calls_total":
            labels = dict(key[1:])
            found.setdefault(labels["guard"], {})[labels["outcome"]] = number
    assert found == {"g0": {"good": 1, "bad": 1}, "g1": {"good": 1, "bad": 1}, "_other": {"good": 3, "bad": 3}}


def test_trouble_does_not_move_a_guard_into_other(resilience, registry):
    """Guards that are shown while all is well have room for the outcomes of a bad day."""
    install(resilience, registry, limit=20)
    for number in range(6):
        guard = resilience.guard(f"g{number}", breaker=CircuitBreaker(consecutive_failures=1))
        guard.call(int)

    def shown():
        return {dict(key[1:])["guard"] for key in scrape(registry) if key[0] == "somaresil_calls_total"}

    before = shown()
    assert "_other" in before
    for guard in resilience.guards.values():
        fail_through(guard)
        with pytest.raises(Exception, match="circuit open"):
            guard.call(int)
    assert shown() == before


def test_histograms_with_other_bounds_are_added_up_where_they_agree():
    """What lies between bounds that only one has cannot be known, so they are given up; the count stays."""
    one = Histogram((1.0, 2.0, 5.0), (1, 2, 3, 4), 10.0)
    other = Histogram((1.0, 5.0), (10, 20, 30), None)
    assert one.plus(other) == Histogram((1.0, 5.0), (11, 25, 34), None)


# -- robustness -------------------------------------------------------------------------------------------------------------------------


def test_a_defect_in_one_guard_costs_that_guard_only(resilience, registry, monkeypatch):
    """The rest is served, the scrape does not fail, and it is reported once."""
    defects = []
    resilience.on(defects.append, DefectFound)
    install(resilience, registry)
    for name in ("one", "two", "three"):
        resilience.guard(name, breaker=True).call(int)
    broken = resilience.guards["two"].recorder
    counts = type(broken).counts

    def raise_for_two(recorder):
        if recorder is broken:
            raise RuntimeError
        return counts(recorder)

    monkeypatch.setattr(type(broken), "counts", raise_for_two)
    for _ in range(2):
        found = {dict(key[1:])["guard"] for key in scrape(registry) if key[0] == "somaresil_calls_total"}
        assert found == {"one", "three"}
    assert [defect.where for defect in defects] == ["metrics of guard two"]


def test_a_failing_collector_of_somebody_else_is_a_500_and_no_exception(resilience, registry):
    """The app answers, names the type and nothing more, and it is reported."""

    class Broken:
        def collect(self):
            raise KeyError("secret")

    app = metrics_app(resilience, registry)
    registry.register(Broken())
    status, _, body = get(app)
    assert (status, body) == (500, b"a collector of this registry raised KeyError\n")


def test_installing_twice_exports_once(resilience, registry):
    """The same object twice, and it goes only when both have let go; ending twice is ending once."""
    first, second = install(resilience, registry), install(resilience, registry)
    resilience.guard("db").call(int)
    assert value(registry, "somaresil_calls_total", guard="db", outcome="good", injected="false") == 1
    first()
    first()
    assert value(registry, "somaresil_calls_total", guard="db", outcome="good", injected="false") == 1
    second()
    assert scrape(registry) == {}
    install(resilience, registry)
    assert value(registry, "somaresil_calls_total", guard="db", outcome="good", injected="false") == 1


def test_a_module_that_was_imported_twice_exports_once(resilience, registry, clock):
    """Both of its objects count; of a gauge the later one counts, for the first is idle."""
    twin = Resilience("service", clock=clock)
    end = [install(each, registry) for each in (resilience, twin)]
    for each in (resilience, twin):
        each.guard("db", breaker=True).call(int)
    twin.breaker("db").trip()
    assert value(registry, "somaresil_calls_total", guard="db", outcome="good", injected="false") == 2
    assert value(registry, "somaresil_breaker_state", guard="db", state="open") == 1
    assert value(registry, "somaresil_breaker_state", guard="db", state="closed") == 0
    end[1]()
    assert value(registry, "somaresil_calls_total", guard="db", outcome="good", injected="false") == 1


def test_the_default_registry_is_that_of_prometheus_client(resilience):
    """install(resilience) is enough for whoever serves prometheus_client's metrics already."""
    resilience.guard("in.default.registry").call(int)
    end = install(resilience)
    try:
        assert b"in.default.registry" in generate_latest(REGISTRY)
    finally:
        end()
    assert b"in.default.registry" not in generate_latest(REGISTRY)


def test_wrong_arguments_and_taken_names_are_configuration_errors(resilience, registry):
    """The message says what is allowed; after a refusal nothing is installed."""
    with pytest.raises(ConfigurationError) as caught:
        install(resilience, registry, limit=3, interval=60.0)
    assert len(caught.value.problems) == 2
    with pytest.raises(ConfigurationError, match="limit"):
        ResilienceCollector(resilience, limit=0)
    Counter("somaresil_calls", "somebody else's", registry=registry)
    with pytest.raises(ConfigurationError, match="one without metrics of these names"):
        install(resilience, registry)


def test_a_scrape_may_ask_for_some_metrics_only(resilience, registry):
    """prometheus_client's restricted registries know our names."""
    install(resilience, registry)
    resilience.guard("db").call(int)
    some = registry.restricted_registry(["somaresil_calls_total"])
    assert {key[0] for key in scrape(some)} == {"somaresil_calls_total"}


# -- the app ----------------------------------------------------------------------------------------------------------------------------


def get(app, *, method="GET", accept=""):
    """Give status, headers and body of one request."""
    sent = []

    async def send(message):
        sent.append(message)

    async def receive():
        return {"type": "http.request", "body": b"", "more_body": False}

    scope = {"type": "http", "method": method, "path": "/", "headers": [(b"accept", accept.encode())] if accept else []}
    asyncio.run(app(scope, receive, send))
    start, body = sent
    return start["status"], {name.decode(): text.decode() for name, text in start["headers"]}, body["body"]


@pytest.mark.parametrize(
    ("accept", "openmetrics"),
    [
        ("", False),
        ("*/*", False),
        ("text/plain", False),
        (OPENMETRICS, True),
        ("application/openmetrics-text", True),
        ("application/openmetrics-text;q=0.5, text/plain;q=0.9", False),
        ("application/openmetrics-text;q=0, */*", False),
        ("application/openmetrics-text;q=nonsense", False),
        ("text/html,application/xhtml+xml,*/*;q=0.8", False),
    ],
)
def test_the_format_is_the_one_that_the_client_likes(resilience, accept, openmetrics):
    """OpenMetrics for those who ask for it, the plain text format for everybody else; both can be read back."""
    resilience.guard("db", breaker=True).call(int)
    status, headers, body = get(metrics_app(resilience), accept=accept)
    assert status == 200
    assert headers["content-type"].startswith("application/openmetrics-text" if openmetrics else "text/plain; version=0.0.4")
    assert headers["content-length"] == str(len(body))
    parse = parse_openmetrics if openmetrics else parse_text
    assert sum(sample.name == "somaresil_calls_total" for family in parse(body.decode()) for sample in family.samples) == 2


def test_by_itself_the_app_serves_only_our_metrics_and_with_a_registry_all_of_it(resilience, registry):
    """A registry of one's own is filled beside what is in it."""
    Counter("requests", "somebody else's", registry=registry).inc()
    assert b"requests_total" not in get(metrics_app(resilience))[2]
    body = get(metrics_app(resilience, registry))[2]
    assert b"requests_total 1.0" in body
    assert b"somaresil_slo_objective_ratio" in body


def test_other_methods_and_protocols_are_answered(resilience):
    """HEAD has no body, POST is refused, a websocket is closed, and lifespan is answered and ends it."""
    app = metrics_app(resilience)
    status, headers, body = get(app, method="HEAD")
    assert (status, body) == (200, b"")
    assert int(headers["content-length"]) == len(get(app)[2])
    status, headers, _ = get(app, method="POST")
    assert (status, headers["allow"]) == (405, "GET, HEAD")
    sent = []

    async def send(message):
        sent.append(message["type"])

    messages = iter([{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}])

    async def receive():
        return next(messages)

    asyncio.run(app({"type": "lifespan"}, receive, send))
    asyncio.run(app({"type": "websocket", "headers": []}, receive, send))
    assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete", "websocket.close"]
    resilience.guard("late").call(int)
    assert b'guard="late"' not in get(app)[2]


@pytest.mark.server
def test_promtool_finds_nothing_wrong(resilience, registry, clock):
    """Prometheus' own linter reads the text and has no complaint."""
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed: `apt-get install prometheus`, or run `nox -s tests` as root")
    resilience.slos.add(SLO("up", 99.9, timedelta(days=30)))
    install(resilience, registry)
    guard = resilience.guard("db", breaker=CircuitBreaker(consecutive_failures=1), slo="up")
    fail_through(guard)
    resilience.routes.cell("GET", "/a", 500, ()).add(Outcome.BAD, 0.2, 0.1, 0.0, injected=False)
    done = subprocess.run([promtool, "check", "metrics"], input=generate_latest(registry), capture_output=True, timeout=60, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, b"")
