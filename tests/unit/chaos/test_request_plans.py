"""Request plans in the engine: approved rules, lowered and never raised, for the calls of one request, and gone with it."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import logging
import threading

import pytest

from somaresil import ChaosCeilings, ChaosConfig, ChaosExperiment, CircuitBreaker, ConfigurationError, FaultWindow, InjectedFault
from somaresil.chaos import ChaosKeys, Lower
from somaresil.chaos.baggage import KEY
from somaresil.events import DefectFound, ExperimentEnded, ExperimentStarted, FaultInjected, PlanIgnored
from tests.unit.chaos.kit import CUT, ERROR, LATENCY, TRIP, Stand

SECRET = bytes(range(32))
KEYS = ChaosKeys({"k1": SECRET})


class Desk(Stand):
    """A process that accepts plans and has approved a rule that fails every call of ``llm.*``."""

    def __init__(self, *, rate=1.0, kind=ERROR, keys=KEYS, accepting=None, **options):
        super().__init__(**options)
        self.plans = self.chaos.requests
        given = {"duration_seconds": 30.0, **({"delay_seconds": 2.0} if kind is LATENCY else {})}
        self.chaos.approve("llm-down", ChaosConfig(kind, "llm.*", rate, **given))
        self.chaos.accept_plans(keys, **(accepting or {}))

    def arrive(self, token=None, *paths, **signing):
        """A request with a plan; ``with`` it."""
        token = self.chaos.sign_plan(["llm-down"], **signing) if token is None else token
        flight = self.plans.arriving([f"{KEY}={token}"], paths)
        assert flight is not None, self.plans.counts()
        return flight

    def ignored(self, token, *paths):
        """Why a plan is ignored."""
        before = self.plans.counts()
        assert self.plans.arriving([f"{KEY}={token}"], paths) is None
        (reason,) = {reason for reason, times in self.plans.counts().items() if times != before.get(reason, 0)} - {"unknown_rule"}
        assert self.plans.counts()[reason] == before.get(reason, 0) + 1
        return reason


@pytest.fixture
def desk():
    """A process that accepts plans."""
    return Desk()


def test_calls_of_the_request_are_struck_and_no_others(desk):
    """While it lasts; calls of other requests pass meanwhile, and are not even counted."""
    nobody = contextvars.copy_context()
    with desk.arrive() as flight:
        assert desk.struck(3) == [True] * 3
        assert nobody.run(desk.struck, 3) == [False] * 3
        assert flight.runs[0].injected == 3
    assert desk.struck(3) == [False] * 3
    assert desk.plans.counts() == {"accepted": 1}
    assert desk.chaos.faults() == {("llm.invoke", "error"): 3}


def test_a_guard_is_quiet_unless_a_plan_is_in_flight(desk):
    """Approving and accepting arms nothing, and what was armed goes with the last plan."""
    quiet = desk.guard.switch
    other = desk.resilience.guard("db.read")
    assert quiet.quiet
    first, second = desk.arrive(), desk.arrive()
    assert quiet.quiet
    with first:
        assert not quiet.quiet
        assert other.switch.quiet
        contextvars.copy_context().run(second.__enter__)
    assert not quiet.quiet
    second.release()
    assert quiet.quiet
    assert desk.guard.faults.rules == ()


def test_a_guard_that_is_made_meanwhile_is_struck_too(desk):
    """As in every experiment."""
    with desk.arrive():
        assert desk.struck(1, "llm.late") == [True]
    assert desk.struck(1, "llm.late") == [False]


def test_the_n_th_call_is_decided_by_the_nonce(make):
    """The same plan decides alike in another process with another seed; another plan decides otherwise."""
    found = []
    for seed, nonce in ((1, "a" * 16), (2, "a" * 16), (2, "b" * 16)):
        desk = Desk(rate=0.5, seed=seed)
        with desk.arrive(nonce=nonce):
            found.append(desk.struck(64))
    assert found[0] == found[1] != found[2]
    assert 16 < sum(found[0]) < 48


def test_a_plan_of_many_uses_does_not_strike_all_of_its_requests_alike():
    """A rate of a half holds over requests with one call each, too."""
    desk = Desk(rate=0.5, accepting={"most_in_flight": 1})
    token = desk.chaos.sign_plan(["llm-down"], nonce="a" * 16)
    found = []
    for _ in range(100):
        with desk.arrive(token):
            found += desk.struck()
    assert 25 < sum(found) < 75


@pytest.mark.parametrize(
    ("lower", "found"),
    [
        ({}, (0.5, 2.0, 30.0)),
        ({"rate": 0.1}, (0.1, 2.0, 30.0)),
        ({"rate": 1.0}, (0.5, 2.0, 30.0)),
        ({"delay": 0.5, "duration": 3}, (0.5, 0.5, 3.0)),
        ({"delay": 60, "duration": 600}, (0.5, 2.0, 30.0)),
        ({"rate": 0, "delay": 0, "duration": 0}, (0.0, 0.0, 0.0)),
    ],
)
def test_a_plan_lowers_and_never_raises(lower, found):
    """Rate, delay and duration; the approved rule is the ceiling."""
    desk = Desk(kind=LATENCY, rate=0.5)
    token = desk.chaos.sign_plan({"llm-down": lower}, ttl=60)
    with desk.arrive(token) as flight:
        config = flight.runs[0].config
        assert (config.failure_rate, config.delay_seconds, config.duration_seconds) == found
    assert desk.chaos.requests.approved["llm-down"].failure_rate == 0.5


def test_the_ceilings_of_the_moment_bind_too(desk):
    """Whoever lowers them by another opt-in is heard at once."""
    desk.chaos.opt_in(ChaosCeilings(rate=0.25, delay=1.0, duration=5.0))
    with desk.arrive() as flight:
        assert flight.runs[0].config.failure_rate == 0.25
        assert flight.runs[0].config.duration_seconds == 5.0


def test_it_ends_with_its_plan_however_long_the_request_is(desk):
    """The end of the plan, by the monotonic clock from then on; then guards are quiet again while the request goes on."""
    with desk.arrive(ttl=10):
        desk.clock.advance(4.0)
        assert desk.struck() == [True]
        desk.clock.step_wall(-1_000.0)
        desk.clock.advance(6.0)
        assert desk.struck() == [False]
        assert desk.guard.switch.quiet


def test_delays_are_made_and_end_with_the_kill_switch():
    """A delayed call goes on at once, and no further plan is taken until somebody says so."""
    desk = Desk(kind=LATENCY)
    began = desk.clock.monotonic()
    with desk.arrive():
        desk.guard.call(lambda: None)
        assert desk.clock.monotonic() - began == 2.0
        desk.chaos.stop_all()
        desk.guard.call(lambda: None)
        assert desk.clock.monotonic() - began == 2.0
    assert desk.guard.switch.quiet
    token = desk.chaos.sign_plan(["llm-down"])
    assert desk.ignored(token) == "stopped"
    assert desk.chaos.carry() is None
    desk.chaos.accept_plans(KEYS)
    with desk.arrive(token):
        desk.guard.call(lambda: None)
    assert desk.clock.monotonic() - began == 4.0


@pytest.mark.parametrize("kind", [LATENCY, ERROR, CUT, ChaosExperiment.LOST_REPLY, ChaosExperiment.STREAM_TRUNCATION])
def test_what_strikes_calls_can_be_approved(stand, kind):
    """Every kind whose faults stay within the call."""
    stand.chaos.approve("rule", ChaosConfig(kind, "llm.*", 1.0, delay_seconds=1.0 if kind is LATENCY else 0.0))
    assert "rule" in stand.chaos.requests.approved


def test_what_strikes_everybody_cannot_be_approved(stand):
    """An open circuit is open to all."""
    stand.resilience.guard("db", breaker=CircuitBreaker())
    with pytest.raises(ConfigurationError, match="whoever asked for it"):
        stand.chaos.approve("rule", ChaosConfig(TRIP, "db"))
    with pytest.raises(ConfigurationError, match="whoever asked for it"):
        stand.chaos.approve("rule", FaultWindow("db", "circuit_trip", 0, 10))
    assert stand.chaos.requests.approved == {}


def test_a_window_can_be_approved(stand):
    """The data form of a fault, with the errors that are allowed; it begins with its request."""
    stand.chaos.approve("rule", FaultWindow("llm.*", "error", 0, 20, error="Mine"), errors={"Mine": KeyError})
    stand.chaos.accept_plans(KEYS)
    with stand.chaos.carrying(stand.chaos.sign_plan(["rule"])):
        assert stand.struck(error=KeyError) == [True]
    with pytest.raises(ConfigurationError) as caught:
        stand.chaos.approve("later", FaultWindow("lm.*", "error", 5, 20, error="Other"))
    assert {problem.path.rpartition(".")[2] for problem in caught.value.problems} == {"start", "error", "target"}


def test_approving_is_checked_as_every_experiment_is():
    """Ceilings, targets and names, all at once; nothing is approved then."""
    stand = Stand(ceilings=ChaosCeilings(rate=0.5, duration=60.0))
    with pytest.raises(ConfigurationError) as caught:
        stand.chaos.approve("no name", ChaosConfig(ERROR, "lm.*", 0.9, 90.0))
    assert [problem.path.rpartition(".")[2] for problem in caught.value.problems] == [
        "name",
        "failure_rate",
        "duration_seconds",
        "target_component",
    ]
    with pytest.raises(ConfigurationError, match="a ChaosConfig or a FaultWindow"):
        stand.chaos.approve("rule", "latency")
    stand.chaos.approve("rule", ChaosConfig(ERROR, "lm.*", 0.5, 60.0), await_guards=True)


def test_a_rule_is_revoked_at_once(desk):
    """For plans in flight too."""
    with desk.arrive():
        assert desk.struck() == [True]
        assert desk.chaos.revoke("llm-down")
        assert desk.struck() == [False]
    assert not desk.chaos.revoke("llm-down")
    assert desk.ignored(desk.chaos.sign_plan(["llm-down"])) == "nothing_approved"


def test_unknown_rules_are_left_out_and_counted(desk):
    """The others of the plan are taken."""
    with desk.arrive(desk.chaos.sign_plan(["llm-down", "nobody-knows", "nor-this"])) as flight:
        assert [run.name for run in flight.runs] == ["llm-down"]
        assert desk.struck() == [True]
    assert desk.plans.counts() == {"accepted": 1, "unknown_rule": 2}


def test_a_plan_is_used_as_often_as_it_says(desk):
    """A single use once, a replay not at all, and one that says nothing as often as it comes."""
    token = desk.chaos.sign_plan(["llm-down"], uses=2)
    with desk.arrive(token):
        pass
    with desk.arrive(token):
        pass
    assert desk.ignored(token) == "replayed"
    token = desk.chaos.sign_plan(["llm-down"])
    for _ in range(5):
        with desk.arrive(token):
            pass


def test_a_clock_that_is_set_back_brings_no_used_plan_to_life(desk):
    """Uses are remembered by the monotonic clock."""
    token = desk.chaos.sign_plan(["llm-down"], ttl=60, uses=1)
    with desk.arrive(token):
        pass
    desk.clock.advance(100.0)
    assert desk.ignored(token) == "expired"
    desk.clock.step_wall(-100.0)
    assert desk.ignored(token) == "replayed"


def test_each_kind_of_bad_plan_is_ignored_for_its_reason(desk):
    """Counted by reason, and nothing is armed."""
    good = desk.chaos.sign_plan(["llm-down"])
    with pytest.raises(ConfigurationError):
        desk.chaos.sign_plan(["llm-down"], ttl=90_000)
    far = desk.chaos.sign_plan(["llm-down"], ttl=3_600)
    later = desk.chaos.sign_plan(["llm-down"], starts_in=60)
    other = desk.chaos.sign_plan(["llm-down"], audience="production")
    unknown = Desk(keys=ChaosKeys({"k9": SECRET}), clock=desk.clock).chaos.sign_plan(["llm-down"])
    assert desk.ignored("nonsense") == "malformed"
    assert desk.ignored("x" * 2_000) == "oversized"
    assert desk.ignored(good[:-1] + ("A" if good[-1] != "A" else "E")) == "forged"
    assert desk.ignored(unknown) == "unknown_key"
    assert desk.ignored(other) == "wrong_audience"
    assert desk.ignored(later) == "not_yet_valid"
    assert desk.ignored(far) == "too_long"
    assert desk.ignored(f"{good},{KEY}={good}") == "duplicate"
    assert desk.ignored(good, "/healthz") == "protected"
    desk.clock.advance(60.0)
    assert desk.ignored(good) == "expired"
    assert desk.guard.switch.quiet
    assert desk.struck() == [False]


@pytest.mark.parametrize(
    ("variable", "value"), [("SOMARESIL_CHAOS", "0"), ("SOMARESIL_CHAOS", None)], ids=["switched off", "never switched on"]
)
def test_permission_is_asked_for_each_plan(desk, monkeypatch, variable, value):
    """An operator forbids what the code allows, at once."""
    token = desk.chaos.sign_plan(["llm-down"])
    if value is None:
        monkeypatch.delenv(variable)
    else:
        monkeypatch.setenv(variable, value)
    assert desk.ignored(token) == "not_permitted"
    monkeypatch.setenv("SOMARESIL_CHAOS", "1")
    with desk.arrive(token):
        assert desk.struck() == [True]


def test_production_needs_its_second_key(monkeypatch):
    """As for every experiment; a service may approve and accept all the same, and nothing comes of it."""
    desk = Desk(environment="production")
    token = desk.chaos.sign_plan(["llm-down"])
    assert desk.ignored(token) == "not_permitted"
    desk.chaos.opt_in(production=True)
    assert desk.ignored(token) == "not_permitted"
    monkeypatch.setenv("SOMARESIL_CHAOS_PRODUCTION", "tests")
    with desk.arrive(token):
        assert desk.struck() == [True]


def test_without_opt_in_nothing_is_struck():
    """Off by default."""
    desk = Desk(opt_in=False)
    assert desk.ignored(desk.chaos.sign_plan(["llm-down"])) == "not_permitted"


def test_a_plan_outside_the_blast_radius_strikes_nothing():
    """The approved rule says how much of a fleet takes part."""
    desk = Desk(instance="a")
    for candidates in (("a",), ("b",)):
        desk.chaos.approve("llm-down", ChaosConfig(ERROR, "llm.*", 1.0, candidates=candidates))
        with desk.arrive():
            assert desk.struck() == [candidates == ("a",)]


def test_plans_in_flight_are_bounded():
    """What is beyond is ignored, and there is room again when one is over."""
    desk = Desk(accepting={"most_in_flight": 2})
    elsewhere = contextvars.copy_context()
    with desk.arrive():
        other = elsewhere.run(desk.arrive)
        elsewhere.run(other.__enter__)
        assert desk.plans.in_flight == 2
        assert contextvars.Context().run(desk.ignored, desk.chaos.sign_plan(["llm-down"])) == "busy"
        other.release()
        assert desk.plans.in_flight == 1
    assert desk.plans.in_flight == 0


def test_a_request_that_hangs_holds_its_place_no_longer_than_its_plan():
    """Nobody has to end it."""
    desk = Desk(accepting={"most_in_flight": 1})
    contextvars.copy_context().run(desk.arrive(ttl=20).__enter__)
    token = desk.chaos.sign_plan(["llm-down"])
    assert desk.ignored(token) == "busy"
    desk.clock.advance(20.0)
    with desk.arrive(token):
        assert desk.struck() == [True]
    assert desk.plans.in_flight == 0


def test_strikes_are_told_and_requests_are_not(desk):
    """One event a strike with the id of the rule and the plan; none for each request that begins or ends."""
    with desk.arrive(nonce="a" * 16):
        desk.struck(2)
    assert [event.experiment for event in desk.told(FaultInjected)] == ["llm-down@" + "a" * 16] * 2
    assert desk.told(ExperimentStarted) == desk.told(ExperimentEnded) == []
    assert desk.chaos.history == ()


def test_ignored_plans_are_told_now_and_then(desk, caplog):
    """Once a minute for each reason, with how often since; never what stood in the header."""
    caplog.set_level(logging.DEBUG, "somaresil")
    for _ in range(50):
        desk.ignored("secret-nonsense")
    desk.ignored("x" * 2_000)
    desk.clock.advance(60.0)
    desk.ignored("secret-nonsense")
    assert [(event.reason, event.times) for event in desk.told(PlanIgnored)] == [("malformed", 1), ("oversized", 1), ("malformed", 50)]
    assert len(caplog.records) == 3
    assert "secret" not in caplog.text
    assert desk.plans.counts() == {"malformed": 51, "oversized": 1}


def test_two_processes_in_one_do_not_mix():
    """A plan belongs to who has taken it, and holds again when the other one is done."""
    one, two = Desk(), Desk()
    with one.arrive():
        assert two.struck() == [False]
        assert two.chaos.carry() is None
        with two.arrive():
            assert two.struck() == [True]
            assert one.struck() == [False]
        assert one.struck() == [True]


def test_a_request_that_was_seen_is_not_counted_again(desk):
    """A middleware inside another one reads the same header."""
    token = desk.chaos.sign_plan(["llm-down"], uses=1)
    with desk.arrive(token):
        assert desk.plans.arriving([f"{KEY}={token}"]) is None
        assert desk.struck() == [True]
    assert desk.plans.counts() == {"accepted": 1}


def test_a_defect_of_ours_leaves_the_request_alone(desk, monkeypatch):
    """Reported once, and nothing stays armed."""
    monkeypatch.setattr(desk.chaos, "place_run", lambda run: 1 / 0)
    with desk.arrive():
        assert desk.struck() == [False]
    assert desk.plans.in_flight == 0
    assert len(desk.told(DefectFound)) == 1


# -- carrying -----------------------------------------------------------------------------------------------------------------------------


def test_a_plan_is_carried_to_another_process(desk):
    """As text, by whatever way; what was carried strikes there, decided by its own nonce."""
    worker = Desk(clock=desk.clock)
    with desk.arrive():
        text = desk.chaos.carry()
    with worker.chaos.carrying(text) as holds:
        assert holds
        assert worker.struck() == [True]
    assert worker.struck() == [False]
    with worker.chaos.carrying(text.encode()) as holds:
        assert holds


def test_a_single_use_can_be_carried_often_and_used_once(desk):
    """Each message has a use of its own, in the same process too; a message that is delivered twice is a replay."""
    with desk.arrive(uses=1):
        texts = [desk.chaos.carry() for _ in range(3)]
    assert len(set(texts)) == 3
    for text in texts:
        with desk.chaos.carrying(text) as holds:
            assert holds
            assert desk.struck() == [True]
        with desk.chaos.carrying(text) as holds:
            assert not holds
    assert desk.plans.counts() == {"accepted": 4, "replayed": 3}


@pytest.mark.parametrize("text", [None, "", b"", "nonsense", b"\xff\xfe", "k1.a.b"])
def test_what_was_not_carried_is_no_plan(desk, text):
    """Also not that of whoever happens to run the worker's step: it must not mix requests up."""
    with desk.arrive():
        with desk.chaos.carrying(text) as holds:
            assert not holds
            assert desk.struck() == [False]
        assert desk.struck() == [True]


