"""The views as text: what stands where, and that nothing a service says can break them."""

from __future__ import annotations

import time

import pytest

from somaresil.top_command import VIEWS
from somaresil.top_command.page import Look, Seen, plain, widest, worst_first
from somaresil.top_command.text import ASCII
from somaresil.top_command.views import draw
from tests.unit.top_command.kit import DETAIL, GUARD, PICTURE, event, picture


def page(view="overview", seen=None, **look):
    """A page as its lines; clocks are those of Greenwich."""
    options = {"width": 100, "guard": "llm.invoke", "local": time.gmtime} | look
    return plain(draw(seen or Seen(picture(), DETAIL, [event(1), event(2, "it closed again")]), Look(view, **options))).splitlines()


def test_the_overview():
    """Guards, those with an open circuit first; what is away and what runs on top."""
    assert page() == [
        "gateway   demo   22:18:20   1 of 3 sources",
        "stale: gateway-2, last seen 5 s ago   missing: gateway-3 (no answer)",
        "1 experiment runs, 10 faults injected",
        "",
        "   guard         circuit   calls/s   bad     p50     p95  p99  rejected  injected",
        "   llm.invoke    open 1/4     12.5  3.4%  120 ms  800 ms    -         5      1.3%",
        "   memory.write  closed        0.0    0%       -       -    -         0        0%",
        "",
        "   route                calls/s  bad  p50  p95  p99  rejected  injected  calls",
        "   /v1/session/message      0.0   0%    -    -    -         0        0%                      █▇▁▄",
        "",
        "pool models   a 100%",
        "",
        "limit 100: 3 active, 0 waiting",
    ]


def test_the_overview_in_sixty_columns():
    """What matters less is left out, and nothing is wrapped."""
    assert page(width=60)[4:8] == [
        "",
        "   guard         circuit   calls/s   bad     p95  injected",
        "   llm.invoke    open 1/4     12.5  3.4%  800 ms      1.3%",
        "   memory.write  closed        0.0    0%       -        0%",
    ]


def test_objectives_and_incidents():
    """Budget, burn rates and the time that is left; an incident that goes on."""
    assert page("slos")[4:] == [
        "   objective         target  budget left    5m   30m    1h  2h    6h    1d    3d  empty in  bad",
        "   api_availability   99.9%          42%  1.20  0.40  0.30   -  0.20  0.10  0.10      24 h    1",
        "burn rates: 1 uses the budget up in just its period",
        "",
        "incidents",
        "since     incident    lasted",
        "22:18:00  llm.invoke    20 s  goes on  by an experiment",
    ]


def test_one_guard():
    """Its circuit, counts, pipeline, rejections and the moves of its circuit."""
    lines = page("guard")
    for line in (
        "calls take the long way for breaker",
        "last 60 s         700   20         5          1        0        10",
        "since the start  7000   20         5          1        0        10",
        "pipeline, at most 31.5 s",
        "retry        31.5 s  3 attempts",
        "circuit_open 5",
        "2 open",
        "22:18:00  closed > open  gateway-1  7 of 10 were bad",
        "22:18:01  a circuit opened",
    ):
        assert line in lines


def test_latencies_as_a_map():
    """The slowest on top; a single slow call is to be seen beside hundreds of quick ones, and what nobody took is blank."""
    lines = page("guard", width=40)
    at = lines.index("latency")
    assert lines[at + 1 : at + 5] == [
        "over 10 s" + " " * 26 + "░",
        "to 10 s",
        "to 1 s" + " " * 29 + "░",
        "to 100 ms" + " " * 26 + "█ ▓",
    ]


def test_one_guard_without_more_about_it():
    """Until the details have come, or where they are about another one, there is what the picture says."""
    for detail in (None, {**DETAIL, "name": "memory.write"}):
        lines = page("guard", Seen(picture(), detail))
        assert "retry > breaker > timeout" in lines
        assert not any("circuit_open" in line for line in lines)


def test_a_guard_that_is_not_there():
    """Its absence is said, and what there is."""
    lines = page("guard", guard="llm.invke")
    assert "there is no guard llm.invke" in lines
    assert "the guards: llm.invoke, memory.write" in lines
    assert "no guard is chosen" in page("guard", guard="")


def test_experiments_and_plans():
    """Leases count down; who has started them; what may be started."""
    assert page("chaos")[4:] == [
        "experiments are allowed here",
        "",
        "   experiment  state      left  kind     target  rate  injected  absorbed  by     ended by",
        "   latency-1   running  41.2 s  latency  llm.*    20%        10         8  alice  -",
        "",
        "approved plans",
        "plan        about",
        "slow model  800 ms on a fifth of the calls",
    ]


def test_why_experiments_are_not_allowed():
    """Each problem on a line, and the lever on top."""
    problems = [{"path": "SOMARESIL_CHAOS", "value": None, "allowed": "1", "hint": None}, "opt_in was not called"]
    lines = page("chaos", Seen(picture(chaos={"allowed": False, "problems": problems, "engaged": "alice: incident 4711"}, experiments=[])))
    assert "the safety lever is engaged: alice: incident 4711" in lines
    assert "experiments are not allowed here" in lines
    assert "SOMARESIL_CHAOS: expected 1" in lines
    assert "opt_in was not called" in lines
    assert "no experiment" in lines


