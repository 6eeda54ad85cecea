"""Experiments in virtual time: phases, hypotheses, verdicts, and that no fault is ever left."""

from __future__ import annotations

import asyncio
from itertools import pairwise

import pytest

from somaresil import ChaosPlan, CircuitBreaker, ConfigurationError, FaultWindow, Retry
from somaresil.chaos.permission import Permission
from somaresil.gameday import Finding, GameDay, Gate, Probe, Status, to_html, to_junit, to_markdown
from somaresil.gameday import run as run_module
from somaresil.gameday.target import InProcess
from tests.unit.gameday.kit import GOOD, OUTAGE, SOME, World, experiment

AFTER = Probe("ratio", "llm.invoke", minimum=0.95, minimum_calls=5, when=("before", "after"))


def only(report):
    """The report of the only experiment."""
    (found,) = report.experiments
    return found


def left(world):
    """Experiments that are still armed, and observers of the guard."""
    return world.resilience.chaos.runs, world.guard.observers, world.guard.faults.rules


# -- verdicts -----------------------------------------------------------------------------------------------------------------------------


def test_what_is_absorbed_holds():
    """Three attempts in ten fail, retries save the calls: held before, during and after, with every figure of it."""
    world = World()
    report = world.play()
    found = only(report)
    assert (found.status, found.reasons, report.exit_code, report.held) == (Status.HELD, (), 0, True)
    assert [phase.name for phase in found.phases] == ["baseline", "inject", "recover"]
    assert [check.moment for check in found.checks] == ["before", "during", "after"]
    assert found.injected == world.resilience.chaos.history[-1].injected > 20
    assert found.faults[0].end_reason == "expired"
    assert 0 < found.absorbed <= found.touched
    (amplification,) = found.amplifications
    assert amplification.baseline == 1.0
    assert amplification.factor == amplification.during > 1.2
    assert found.recovery == type(found.recovery)(1, 1)
    assert found.recovered_after is not None
    assert found.recovered_after <= 5.0
    assert left(world) == ((), (), ())


def test_what_is_not_absorbed_deviates_and_its_recovery_is_timed():
    """Without retries an outage is felt: the circuit opens and closes again, and the reasons say which probe it was."""
    world = World(retry=None)
    found = only(world.play(experiment(OUTAGE)))
    assert found.status is Status.DEVIATED
    assert found.reasons[0].startswith("ratio of llm.invoke >= 0.95 did not hold while the faults were on: 0")
    (incident,) = found.incidents
    assert incident.recovered
    assert incident.injected
    assert incident.experiment in {run.id for run in world.resilience.chaos.history}
    assert 0.0 <= incident.detected_after < incident.seconds
    assert incident.seconds > 15.0
    assert found.recovered_after > 0.0
    assert found.recovery == type(found.recovery)(1, 1)
    (budget,) = found.budgets
    assert budget.bad > 0
    assert budget.burn_rate > 1.0


def test_a_hypothesis_may_be_about_recovery_alone():
    """What need not hold during the faults is not looked at then."""
    assert only(World(retry=None).play(experiment(OUTAGE, hypothesis=[AFTER]))).status is Status.HELD


def test_who_does_not_recover_in_time_deviates():
    """A circuit that stays open for longer than allowed is named, and no failure counts as recovered."""
    world = World(retry=None, breaker=CircuitBreaker(open_duration=500.0, open_jitter=0.0))
    report = world.play(experiment(OUTAGE, hypothesis=[AFTER]))
    found = only(report)
    assert found.status is Status.DEVIATED
    assert "llm.invoke was not closed again 60 s after the faults had ended" in found.reasons
    assert found.recovered_after is None
    assert (report.recovery.recovered, report.recovery.failures, report.unrecovered) == (0, 1, 1)
    assert report.recovery.lower_bound == 0.0


def test_a_service_in_trouble_is_not_attacked():
    """Nothing is injected, it is reported as not started, and its exit code is its own."""
    world = World(retry=None)
    world.failing = True
    report = world.play()
    found = only(report)
    assert (found.status, report.exit_code, found.injected) == (Status.NOT_STARTED, 3, 0)
    assert "did not hold before anything was done" in found.reasons[0]
    assert world.resilience.chaos.history == ()


