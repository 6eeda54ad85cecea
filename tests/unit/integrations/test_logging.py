"""Events as log lines: sensible levels, bounded facts, and nothing in them that could forge a line or tell a secret."""

from __future__ import annotations

import logging
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from somaresil import CircuitBreaker, ConfigurationError, ManualClock, Resilience, Retry, events
from somaresil.eventtext import LONGEST, facts, harmless
from somaresil.integrations.logging import DEFAULT_LEVELS, log_events

OPENED = events.BreakerChanged("db", 0.0, "closed", "open", "exceeded", 5, 3, 0, 0.0, 30.0, "ValueError: card 4111", injected=False, era=2)
SECRET = "card 4111 1111"


def changed(after):
    return events.BreakerChanged("db", 0.0, "open", after, "reset", 5, 3, 0, 0.0, None, None, injected=False, era=2)


@pytest.fixture
def log(caplog):
    caplog.set_level(logging.DEBUG, "somaresil.events")
    return caplog


@pytest.mark.parametrize(
    ("event", "level"),
    [
        (OPENED, "WARNING"),
        (changed("forced_open"), "WARNING"),
        (changed("disabled"), "WARNING"),
        (changed("half_open"), "INFO"),
        (changed("closed"), "INFO"),
        (events.RetryScheduled("db", 0.0, 1, 0.25, "ValueError"), "DEBUG"),
        (events.CallEnded("db", 0.0, "bad", "ValueError", 0.25, injected=False), "DEBUG"),
        (events.IncidentClosed("db", 0.0, "db#1", 12.0, recovered=True, injected=False), "INFO"),
        (events.IncidentClosed("db", 0.0, "db#1", 12.0, recovered=False, injected=False), "WARNING"),
        (events.DefectFound("a listener", 0.0, "ValueError"), "ERROR"),
    ],
)
def test_levels_say_who_should_look(log, event, level):
    """A call is detail, a circuit that opens is a warning, a defect is an error."""
    log_events()(event)
    assert [record.levelname for record in log.records] == [level]


def test_a_line_says_what_happened_and_the_record_carries_the_facts(log):
    """Words for people, keys for machines, and of the last error its type alone."""
    log_events()(OPENED)
    (record,) = log.records
    assert record.getMessage() == "breaker of db went from closed to open (exceeded; 3 of 5 calls failed)"
    ours = {name: value for name, value in vars(record).items() if name.startswith("somaresil_")}
    assert (
        ours.items()
        >= {
            "somaresil_event": "BreakerChanged",
            "somaresil_guard": "db",
            "somaresil_after": "open",
            "somaresil_failures": 3,
            "somaresil_open_duration": 30.0,
            "somaresil_last_error": "ValueError",
            "somaresil_injected": False,
        }.items()
    )


@pytest.mark.parametrize("kind", get_args(events.Event), ids=lambda kind: kind.__name__)
def test_every_kind_of_event_has_a_level_and_a_text(log, kind):
    """Whatever happens can be written down, with strange values too."""
    fields = dict.fromkeys(kind.__dataclass_fields__, "\x1b[2J\n%s{x}")
    numbers = {"at", "elapsed", "attempt", "delay", "calls", "failures", "slow", "duration", "rate", "injected", "era", "open_duration"}
    numbers |= {"share", "pause", "lost_for", "late", "long", "burn", "threshold", "remaining", "below", "weight"}
    event = kind(**{name: 1 if name in numbers or name.endswith("_at") else value for name, value in fields.items()})
    assert kind in DEFAULT_LEVELS
    log_events()(event)
    (record,) = log.records
    assert record.getMessage() != kind.__name__
    assert record.getMessage().isprintable()


def test_nothing_that_a_caller_passes_in_is_written(log):
    """Arguments, results and messages of exceptions never reach the record."""
    clock = ManualClock()
    resilience = Resilience("service", clock=clock)
    resilience.on(log_events())
    guard = resilience.guard(
        "db",
        breaker=CircuitBreaker(consecutive_failures=1),
        retry=Retry(attempts=2, wait=0.0),
        fallback=lambda *_, **__: SECRET,
    )

    def query(number, *, header):
        raise ValueError(SECRET)

    assert guard.call(query, SECRET, header=SECRET) == SECRET
    assert guard.call(query, SECRET, header=SECRET) == SECRET
    assert {record.somaresil_event for record in log.records} >= {"BreakerChanged", "AttemptFailed", "FallbackUsed"}
    assert not [record for record in log.records if SECRET in repr(vars(record))]


def test_levels_can_be_changed_and_switched_off(log):
    """By number, by name in any case, or not at all."""
    listener = log_events(levels={events.CallEnded: "Info", events.RetryScheduled: 35, events.BreakerChanged: None})
    listener(events.CallEnded("db", 0.0, "bad", "ValueError", 0.25, injected=False))
    listener(events.RetryScheduled("db", 0.0, 1, 0.25, "ValueError"))
    listener(OPENED)
    assert [record.levelno for record in log.records] == [20, 35]


def test_the_logger_may_be_given_by_name_or_as_it_is(caplog):
    """Its own level decides before anything is made."""
    caplog.set_level(logging.WARNING, "app.resilience")
    for logger in ("app.resilience", logging.getLogger("app.resilience")):
        listener = log_events(logger)
        listener(events.RetryScheduled("db", 0.0, 1, 0.25, "ValueError"))
        listener(OPENED)
    assert [record.name for record in caplog.records] == ["app.resilience"] * 2


def test_wrong_arguments_are_all_named():
    """An unknown kind, an unknown level and a wrong logger are reported together."""
    with pytest.raises(ConfigurationError) as caught:
        log_events(3, {int: "INFO", events.CallEnded: "LOUD"})
    text = str(caught.value)
    assert len(caught.value.problems) == 3
    assert "levels[CallEnded]" in text
    assert "BreakerChanged" in text


@pytest.mark.parametrize(
    ("text", "safe"),
    [
        ("plain text", "plain text"),
        ("a\r\nb", "a\\r\\nb"),
        ("\x1b[31mred", "\\x1b[31mred"),
        ("\x9b31m", "\\x9b31m"),
        ("user\u202egnp.exe", "user\\u202egnp.exe"),
        ("\u2066x\u2069", "\\u2066x\\u2069"),
        ("a\u2028b", "a\\u2028b"),
        ("\ud800", "\\ud800"),
        ("\x00\x7f", "\\x00\\x7f"),
        ("already \\n", "already \\\\n"),
        ("Grüße 你好", "Grüße 你好"),
    ],
)
def test_what_steers_a_terminal_or_forges_a_line_is_written_as_an_escape(text, safe):
    """Line breaks, control characters, marks of direction and lone surrogates are shown, not obeyed."""
    assert harmless(text) == safe


@given(st.text(max_size=600), st.integers(2, 300))
def test_a_value_is_printable_and_short_whatever_comes_in(text, longest):
    """No text is longer than allowed, none has a character that is not printable, and short plain text is left alone."""
    safe = harmless(text, longest)
    assert len(safe) <= longest
    assert safe.isprintable()
    if text.isprintable() and "\\" not in text and len(text) <= longest:
        assert safe == text


def test_a_long_value_is_cut_between_escapes():
    """Half an escape would be another character."""
    safe = harmless("\n" * 500)
    assert safe == "\\n" * (LONGEST // 2 - 1) + "…"


def test_facts_leave_out_what_is_not_known():
    """None says nothing and is no value for a span."""
    assert "last_error" not in facts(changed("closed"))
    assert "at" not in facts(OPENED)