def test_canaries_and_their_evidence():
    """Phase, weight, and how much evidence would be enough."""
    assert page("canary")[4:] == [
        "   canary  version  phase    weight  outcome  why",
        "   llm     2        ramp_10     10%  -",
        "",
        "evidence about llm",
        "objective  that it is  bad  events  evidence  enough at",
        "api        worse         2      40         3        100",
        "worse" + " " * 92 + "▁▄█",
    ]


def test_events_newest_first():
    """With the time and who has told it, where there is room."""
    assert page("events")[4:] == ["22:18:02  it closed again", "22:18:01  a circuit opened"]
    assert page("events", width=120)[4] == "22:18:02  gateway-1                 it closed again"
    assert "2 older ones were not kept" in page("events", Seen(picture(), None, [event(1)], 2))


def test_events_of_single_calls_are_shown_where_one_wants_them():
    """A busy service has too many of them to see anything else."""
    seen = Seen(picture(), None, [event(1, "a call ended", level="debug"), event(2)])
    assert page("events", seen)[4:] == ["22:18:02  a circuit opened"]
    assert page("events", seen, detailed=True)[4:] == ["22:18:02  a circuit opened", "22:18:01  a call ended"]
    assert "only events of single calls" in page("events", Seen(picture(), None, [event(1, level="debug")]))


def test_what_is_left_of_a_budget_is_drawn_where_there_is_room():
    """As a row of bars."""
    assert page("slos", width=140)[5].endswith("█▅")


def test_alerts_are_on_top_of_every_view():
    """Whatever is looked at."""
    objective = {**PICTURE["objectives"][0], "alerts": [{"severity": "page", "since": 1.0}]}
    for view in VIEWS:
        assert "page: api_availability" in page(view, Seen(picture(objectives=[objective])))


@pytest.mark.parametrize(
    ("view", "wanted", "there", "away"),
    [
        ("overview", "LLM", "llm.invoke", "memory.write"),
        ("slos", "nothing", "no objective has this in its name", "api_availability"),
        ("chaos", "latency", "latency-1", "no experiment"),
        ("canary", "x", "no canary has this in its name", "ramp_10"),
        ("events", "closed again", "it closed again", "a circuit opened"),
    ],
)
def test_a_filter_leaves_names_out(view, wanted, there, away):
    """Whatever the case of its letters."""
    text = "\n".join(page(view, wanted=wanted))
    assert there in text
    assert away not in text


def test_an_empty_service_is_said_to_be_empty():
    """No view is blank."""
    nothing = Seen({"version": 1, "guards": []})
    assert "the service has no guards" in page("overview", nothing)
    assert "the service has no objectives" in page("slos", nothing)
    assert "the service has no canaries" in page("canary", nothing)
    assert "no event yet" in page("events", nothing)


@pytest.mark.parametrize("view", VIEWS)
def test_hostile_names_are_text(view):
    """Names that carry escapes, line breaks and marks of direction stay on their line as text."""
    evil = "\x1b]0;owned\x07\x1b[2J\n\u202egnp\x9b1A"
    guard = {**GUARD, "name": evil, "pipeline": [evil], "held_by": [evil], "keys": {evil: 1}}
    hostile = picture(
        service=evil,
        environment=evil,
        sources=[{"name": evil, "state": evil, "why": evil}],
        guards=[guard],
        routes=[guard],
        objectives=[{**PICTURE["objectives"][0], "name": evil, "alerts": [{"severity": evil}]}],
        incidents=[{**PICTURE["incidents"][0], "subject": evil}],
        experiments=[{**PICTURE["experiments"][0], "id": evil, "target": evil, "by": evil, "kind": evil}],
        chaos={"allowed": False, "problems": [evil], "engaged": evil},
        plans=[{"name": evil, "about": evil}],
        canaries=[{**PICTURE["canaries"][0], "name": evil, "reason": evil, "evidence": [{"slo": evil}]}],
        pools=[{"name": evil, "endpoints": [{"name": evil, "state": evil}]}],
    )
    detail = {**DETAIL, "name": evil, "rejections": {evil: 1}, "stages": [{"name": evil, "says": evil}]}
    detail["timeline"] = [{"at": 1.0, "before": evil, "after": evil, "source": evil, "cause": evil}]
    seen = Seen(hostile, detail, [event(1, evil, about=evil, source=evil)], trouble=evil)
    drawn = draw(seen, Look(view, 200, guard=evil, local=time.gmtime))
    assert all(span.text.isprintable() for line in [*drawn.head, *drawn.body] for span in line)
    assert "owned" in plain(drawn)


@pytest.mark.parametrize("view", VIEWS)
def test_wide_names_and_narrow_terminals(view):
    """Lines of any width fit, also with letters that take two cells."""
    wide = "模型" * 40
    seen = Seen(picture(service=wide, guards=[{**GUARD, "name": wide}], experiments=[{**PICTURE["experiments"][0], "id": wide}]))
    for width in (1, 2, 7, 20, 60, 133, 300):
        assert widest(draw(seen, Look(view, width, guard=wide))) <= width
        assert widest(draw(seen, Look(view, width, guard=wide, glyphs=ASCII))) <= width


def test_open_circuits_come_first():
    """Then by name, so that rows do not jump about."""
    guards = [{"name": name, "state": state} for name, state in (("b", "closed"), ("c", "half_open"), ("a", "closed"), ("d", None))]
    assert [guard["name"] for guard in worst_first(guards)] == ["c", "a", "b", "d"]