def test_a_service_of_which_nothing_is_known_is_not_attacked():
    """No data is no steady state."""
    world = World()
    report = world.play(drive=None)
    assert (only(report).status, report.exit_code) == (Status.NOT_STARTED, 3)
    assert "0 calls, fewer than 5: nothing is known" in only(report).reasons[0]


def test_a_fault_that_strikes_nobody_shows_nothing():
    """Its rate is 0: the hypothesis holds, and that is no proof."""
    world = World()
    report = world.play(experiment(FaultWindow("llm.invoke", "error", 0, 5, rate=0.0)))
    assert (only(report).status, report.exit_code) == (Status.UNPROVEN, 1)
    assert only(report).reasons == ("no fault has struck anything, so nothing was shown",)


def test_an_abort_condition_ends_the_faults_at_once():
    """Long before their lease, and the experiment goes on to see whether the service recovers."""
    world = World(retry=None)
    floor = Probe("ratio", "llm.invoke", minimum=0.5, window=3.0)
    found = only(world.play(experiment(FaultWindow("llm.invoke", "error", 0, 500), abort=[floor])))
    assert found.status is Status.ABORTED
    assert found.reasons[0].startswith("abort condition ratio of llm.invoke >= 0.5: ")
    assert found.phases[1].seconds < 10.0
    assert found.faults[0].end_reason == "stopped"
    assert found.recovered_after is not None
    assert found.checks[-1].holds


def test_an_abort_condition_that_raises_ends_the_faults_and_one_that_sees_nothing_does_not():
    """A stop that cannot be asked stops; one without data waits."""

    def broken():
        raise OSError("gone")

    blind = Probe("ratio", "llm.other", minimum=0.5)
    assert only(World().play(experiment(abort=[blind]))).status is Status.HELD
    found = only(World().play(experiment(abort=[Probe("callable", "queue", maximum=3)]), probes={"queue": broken}))
    assert found.status is Status.ABORTED
    assert "it raised OSError: gone" in found.reasons[0]


def test_what_the_chaos_engine_refuses_is_reported_with_every_problem():
    """Without opt-in nothing is run; the report says why, and the code is that of what could not be run."""
    world = World(opt_in=False)
    report = world.play(experiment(FaultWindow("llm.other", "error", 0, 5)))
    assert (only(report).status, report.exit_code) == (Status.FAILED, 2)
    assert len(only(report).reasons) == 2


def test_a_permission_that_is_taken_back_during_the_baseline_is_respected():
    """It is asked for again when the faults begin."""
    world = World()

    async def drive():
        await world.clock.asleep(5.0)
        world.resilience.chaos.permit(Permission(None))
        await world.drive()

    assert only(world.play(drive=drive)).status is Status.FAILED


# -- ending -------------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("after", "phase"), [(3.0, "baseline"), (15.0, "inject"), (30.5, "recover")])
def test_who_interrupts_ends_every_fault_and_gets_a_report(after, phase):
    """In whatever phase: the code is 130, what was done is told, what was not reached is named."""
    world = World(retry=None)
    gameday = GameDay("a day", [experiment(OUTAGE, hypothesis=[AFTER]), experiment(name="second")])
    play = gameday.play(world.resilience, drive=world.drive)

    async def interrupted():
        asyncio.get_running_loop().call_later(after, play.interrupt, "SIGINT")
        return await play.run()

    report = world.clock.run(interrupted())
    first, second = report.experiments
    assert (report.exit_code, report.interrupted) == (130, "SIGINT")
    assert (first.status, first.phases[-1].name) == (Status.INTERRUPTED, phase)
    assert second.status is Status.SKIPPED
    assert report.seconds == pytest.approx(after, abs=0.1)
    assert (first.injected > 0) == (phase != "baseline")
    assert left(world) == ((), (), ())


def test_who_cancels_leaves_no_fault():
    """Cancellation propagates, and everything is ended."""
    world = World()

    async def cancelled():
        task = asyncio.ensure_future(GameDay("a day", [experiment()]).run(world.resilience, drive=world.drive))
        await asyncio.sleep(15.0)
        assert len(world.resilience.chaos.runs) == 1
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    world.clock.run(cancelled())
    assert left(world) == ((), (), ())