def test_nothing_is_carried_without_a_plan(desk):
    """Nor after its request is over, from a task that it has left behind."""
    assert desk.chaos.carry() is None
    left_behind = contextvars.copy_context()
    with desk.arrive() as flight:
        left_behind = contextvars.copy_context()
        assert left_behind.run(desk.chaos.carry) is not None
    assert not flight.active
    assert left_behind.run(desk.chaos.carry) is None
    assert left_behind.run(desk.struck) == [False]


def test_a_thread_that_copies_no_context_can_be_given_the_plan(desk):
    """Executors do not copy it."""
    found = []
    with desk.arrive():
        text = desk.chaos.carry()

        def work():
            found.append(desk.struck())
            with desk.chaos.carrying(text):
                found.append(desk.struck())

        thread = threading.Thread(target=work)
        thread.start()
        thread.join(10.0)
    assert found == [[False], [True]]


@pytest.mark.asyncio
async def test_tasks_of_the_request_belong_to_it(desk):
    """And worker threads of asyncio do; a task of before does not."""
    gate = asyncio.Event()

    async def worker():
        await gate.wait()
        return desk.struck()

    before = asyncio.create_task(worker())
    await asyncio.sleep(0)
    with desk.arrive():
        assert await asyncio.create_task(asyncio.sleep(0, desk.struck())) == [True]
        assert await asyncio.to_thread(desk.struck) == [True]
        gate.set()
        assert await before == [False]


