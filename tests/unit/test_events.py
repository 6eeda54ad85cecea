"""Events are frozen values; listeners hear what they want and change nothing."""

from __future__ import annotations

import dataclasses
import logging
import typing

import pytest

from somaresil import events
from somaresil.events import CallEnded, DefectFound, FallbackUsed, IncidentClosed
from somaresil.listeners import Listeners

ENDED = CallEnded("llm", 1.0, "bad", "Boom", 0.5, injected=False)
FELL_BACK = FallbackUsed("llm", 1.0, "Boom")


def broken(event):
    raise ValueError("listener")


@pytest.mark.parametrize("kind", typing.get_args(events.Event))
def test_every_event_is_frozen_and_has_its_place_in_the_module(kind):
    """Nobody can change what happened; every kind is exported, and none has a dictionary."""
    event = kind(*(None for _ in dataclasses.fields(kind)))
    with pytest.raises(dataclasses.FrozenInstanceError):
        event.at = 5.0
    assert not hasattr(event, "__dict__")
    assert kind.__name__ in events.__all__


def test_a_listener_hears_every_kind_or_those_it_named():
    """In the order in which they happened."""
    listeners, everything, some = Listeners(), [], []
    listeners.add(everything.append)
    listeners.add(some.append, FallbackUsed, IncidentClosed)
    listeners.emit(ENDED)
    listeners.emit(FELL_BACK)
    assert everything == [ENDED, FELL_BACK]
    assert some == [FELL_BACK]


def test_nobody_wants_what_nobody_listens_for():
    """So events are not even built."""
    listeners = Listeners()
    assert not listeners.wants(CallEnded)
    end_some = listeners.add(print, FallbackUsed)
    assert (listeners.wants(CallEnded), listeners.wants(FallbackUsed)) == (False, True)
    end_all = listeners.add(print)
    assert listeners.wants(CallEnded)
    end_all()
    assert not listeners.wants(CallEnded)
    end_some()
    end_some()
    assert not listeners.wants(FallbackUsed)


def test_one_function_may_listen_twice_and_end_once():
    """Each addition is ended by itself."""
    listeners, heard = Listeners(), []
    end = listeners.add(heard.append)
    listeners.add(heard.append)
    end()
    listeners.emit(ENDED)
    assert heard == [ENDED]


def test_a_listener_may_end_itself_and_add_others_while_it_is_told():
    """The others are told all the same; newcomers hear the next event."""
    listeners, heard = Listeners(), []

    def once(event):
        end()
        listeners.add(heard.append)

    end = listeners.add(once)
    listeners.add(heard.append)
    listeners.emit(ENDED)
    assert heard == [ENDED]
    listeners.emit(FELL_BACK)
    assert heard == [ENDED, FELL_BACK, FELL_BACK]


def test_a_raising_listener_is_dropped_and_reported_once(caplog):
    """In the log, with its traceback, and as an event for the others."""
    listeners, heard = Listeners(), []
    listeners.add(broken)
    listeners.add(heard.append)
    listeners.emit(ENDED)
    listeners.emit(ENDED)
    assert heard == [DefectFound(f"listener {__name__}.broken", 1.0, "ValueError"), ENDED, ENDED]
    (record,) = caplog.records
    assert (record.name, record.levelno) == ("somaresil", logging.ERROR)
    assert record.getMessage() == f"listener {__name__}.broken raised ValueError; it was dropped"
    assert record.exc_info[1].args == ("listener",)


def test_a_listener_of_defects_that_raises_ends_nothing_else(caplog):
    """Two broken ones report each other and are both gone."""
    listeners = Listeners()

    def also_broken(event):
        raise KeyError

    listeners.add(broken)
    listeners.add(also_broken)
    listeners.emit(ENDED)
    assert not listeners.wants(CallEnded)
    assert len(caplog.records) == 2


def test_a_listener_does_not_stop_the_process_from_ending():
    """KeyboardInterrupt is nobody's to keep; the listener stays."""
    listeners = Listeners()

    def interrupted(event):
        raise KeyboardInterrupt

    listeners.add(interrupted)
    with pytest.raises(KeyboardInterrupt):
        listeners.emit(ENDED)
    assert listeners.wants(CallEnded)


def test_a_defect_is_reported_once_for_each_place(caplog):
    """However often it happens."""
    listeners, heard = Listeners(), []
    listeners.add(heard.append)
    for _ in range(3):
        listeners.defect("clock.time", OSError("no clock"), 5.0)
        listeners.defect("classify", ValueError(), 6.0, "the usual judgement was used")
    assert heard == [DefectFound("clock.time", 5.0, "OSError"), DefectFound("classify", 6.0, "ValueError")]
    assert [record.getMessage() for record in caplog.records] == [
        "clock.time raised OSError; the call went on without it",
        "classify raised ValueError; the usual judgement was used",
    ]


def test_the_log_of_defects_has_an_end(caplog):
    """A place that is named by somebody's input does not fill the disk: 256 places, then silence."""
    listeners = Listeners()
    for number in range(1000):
        listeners.defect(f"place {number}", ValueError())
    assert len(caplog.records) == 256


def test_a_listener_without_a_name_is_named_by_its_type(caplog):
    """A callable object."""

    class Exporter:
        def __call__(self, event):
            raise ValueError

    listeners = Listeners()
    listeners.add(Exporter())
    listeners.emit(ENDED)
    assert "Exporter raised ValueError" in caplog.records[0].getMessage()