def test_traffic_that_breaks_ends_the_day():
    """Without traffic nothing can be shown: faults end, and it could not be run."""
    world = World()

    async def drive():
        await asyncio.sleep(1.0)
        raise OSError("no route")

    report = world.play(experiment(), experiment(name="second"), drive=drive)
    assert [each.status for each in report.experiments] == [Status.FAILED, Status.FAILED]
    assert (report.exit_code, report.interrupted) == (2, None)
    assert only_reason(report) == "the traffic ended: OSError: no route"


def only_reason(report):
    return report.experiments[0].reasons[0]


# -- several ------------------------------------------------------------------------------------------------------------------------------


def test_what_goes_wrong_ends_the_day_unless_it_is_to_go_on():
    """Later experiments are skipped, or run."""
    world = World(retry=None)
    report = world.play(experiment(OUTAGE), experiment(name="second"))
    assert [each.status for each in report.experiments] == [Status.DEVIATED, Status.SKIPPED]
    assert report.exit_code == 1
    report = World(retry=None).play(experiment(OUTAGE), experiment(SOME, name="second", hypothesis=[AFTER]), go_on=True)
    assert [each.status for each in report.experiments] == [Status.DEVIATED, Status.HELD]


@pytest.mark.parametrize(
    ("gate", "opens"),
    [
        (Gate("held"), True),
        (Gate("confirm", message="go on?"), True),
        (Gate("confirm", message="never"), False),
        (Gate(probe=Probe("budget", "up", minimum=-1e6)), True),
        (Gate(probe=Probe("budget", "up", minimum=1.1)), False),
        (Gate(probe=Probe("budget", "unknown", minimum=0.0)), False),
    ],
)
def test_gates_open_and_close(gate, opens):
    """A closed one skips its experiment, says why, and the day has not held."""
    report = World().play(experiment(), experiment(name="second", gates=[gate]), confirm=lambda message: message != "never")
    second = report.experiments[1]
    assert (second.status is Status.HELD) == opens
    assert [said.open for said in report.gates] == [opens]
    assert report.exit_code == (0 if opens else 1)
    assert opens or second.reasons[0].startswith("the gate is closed: ")


def test_nobody_to_ask_is_a_closed_gate():
    """Gates fail closed."""
    report = World().play(experiment(gates=[Gate("confirm", message="go?")]))
    assert only(report).reasons == ("the gate is closed: confirmed: go?: there is nobody to ask",)


def test_functions_that_were_not_handed_in_are_named_before_anything_is_done():
    """With their paths, all at once."""
    probes = [Probe("callable", "queue", maximum=3), Probe("prometheus", "up", minimum=1)]
    with pytest.raises(ConfigurationError) as refused:
        World().play(experiment(hypothesis=probes), probes={"queues": lambda: 0})
    assert [problem.path for problem in refused.value.problems] == [
        "gameday.experiments[0].hypothesis[0].target",
        "gameday.experiments[0].hypothesis[1].kind",
    ]
    assert "did you mean 'queues'?" in str(refused.value)


def test_functions_plain_and_coroutine_are_probes():
    """They are asked at each look; True is 1."""

    async def value(query):
        assert query == "up"
        return 1.0

    probes = [GOOD, Probe("callable", "ready", minimum=1, check=lambda: True), Probe("prometheus", "up", minimum=1)]
    report = World().play(experiment(hypothesis=probes), prometheus=value)
    assert only(report).status is Status.HELD
    assert [reading.value for reading in only(report).checks[1].readings[1:]] == [1.0, 1.0]


def test_the_same_seed_plays_the_same_day():
    """Equal reports, to the last strike; another seed strikes others."""
    first, again, other = World().play(seed=1), World().play(seed=1), World().play(seed=2)
    assert first == again
    assert first.experiments[0].injected != other.experiments[0].injected


def test_a_plan_brings_its_seed():
    """A shrunk plan of a simulation is played as it was found."""
    plan = ChaosPlan([SOME], seed=99)
    assert experiment(name="x").seeded(5).plan.seed == 5
    assert type(experiment())("x", plan, hypothesis=[GOOD]).seeded(5).plan == plan


def test_grades_of_the_code_are_taken_over():
    """Any objects with name, severity and evidence."""

    class Grade:
        name, severity, evidence = "retry storm", "high", 17

    assert World().play(findings=lambda: [Grade()]).findings == (Finding("retry storm", "high", "17"),)


