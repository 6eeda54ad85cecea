"""A candidate beside a function: sides, what counts as bad, the kill switch, and what is refused."""

from __future__ import annotations

import asyncio
import inspect
import os
import subprocess
import sys
from contextlib import suppress
from datetime import timedelta

import pytest

from somaresil import SLO, ConfigurationError, Outcome
from somaresil.canary import Verdict
from somaresil.events import DefectFound
from tests.unit.slo.kit import availability, process

OPTIONS = {"steps": [50, 100], "bake": 10.0, "minimum_events": 5, "interval": None}
FAST = SLO("fast", 90.0, timedelta(days=1), latency=1.0)


def made(*slos, **options):
    resilience, clock = process(*(slos or (availability(),)))
    names = [slo.name for slo in slos] or ["up"]
    canary = resilience.canary("answer", bad=names, **{**OPTIONS, **options})
    return resilience, clock, canary


def old(user):
    return "old", user


def new(user):
    return "new", user


def sides(function, users):
    return [function(user)[0] for user in users]


def test_half_of_the_calls_go_to_the_candidate_by_chance_or_by_user():
    """A user always gets the same answer; without a key it is by chance."""
    _, _, canary = made(candidate=new, key="user")
    answer = canary(old)
    users = [f"user {number}" for number in range(1_000)]
    first = sides(answer, users)
    assert first == sides(answer, users)
    assert 400 < first.count("new") < 600
    _, _, canary = made(candidate=new)
    answer = canary(old)
    assert 400 < sides(answer, ["ada"] * 1_000).count("new") < 600
    assert inspect.signature(answer) == inspect.signature(old)


def test_a_candidate_with_other_code_is_another_one(tmp_path):
    """After a rollback a restart is no second try, and a change is; in every process the same code has the same checksum."""

    def start(candidate):
        _, _, canary = made(candidate=candidate, version="v2", snapshot=tmp_path / "answer.json")
        answer = canary(old)
        return canary.controller, answer

    first, _ = start(lambda user: ("new", user))
    first.roll_back("bad")
    first.stop()
    again, _ = start(lambda user: ("new", user))
    assert again.phase == "rollback"
    again.stop()
    changed, _ = start(lambda user: ("newer", user))
    assert changed.phase == "ramp_50"
    changed.stop()
    code = "from somaresil.canary.split import _checksum_of as of; print(of(lambda x: (lambda: x in {'a', 'b', 'c'} or x in {'d', 'e'})()))"
    environment = {"PYTHONPATH": os.pathsep.join(sys.path)}
    said = {
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60, env=environment | {"PYTHONHASHSEED": seed}
        ).stdout
        for seed in ("1", "2", "3")
    }
    assert len(said) == 1
    _, _, canary = made(candidate=len, version="v2")
    canary(max)
    assert canary.controller.status().checksum == "v2"


def test_each_side_has_a_guard_of_its_own():
    """With the same options and its own counts; no bad event, and all good ones, are in the evidence."""
    resilience, _, canary = made(candidate=new, guard={"breaker": True})
    answer = canary(old)
    got = sides(answer, range(100))
    counts = canary.controller.status().finding.counts
    assert resilience.guards["answer.candidate"].recorder.calls() == got.count("new") == counts.candidate_good
    assert resilience.guards["answer"].recorder.calls() == got.count("old") == counts.control_good
    assert resilience.guards["answer.candidate"].breaker is not None


def test_a_broken_candidate_is_gone_at_the_next_call():
    """Its callers get its errors until it is proven, and nobody afterwards."""

    def broken(user):
        raise LookupError(user)

    _, _, canary = made(candidate=broken)
    answer = canary(old)
    failed = 0
    for number in range(300):
        try:
            answer(number)
        except LookupError:
            failed += 1
    assert 1 <= failed <= 12
    assert (canary.controller.phase, canary.controller.weight) == ("rollback", 0.0)