@pytest.mark.asyncio
async def test_a_stream_that_is_carried_belongs_to_the_request_until_it_ends(desk):
    """Whoever reads it, and however long after the request; its reader does not belong to it between two items."""

    async def answer():
        for number in range(3):
            yield number, desk.struck()

    nobody = contextvars.copy_context()
    with desk.arrive():
        plain, carried = answer(), desk.chaos.carry_stream(answer())

    async def read(stream):
        found = []
        async for item in stream:
            found.append(item)
            found.append(desk.struck())
        return found

    assert await asyncio.create_task(read(plain), context=nobody) == [(0, [False]), [False], (1, [False]), [False], (2, [False]), [False]]
    assert desk.plans.in_flight == 1
    assert await asyncio.create_task(read(carried), context=nobody) == [(0, [True]), [False], (1, [True]), [False], (2, [True]), [False]]
    assert desk.plans.in_flight == 0
    assert desk.guard.switch.quiet


@pytest.mark.asyncio
async def test_a_carried_stream_that_is_closed_or_forgotten_ends_the_plan(desk):
    """And its source is closed."""
    closed = []

    async def answer():
        try:
            yield 1
            yield 2
        finally:
            closed.append(desk.struck())

    with desk.arrive():
        left, forgotten = desk.chaos.carry_stream(answer()), desk.chaos.carry_stream(answer())
    assert await anext(left) == 1
    await left.aclose()
    assert closed == [[True]]
    assert desk.plans.in_flight == 1
    del forgotten
    gc.collect()
    assert desk.plans.in_flight == 0


