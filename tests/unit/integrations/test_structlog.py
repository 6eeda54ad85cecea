"""structlog: the same fields and the same lines as for the standard library's logging."""

from __future__ import annotations

import asyncio
import json
import logging

import pytest
import structlog

from somaresil import InjectedFault, Resilience, events
from somaresil.integrations.jsonlogs import JsonFormatter
from somaresil.integrations.structlog import structlog_processor, structlog_renderer


@pytest.fixture
def resilience():
    return Resilience("gateway", instance="gateway-1")


@pytest.fixture
def logged(resilience):
    """Give a logger, and what it has written."""
    factory = structlog.testing.CapturingLoggerFactory()
    logger = structlog.wrap_logger(factory(), processors=[structlog_processor(resilience), structlog_renderer(resilience)])
    return logger, lambda: [(call.method_name, json.loads(call.args[0])) for call in factory.logger.calls]


def test_an_event_is_told_where_it_was_written(resilience, logged):
    """In a guarded call, by guard and attempt; what is not known is left out."""
    log, written = logged
    resilience.guard("db").call(lambda: log.bind(user="u1", logger="app").warning("hello", password="hunter2"))
    log.info("outside")
    (method, line), (_, outside) = written()
    assert method == "warning"
    assert {key: value for key, value in line.items() if key != "time"} == {
        "level": "WARNING",
        "logger": "app",
        "message": "hello",
        "service.name": "gateway",
        "service.instance.id": "gateway-1",
        "user": "u1",
        "password": "[hidden]",
        "somaresil.guard": "db",
        "somaresil.attempt": 1,
    }
    assert not [key for key in outside if key.startswith("somaresil")]


def test_lines_are_those_of_the_formatter(resilience, logged):
    """A service that uses both has one kind of line."""
    log, written = logged
    log.error("a\nb", value=float("nan"), msg="kept beside", level="x")
    record = logging.getLogger("").makeRecord("", logging.ERROR, "", 0, "a\nb", (), None, extra={"value": float("nan")})
    expected = json.loads(JsonFormatter(resilience).format(record))
    ((_, line),) = written()
    assert line.pop("extra.msg") == "kept beside"
    assert {**line, "time": ""} == {**expected, "time": ""}


def test_errors_are_told_as_the_formatter_does(resilience, logged, monkeypatch):
    """Given as they are, as a flag and as the three parts; with the experiment that has raised them."""
    monkeypatch.setenv("SOMARESIL_CHAOS", "1")
    resilience = Resilience("gateway", environment="test", seed=1)
    resilience.chaos.opt_in()
    guard = resilience.guard("db")
    run = asyncio.run(resilience.chaos.inject_errors("db", rate=1.0))
    log, written = logged
    try:
        guard.call(str)
    except InjectedFault as fault:
        log.exception("one")
        log.error("two", exc_info=fault)
        log.error("three", exc_info=(type(fault), fault, fault.__traceback__))
    log.error("none", exc_info=True)  # noqa: LOG014 - on purpose
    log.error("odd", exc_info=(1,))
    found = [(line.get("exception.type"), line.get("somaresil.experiment")) for _, line in written()]
    assert found == [("somaresil.errors.InjectedFault", run.id)] * 3 + [(None, None)] * 2


def test_what_an_event_has_already_stays(logged):
    """Whoever gives a trace id of his own knows it better."""
    log, written = logged
    log.info("hello", trace_id="mine")
    assert written()[0][1]["trace_id"] == "mine"


def test_a_defect_changes_no_line(resilience, logged, monkeypatch):
    """It is reported once."""
    found = []
    resilience.on(found.append, events.DefectFound)
    monkeypatch.setattr("somaresil.integrations.structlog.fields", lambda *_: 1 / 0)
    log, written = logged
    log.info("one")
    log.info("two")
    assert [line["message"] for _, line in written()] == ["one", "two"]
    assert len(found) == 1