def test_the_kill_switch_works_at_the_next_call():
    """No call goes there after it."""
    _, _, canary = made(candidate=new)
    answer = canary(old)
    assert "new" in sides(answer, range(50))
    canary.controller.roll_back("enough")
    assert set(sides(answer, range(50))) == {"old"}


def test_when_it_is_complete_every_call_goes_to_the_candidate():
    """And nothing is counted any more."""
    _, clock, canary = made(candidate=new)
    answer = canary(old)
    for _ in range(2):
        sides(answer, range(100))
        clock.advance(10.0)
        canary.controller.evaluate()
    assert canary.controller.phase == "complete"
    before = canary.controller.status().finding.counts
    assert set(sides(answer, range(50))) == {"new"}
    assert canary.controller.status().finding.counts == before


def test_coroutine_functions_methods_and_static_methods():
    """Each stays what it is."""

    async def new_answer(user):
        return "new", user

    _, _, canary = made(candidate=new_answer)

    @canary
    async def answer(user):
        return "old", user

    async def all_of_them():
        return [(await answer(number))[0] for number in range(200)]

    assert inspect.iscoroutinefunction(answer)
    assert set(asyncio.run(all_of_them())) == {"old", "new"}
    _, _, canary = made(candidate=lambda self, user: ("new", user), key="user", version="v2")

    class Service:
        answer = canary(lambda self, user: ("old", user))

    assert set(sides(Service().answer, range(100))) == {"old", "new"}
    _, _, canary = made(candidate=new)

    class Other:
        answer = canary(staticmethod(old))

    assert set(sides(Other.answer, range(100))) == {"old", "new"}


def test_a_cancelled_call_says_nothing():
    """Whoever left has judged nobody."""

    async def forever():
        await asyncio.Event().wait()

    _, _, canary = made(candidate=forever)

    @canary
    async def answer():
        await asyncio.Event().wait()

    async def go():
        for _ in range(20):
            task = asyncio.ensure_future(answer())
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    asyncio.run(go())
    counts = canary.controller.status().finding.counts
    assert (counts.candidate, counts.control) == (0, 0)


@pytest.mark.parametrize("guard", [{}, {"timeout": 30.0}, {"classify": lambda result, error: None}])
def test_what_takes_too_long_is_a_bad_event(guard):
    """By the latency of the objective, on whatever path the calls take."""
    _, clock, canary = made(FAST, candidate=lambda: clock.advance(1.1), guard=guard, version="v2", allowed=None)
    answer = canary(lambda: clock.advance(0.9))
    for _ in range(200):
        answer()
    assert canary.controller.phase == "rollback"
    counts = canary.controller.status().finding.counts
    assert counts.candidate_bad > 0
    assert (counts.candidate_good, counts.control_bad) == (0, 0)


def test_what_classify_and_predicates_call_bad_is_bad():
    """A failed evaluation counts like an error."""
    _, _, canary = made(candidate=new, guard={"classify": lambda result, error: Outcome.BAD if result and result[0] == "new" else None})
    answer = canary(old)
    sides(answer, range(100))
    assert canary.controller.phase == "rollback"
    judged = SLO("useful", 90.0, timedelta(days=1), good_when=lambda result, error, elapsed: result[0] == "old")
    _, _, canary = made(judged, candidate=new)
    answer = canary(old)
    sides(answer, range(100))
    assert (canary.controller.phase, canary.controller.status().finding.counts.control_bad) == ("rollback", 0)