@pytest.mark.asyncio
async def test_a_stream_without_a_plan_is_the_same_object(desk):
    """Nothing is paid for nothing."""

    async def answer():
        yield 1

    stream = answer()
    assert desk.chaos.carry_stream(stream) is stream
    await stream.aclose()


# -- leaving ------------------------------------------------------------------------------------------------------------------------------


def test_a_plan_leaves_to_nobody_unless_told(desk):
    """Neither that in flight nor one that stands in the header already; members of others stay."""
    with desk.arrive():
        assert desk.plans.outgoing("memory.internal", None) == (None, None)
        assert desk.plans.outgoing("memory.internal", f"a=1,{KEY}=x,b=2") == ("a=1,b=2", None)
        assert desk.plans.outgoing(None, f"{KEY}=x") == (None, None)


def test_a_plan_is_passed_on_to_those_who_may_have_it(desk):
    """By the host, in whatever case; a plan whose uses are counted gets one use for each request."""
    desk.chaos.pass_plans_to("*.internal", "localhost")
    token = desk.chaos.sign_plan(["llm-down"])
    with desk.arrive(token):
        assert desk.plans.outgoing("Memory.INTERNAL", "a=1") == (f"a=1,{KEY}={token}", token)
        assert desk.plans.outgoing("localhost", None) == (f"{KEY}={token}", token)
        assert desk.plans.outgoing("internal.example.com", f"{KEY}={token}") == (None, None)
    with desk.arrive(uses=1) as flight:
        (_, one), (_, two) = desk.plans.outgoing("localhost", f"{KEY}={flight.text}"), desk.plans.outgoing("localhost", None)
    assert len({one, two, flight.text}) == 3
    there = Desk(clock=desk.clock)
    for text in (one, two):
        with there.arrive(text):
            assert there.struck() == [True]
        assert there.ignored(text) == "replayed"