def test_grades_of_the_code_under_test_are_in_every_form_of_the_report():
    """Retries that wait alike during an outage are found, and told as JSON, Markdown, HTML and JUnit; nobody watches afterwards."""
    world = World(retry=Retry(attempts=8, wait=0.01), breaker=None)
    report = world.play(experiment(OUTAGE))
    assert report.findings
    assert all(found.guard == "llm.invoke" for found in report.findings)
    name = report.findings[0].name
    told = (report.to_json(), to_markdown(report).replace("\\", ""), to_html(report), to_junit(report))
    assert [name in form for form in told] == [True] * 4
    assert left(world) == ((), (), ())


def test_a_plan_may_name_functions_that_corrupt_results():
    """One that was handed in is used; one that was not is refused with what comes near."""
    window = FaultWindow("llm.invoke", "corrupt_result", 0, 20, rate=0.3, corrupt="shout")
    seen = []
    report = World().play(experiment(window), corrupters={"shout": lambda answer, _: seen.append(answer) or answer.upper()})
    assert report.injected == len(seen) > 0
    refused = World().play(experiment(window), corrupters={"shouts": lambda answer, _: answer})
    assert only(refused).status is Status.FAILED
    assert "did you mean 'shouts'" in only(refused).reasons[0]


def test_a_day_has_a_time_to_observe_and_a_time_to_rest():
    """After the faults, and between two experiments; none after the last."""
    told = []
    observed = experiment(OUTAGE, hypothesis=[AFTER], observe=20.0, pause=30.0)
    last = experiment(OUTAGE, name="last", hypothesis=[AFTER], pause=5_000.0)
    report = World().play(observed, last, tell=told.append)
    assert [each.status for each in report.experiments] == [Status.HELD, Status.HELD]
    assert "errors: observe, 20 s" in told
    assert 30.0 < report.seconds < 5_000.0


@pytest.mark.parametrize(("answer", "opens"), [(True, True), (False, False), ("yes", False)])
def test_who_is_asked_may_take_time_for_an_answer(answer, opens):
    """A coroutine function is awaited, and only True is a yes."""

    async def confirm(message):
        assert message == "go?"
        return answer

    report = World().play(experiment(gates=[Gate("confirm", message="go?")]), confirm=confirm)
    assert (only(report).status is Status.HELD) == opens


def test_a_question_that_raises_is_a_closed_gate():
    """Gates fail closed, and the report says what was raised."""

    def confirm(message):
        raise LookupError("nobody there")

    report = World().play(experiment(gates=[Gate("confirm", message="go?")]), confirm=confirm)
    (reason,) = only(report).reasons
    assert reason.startswith("the gate is closed: ")
    assert "it raised LookupError: nobody there" in reason


def test_a_day_that_is_interrupted_before_it_begins_does_nothing():
    """Whoever was quicker is heard, and the first reason counts."""
    world = World()
    day = GameDay("a day", [experiment()]).play(world.resilience, drive=world.drive)
    day.interrupt("SIGINT")
    day.interrupt("SIGTERM")
    report = world.clock.run(day.run())
    assert report.interrupted == "SIGINT"
    assert only(report).injected == 0
    assert world.resilience.chaos.runs == ()


def test_a_long_day_keeps_points_over_all_of_it(monkeypatch):
    """Fewer of them when there are too many, and every call is in one."""
    monkeypatch.setattr(run_module, "_MOST_POINTS", 8)
    points = only(World().play(experiment(OUTAGE, hypothesis=[AFTER], every=0.5))).points
    assert 4 <= len(points) < 8
    assert points[-1].at > 20.0
    gaps = [later.at - earlier.at for earlier, later in pairwise(points)]
    assert max(gaps) < 2.0 * min(gaps)


def test_figures_that_cannot_be_read_any_more_fail_the_experiment(monkeypatch):
    """With what went wrong, and no fault is left."""
    world = World()
    reads = []
    usual = InProcess.read

    async def read(self):
        reads.append(world.clock.monotonic())
        if len(reads) > 15:
            raise OSError("gone")
        return await usual(self)

    monkeypatch.setattr(InProcess, "read", read)
    report = world.play()
    assert only(report).status is Status.FAILED
    assert only(report).reasons == ("OSError: gone",)
    assert world.resilience.chaos.runs == ()
