"""A canary whose process dies at any moment goes on as if nothing had been, and whatever happens its weight only grows or is gone."""

from __future__ import annotations

import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from somaresil import ManualClock
from somaresil.canary import CanaryConfig, CanaryController, Verdict
from tests.unit.slo.kit import availability, process

STEPS = st.one_of(
    st.tuples(st.just("traffic"), st.integers(1, 60), st.sampled_from([0, 2, 7]), st.sampled_from([0, 2, 7])),
    st.tuples(st.just("wait"), st.floats(0.0, 100.0)),
    st.tuples(st.just("clock"), st.floats(-1e6, 1e6)),
    st.tuples(st.sampled_from(["look", "pause", "resume", "promote", "die"])),
)


def controller_on(clock, path):
    resilience, _ = process(availability(target=90.0), clock=clock)
    config = CanaryConfig(name="answer", bad="up", steps=[10, 50, 100], bake=60.0, minimum_events=3, interval=None, sticky=True)
    controller = CanaryController(resilience, config, snapshot=path)
    controller.start("v2")
    return controller


def traffic(controller, times, candidate_bad, control_bad):
    """Every so many requests of a side are bad; 0: none."""
    for number in range(1, times + 1):
        key = f"user {number}"
        side = controller.choose(key)
        every = candidate_bad if side.candidate else control_bad
        controller.note(side, bad=bool(every) and number % every == 0, key=key)


@settings(max_examples=60, deadline=None)
@given(st.lists(STEPS, max_size=25))
def test_dying_changes_nothing_and_weights_grow_or_are_gone(steps):
    """Evidence, phase, weight and pause are those of before; nothing but a look or somebody promotes."""
    clock = ManualClock()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "answer.json"
        controller = controller_on(clock, path)
        for name, *arguments in steps:
            before = controller.status()
            if name == "traffic":
                traffic(controller, *arguments)
            elif name == "wait":
                clock.advance(*arguments)
            elif name == "clock":
                clock.step_wall(*arguments)
            elif name == "look":
                controller.evaluate()
            elif name == "die":
                controller.evaluate()
                seen = controller.status()
                controller.stop()
                controller = controller_on(clock, path)
                after = controller.status()
                assert (after.phase, after.weight, after.paused, after.events) == (seen.phase, seen.weight, seen.paused, seen.events)
                assert after.finding == seen.finding
            else:
                getattr(controller, name)()
            after = controller.status()
            assert after.weight >= before.weight or after.phase == "rollback"
            if name not in {"look", "promote", "die"}:
                assert after.phase in {before.phase, "rollback"}
            if before.over:
                assert after.phase == before.phase
            if after.finding.verdict is Verdict.FAIL and name == "look":
                assert after.over
        controller.stop()