def test_what_somebody_else_has_put_there_goes_to_those_who_may_have_it(desk):
    """A test client that signs for itself; a service that only forwards."""
    desk.chaos.pass_plans_to("localhost")
    header = f"a=1,{KEY}=theirs"
    assert desk.plans.outgoing("localhost", header)[0] is header
    assert desk.plans.outgoing("example.com", header) == ("a=1", None)


@pytest.mark.parametrize("host", ["*", "*.*", "", "bad host", 7])
def test_a_pattern_of_every_host_is_refused(desk, host):
    """A plan that everybody is told is no secret."""
    with pytest.raises(ConfigurationError, match="hosts"):
        desk.chaos.pass_plans_to(host)


# -- setting up ---------------------------------------------------------------------------------------------------------------------------


def test_accepting_is_checked(stand):
    """All problems at once."""
    with pytest.raises(ConfigurationError) as caught:
        stand.chaos.accept_plans({"k1": SECRET}, audience="no name", longest=0, leeway=-1, most_in_flight=0, most_remembered=0)
    assert [problem.path.rpartition(".")[2] for problem in caught.value.problems] == [
        "keys",
        "audience",
        "longest",
        "leeway",
        "most_in_flight",
        "most_remembered",
    ]
    assert SECRET.hex() not in str(caught.value)
    assert not stand.chaos.requests.accepting