def test_truncated_streams_and_late_first_items_are_bad():
    """Of generators of both kinds, by objectives about streams."""
    whole = SLO("whole", 95.0, timedelta(days=1), completion=True)

    def truncated(user):
        yield "new"
        raise ConnectionError

    _, _, canary = made(whole, candidate=truncated, key="user")

    @canary
    def tokens(user):
        yield "old"
        return "done"

    for number in range(100):
        with suppress(ConnectionError):
            list(tokens(f"user {number}"))
    assert canary.controller.phase == "rollback"
    assert canary.controller.status().finding.verdict is Verdict.FAIL

    first = SLO("first", 95.0, timedelta(days=1), first_item=0.5)
    resilience, clock = process(first)

    async def late(user):
        clock.advance(0.6)
        yield "new"

    canary = resilience.canary("stream", bad="first", candidate=late, key="user", **OPTIONS)

    @canary
    async def stream(user):
        clock.advance(0.4)
        sent = yield "old"
        yield sent

    async def go():
        for number in range(100):
            assert [item async for item in stream(f"user {number}")]

    asyncio.run(go())
    assert inspect.isasyncgenfunction(stream)
    assert canary.controller.phase == "rollback"
    assert canary.controller.status().finding.counts.control_bad == 0

    async def talk():
        talking = stream("ada")
        assert await anext(talking) == "old"
        assert await talking.asend("hello") == "hello"
        await talking.aclose()
        broken = stream("ada")
        await anext(broken)
        with pytest.raises(LookupError):
            await broken.athrow(LookupError)

    asyncio.run(talk())


def test_with_fallback_the_control_answers_for_a_candidate_that_failed():
    """Its callers notice nothing, and it is rolled back all the same; with a judge of results too."""

    def broken(user):
        raise LookupError(user)

    for more in ({}, {"classify": lambda result, error: None}):
        _, _, canary = made(candidate=broken, mode="fallback", guard={"idempotent": True, **more})
        answer = canary(old)
        assert set(sides(answer, range(100))) == {"old"}
        assert canary.controller.phase == "rollback"

    async def abroken(user):
        raise LookupError(user)

    for more in ({}, {"classify": lambda result, error: None}):
        _, _, canary = made(candidate=abroken, mode="fallback", guard={"idempotent": True, **more})

        @canary
        async def answer(user):
            return "old", user

        async def go(function=answer):
            return {(await function(number))[0] for number in range(100)}

        assert asyncio.run(go()) == {"old"}
        assert canary.controller.phase == "rollback"


def test_a_shadow_is_asked_the_same_and_never_answers():
    """Callers notice nothing of it; it is rolled back for what it does, and completes when it does well."""
    asked = []

    async def shadow(user):
        asked.append(user)
        if broken:
            raise LookupError(user)

    def go():
        _, clock, canary = made(candidate=shadow, mode="shadow", guard={"idempotent": True})

        @canary
        async def answer(user):
            return "old", user

        async def calls():
            for number in range(100):
                assert await answer(number) == ("old", number)
                await asyncio.sleep(0)
            await asyncio.sleep(0)

        asyncio.run(calls())
        for _ in range(2):
            clock.advance(10.0)
            canary.controller.evaluate()
            asyncio.run(calls())
        return canary.controller

    broken = True
    controller = go()
    assert controller.phase == "rollback"
    assert len(asked) <= 12
    broken, asked[:] = False, []
    controller = go()
    assert controller.phase == "complete"
    counts = controller.status().finding.counts
    assert counts.candidate_good == counts.control_good == len(asked)


def test_what_is_bad_for_control_and_shadow_alike_is_no_evidence():
    """The two were asked the same, so their failures hang together; one that failed alone counts."""
    _, _, canary = made(candidate=new_coroutine, mode="shadow", guard={"idempotent": True}, allowed=None)
    canary(new_coroutine)
    controller = canary.controller
    for _ in range(50):
        controller.both_ended(controller.route, candidate_bad=True, control_bad=True)
    finding = controller.status().finding
    assert (finding.worse, finding.not_much_worse, finding.counts.candidate_bad, finding.counts.control_bad) == (1.0, 1.0, 50, 50)
    controller.both_ended(controller.route, candidate_bad=False, control_bad=True)
    assert controller.status().finding.worse < 1.0


def test_shadows_are_bounded_in_number_and_time():
    """Those beyond the number are not asked; those beyond the time are bad, and ended."""
    began, ended = [], []

    async def hangs(user):
        began.append(user)
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(user)

    options = {"mode": "shadow", "guard": {"idempotent": True}, "shadow_limit": 2, "shadow_timeout": 0.05}
    _, _, canary = made(candidate=hangs, **options)
    answer = canary(new_coroutine)

    async def go():
        for number in range(50):
            await answer(number)
            await asyncio.sleep(0)
        async with asyncio.timeout(10.0):
            while len(ended) < 2:
                await asyncio.sleep(0.01)

    asyncio.run(go())
    assert len(began) == len(ended) == 2
    assert canary.controller.status().finding.counts.candidate_bad == 2


WHOLE = SLO("whole", 95.0, timedelta(days=1), completion=True)
USEFUL = SLO("useful", 90.0, timedelta(days=1), good_when=lambda result, error, elapsed: result is None or result[0] != "useless")


@pytest.mark.parametrize("how", ["truncated", "hangs", "good"])
def test_the_shadow_of_a_stream_is_drained_and_judged_by_its_guard(how):
    """After the reader has heard the control to its end; a reader who left has judged nobody."""
    drained = []

    async def shadow(user):
        yield "new"
        if how == "truncated":
            raise ConnectionError
        if how == "hangs":
            await asyncio.Event().wait()
        drained.append(user)

    _, _, canary = made(WHOLE, candidate=shadow, mode="shadow", guard={"idempotent": True}, shadow_timeout=0.01, shadow_limit=50)

    @canary
    async def stream(user):
        sent = yield "old"
        yield sent or "older"

    async def talk():
        talking = stream("ada")
        assert await anext(talking) == "old"
        assert await talking.asend("hello") == "hello"
        await talking.aclose()
        broken = stream("ada")
        await anext(broken)
        with pytest.raises(LookupError):
            await broken.athrow(LookupError)

    async def go():
        for number in range(40):
            assert [item async for item in stream(number)] == ["old", "older"]
        await asyncio.sleep(0.03 if how == "hangs" else 0.0)
        for _ in range(5):
            await asyncio.sleep(0)

    asyncio.run(go())
    counts = canary.controller.status().finding.counts
    if how == "good":
        assert counts.candidate_good == counts.control_good == len(drained) > 5
        asyncio.run(talk())
    else:
        assert canary.controller.phase == "rollback"
        assert (counts.candidate_good, counts.control_bad) == (0, 0)


def test_shadows_are_judged_by_predicates_and_by_classify():
    """Of a nested canary its own guard tells."""

    async def useless(user):
        return "useless", user

    for slos, guard in (
        ((USEFUL,), {}),
        ((), {"classify": lambda result, error: Outcome.BAD if result and result[0] == "useless" else None}),
    ):
        resilience, _, canary = made(*slos, candidate=useless, mode="shadow", guard={"idempotent": True, **guard})
        inner = resilience.canary(
            "inner",
            candidate=useless,
            bad=[slo.name for slo in slos] or ["up"],
            mode="shadow",
            guard={"idempotent": True, **guard},
            **OPTIONS,
        )

        @inner
        async def also_useless(user):
            return "useless", user

        @canary
        async def answer(user, nested=also_useless):
            await nested(user)
            return "old", user

        async def go(function=answer):
            for number in range(60):
                assert await function(number) == ("old", number)
                for _ in range(4):
                    await asyncio.sleep(0)

        asyncio.run(go())
        assert canary.controller.phase == "rollback"
        assert canary.controller.status().finding.counts.control_bad == 0