def test_an_audience_is_needed(monkeypatch):
    """Without one a plan for anybody would do."""
    stand = Stand(environment=None)
    with pytest.raises(ConfigurationError, match="audience"):
        stand.chaos.accept_plans(KEYS)


def test_signing_is_checked(desk):
    """All problems of the rules at once, with a hint."""
    with pytest.raises(ConfigurationError) as caught:
        desk.chaos.sign_plan({"a": {"rte": 0.5}, "b": {"rate": 2}, "c": 7, "d": Lower(delay=1)})
    paths = [problem.path.removeprefix("chaos.sign_plan.rules.") for problem in caught.value.problems]
    assert paths == ["a.rte", "b.rate", "c"]
    assert "did you mean 'rate'?" in str(caught.value)
    with pytest.raises(ConfigurationError, match="a list, also for a single one"):
        desk.chaos.sign_plan("llm-down")
    with pytest.raises(ConfigurationError, match="1 to 8 names"):
        desk.chaos.sign_plan([])
    with pytest.raises(ConfigurationError, match=r"accept_plans\(keys\) first"):
        Stand().chaos.sign_plan(["llm-down"])


def test_plans_can_be_refused_again(desk):
    """What is in flight ends, and nothing is looked for."""
    with desk.arrive():
        desk.chaos.refuse_plans()
        assert desk.struck() == [False]
    assert not desk.plans.accepting


def test_a_stream_is_cut_for_its_request_alone():
    """Faults on answers go by the call that opened the stream."""
    desk = Desk(kind=CUT)
    guarded = desk.guard(lambda: iter(range(3)))

    @desk.resilience.guard("llm.stream")
    def numbers():
        yield from range(3)

    assert list(guarded()) == [0, 1, 2]
    assert list(numbers()) == [0, 1, 2]
    with desk.arrive() as flight, pytest.raises(InjectedFault):
        list(numbers())
    assert list(flight.struck) == [flight.runs[0].id]


# -- the audit log --------------------------------------------------------------------------------------------------------------------


def test_who_approves_uses_and_revokes_a_rule_stands_in_the_audit_log(desk):
    """Uses once a minute for each rule, with how many there were since: the log is for people, and plans come with requests."""
    for _ in range(3):
        with desk.arrive():
            pass
    desk.clock.advance(61.0)
    with desk.arrive():
        pass
    desk.chaos.revoke("llm-down")
    noted = [(entry.what, entry.experiment, entry.result) for entry in desk.chaos.audit.entries]
    assert noted[-5:] == [
        ("approve", "llm-down", "approved for request plans"),
        ("accept_plans", "", "request plans for test are accepted"),
        ("use", "llm-down", "by a request plan"),
        ("use", "llm-down", "by a request plan, and 2 more since the last entry"),
        ("revoke", "llm-down", "revoked"),
    ]
    assert {entry.who for entry in desk.chaos.audit.entries if entry.what == "use"} == {f"key {KEYS.signer}"}