def test_what_a_shadow_may_not_be():
    """With side effects, with a key, of another kind, or with objectives that only its guard can tell."""
    resilience, _ = process(availability())
    with pytest.raises(ConfigurationError) as caught:
        resilience.canary("answer", candidate=new_coroutine, bad="up", mode="shadow", key="user", shadow_limit=0, shadow_timeout=-1)
    paths = {problem.path.rpartition(").")[2] for problem in caught.value.problems}
    assert paths == {"guard.idempotent", "key", "shadow_limit", "shadow_timeout"}
    canary = resilience.canary("answer", candidate=new, bad="up", mode="shadow", guard={"idempotent": True}, interval=None)
    with pytest.raises(ConfigurationError, match="'split' or 'fallback' for this function"):
        canary(old)


async def new_coroutine(user):
    return "new", user


def test_a_key_that_cannot_be_read_goes_to_the_control():
    """It is reported once, and nobody's call fails for it; a key of None is placed by chance."""
    resilience, _, canary = made(candidate=new, key=lambda user: user["id"])
    events = []
    resilience.on(events.append, DefectFound)
    answer = canary(old)
    assert set(sides(answer, range(50))) == {"old"}
    assert [event.error for event in events] == ["TypeError"]
    assert set(sides(answer, [{"id": None}] * 100)) == {"old", "new"}
    assert len(set(sides(answer, [{"id": 17}] * 100))) == 1


def test_a_side_that_an_experiment_strikes_is_no_evidence():
    """Chaos would roll back what is well."""

    def broken(user):
        raise LookupError(user)

    _, _, canary = made(candidate=broken)
    answer = canary(old)
    canary.candidate.faults.rules = (object(),)
    for number in range(100):
        try:
            canary.failed(canary.controller.route, LookupError(), 0.0, None, candidate=True)
        except LookupError:
            raise AssertionError(number) from None
    canary.late(canary.controller.route, None, candidate=True)
    assert canary.controller.status().finding.counts.candidate_bad == 0
    assert answer is not old


def test_a_call_that_began_under_an_earlier_weight_counts_with_that():
    """Streams that last are told of at their end."""
    _, clock, canary = made(SLO("whole", 95.0, timedelta(days=1), completion=True), candidate=new_stream, allowed=None)
    stream = canary(old_stream)
    under_way = [stream() for _ in range(40)]
    for each in under_way:
        next(each)
    clock.advance(10.0)
    canary.controller.promote()
    assert canary.controller.weight == 1.0
    for each in under_way:
        with pytest.raises(ConnectionError):
            next(each)
    # Bad on both sides alike: evidence against neither, though by now nobody else is with the control.
    finding = canary.controller.status().finding
    assert finding.counts.candidate_bad + finding.counts.control_bad == 40
    assert finding.worse != 1.0
    assert finding.worse < 100.0


def new_stream():
    yield "new"
    raise ConnectionError


def old_stream():
    yield "old"
    raise ConnectionError


def test_what_is_wrong_is_told_at_once():
    """Before anything is made or started."""
    resilience, _ = process(availability())
    with pytest.raises(ConfigurationError) as caught:
        resilience.canary("a b", candidate=3, bad=(), key=4, mode="mirror", stepz=[1], alpha=7, guard={"slo": "up"})
    paths = {problem.path.rpartition(").")[2] for problem in caught.value.problems}
    assert paths == {"candidate", "bad", "key", "mode", "stepz", "alpha", "guard.slo", "name"}
    with pytest.raises(ConfigurationError, match=r"guard.idempotent"):
        resilience.canary("answer", candidate=new, bad="up", mode="fallback")
    with pytest.raises(ConfigurationError, match="did you mean 'up'"):
        resilience.canary("answer", candidate=new, bad="upp")
    assert not resilience.guards

    async def coroutine(user):
        return user

    canary = resilience.canary("answer", candidate=coroutine, bad="up", interval=None)
    with pytest.raises(ConfigurationError, match="a function, as the control"):
        canary(old)
    assert canary.controller.phase == ""
    with pytest.raises(ConfigurationError, match="an argument of old"):
        resilience.canary("other", candidate=new, bad="up", key="tenant", interval=None)(old)
