"""Lines of JSON and lines for people: bounded, harmless, without secrets, and there whatever was logged."""

from __future__ import annotations

import datetime as dt
import enum
import json
import logging
import logging.config
import math
import sys
import uuid
from decimal import Decimal
from pathlib import PurePosixPath

import pytest

from somaresil import ConfigurationError, Resilience, events
from somaresil.integrations._logvalues import HIDDEN, Cleaner, Room, timestamp
from somaresil.integrations.jsonlogs import LINE_KEYS, LOKI_LABELS, JsonFormatter, SafeFormatter, configure_logging, loki_labels
from somaresil.integrations.logging import DEFAULT_LEVELS, RateLimitFilter, log_events


@pytest.fixture
def resilience():
    return Resilience("gateway", instance="gateway-1", environment="staging")


def record_of(message="hello", *args, level=logging.INFO, name="app", extra=None, exc_info=None, stack_info=None):
    made = logging.getLogger(name).makeRecord(name, level, __file__, 1, message, args, exc_info, extra=extra, sinfo=stack_info)
    made.created = 1_764_281_900.1239
    return made


def line_of(*args, formatter=None, **more):
    text = (formatter or JsonFormatter()).format(record_of(*args, **more))
    assert text.isascii()
    assert text.isprintable()
    return json.loads(text)


def raised(error):
    try:
        raise error
    except BaseException:
        return sys.exc_info()


def test_a_line_has_time_level_logger_message_and_the_service(resilience):
    """In UTC, to the millisecond."""
    assert line_of("hello %s", "you", formatter=JsonFormatter(resilience)) == {
        "time": "2025-11-27T22:18:20.123Z",
        "level": "INFO",
        "logger": "app",
        "message": "hello you",
        "service.name": "gateway",
        "service.instance.id": "gateway-1",
        "deployment.environment.name": "staging",
    }


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "1970-01-01T00:00:00.000Z"),
        (0.9999, "1970-01-01T00:00:00.999Z"),
        (-0.5, "1969-12-31T23:59:59.500Z"),
        (951_782_400.0, "2000-02-29T00:00:00.000Z"),
    ],
)
def test_times_are_those_of_rfc_3339(seconds, text):
    """Cut off and not rounded: a line is never from the future."""
    assert timestamp(seconds) == text


def test_fields_have_the_names_of_opentelemetry_where_it_has_any():
    """Those of the filter that say nothing are left out."""
    extra = {
        "trace_id": "0af7651916cd43dd8448eb211c80319c",
        "span_id": "",
        "somaresil_guard": "db",
        "somaresil_attempt": 0,
        "http_route": "/items/{id}",
        "http_request_method": "GET",
        "user": "u1",
        "otelTraceID": "0",
    }
    line = line_of(extra=extra)
    assert {key: value for key, value in line.items() if key not in {"time", "level", "logger", "message"}} == {
        "trace_id": "0af7651916cd43dd8448eb211c80319c",
        "somaresil.guard": "db",
        "http.route": "/items/{id}",
        "http.request.method": "GET",
        "user": "u1",
    }


def test_events_become_their_fields(resilience):
    """With the name of the event, and zeros that mean something."""
    records = []
    logger = logging.getLogger("test_jsonlogs.events")
    logger.setLevel(logging.DEBUG)
    logger.propagate = False
    handler = logging.Handler()
    handler.emit = records.append
    logger.addHandler(handler)
    log_events(logger)(events.BreakerChanged("db", 0.0, "closed", "open", "trip", 0, 0, 0, 0.0, None, None, injected=False))
    logger.removeHandler(handler)
    line = json.loads(JsonFormatter(resilience).format(records[0]))
    assert line["event.name"] == "BreakerChanged"
    assert line["somaresil.guard"] == "db"
    assert line["somaresil.failures"] == 0
    assert line["somaresil.injected"] is False
    assert line["level"] == "WARNING"


@pytest.mark.parametrize(
    "name",
    [
        "password",
        "DB_PASSWORD",
        "dbPassword",
        "userpassword",
        "x-api-key",
        "apiKey",
        "APIKey",
        "openai_api_key",
        "access_token",
        "accessToken",
        "token",
        "Authorization",
        "proxy-authorization",
        "Set-Cookie",
        "cookie",
        "client_secret",
        "secret_name",
        "privateKey",
        "aws_secret_access_key",
        "credentials",
        "session_id",
        "sessionid",
        "jwt",
        "sentry_dsn",
        "otp",
        "passphrase",
    ],
)
def test_what_sounds_like_a_secret_is_hidden(name):
    """At the top and deep inside, whatever it is."""
    for value in ("hunter2", 4711, ["hunter2"], {"a": "hunter2"}, b"hunter2"):
        line = line_of(extra={name: value, "headers": {name: value, "deeper": [{name: value}]}})
        assert line[name] == HIDDEN
        assert line["headers"] == {name: HIDDEN, "deeper": [{name: HIDDEN}]}


@pytest.mark.parametrize(
    "name", ["prompt_tokens", "max_tokens", "token_count", "tokens", "author", "key", "primary_key", "keys", "route", "compass", "passed"]
)
def test_what_only_looks_a_little_like_one_is_not(name):
    """A service of language models logs tokens all day."""
    assert line_of(extra={name: 512})[name] == 512


def test_more_words_can_be_named_and_flags_are_none():
    """That there is a password is no password."""
    line = line_of(
        extra={"iban": "DE02", "customerIban": "DE02", "has_password": True, "password": None}, formatter=JsonFormatter(secrets=("iban",))
    )
    assert (line["iban"], line["customerIban"], line["has_password"], line["password"]) == (HIDDEN, HIDDEN, True, None)


def test_arguments_by_name_are_hidden_too():
    """A template that names a secret does not print it; the others are as they were."""
    assert line_of("%(user)s %(password)s %(n)03d", {"user": "u1", "password": "hunter2", "n": 7})["message"] == f"u1 {HIDDEN} 007"


class Chatty:
    def __repr__(self):
        return "secret of mine"

    __str__ = __repr__


class Broken(dict):
    def items(self):
        raise ZeroDivisionError


class Colour(enum.Enum):
    RED = "hunter2"


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (math.nan, "NaN"),
        (math.inf, "Infinity"),
        (-math.inf, "-Infinity"),
        (1.5, 1.5),
        (True, True),
        (None, None),
        (2**63 - 1, 2**63 - 1),
        (-(2**63) + 1, -(2**63) + 1),
        (10**5_000, "<number of 16610 bits>"),
        (b"raw", "<3 bytes>"),
        (Chatty(), "<tests.unit.integrations.test_jsonlogs.Chatty>"),
        (Broken(a=1), "<unreadable>"),
        (Colour.RED, "RED"),
        (ValueError("hunter2"), "<ValueError>"),
        (dt.datetime(2026, 1, 2, 3, 4, 5, tzinfo=dt.UTC), "2026-01-02T03:04:05+00:00"),
        (dt.timedelta(seconds=90), 90.0),
        (Decimal("1.10"), "1.10"),
        (uuid.UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (PurePosixPath("/a/b"), "/a/b"),
        ({3}, [3]),
        ({1: (1, "a")}, {"1": [1, "a"]}),
        ("x" * 2_000, "x" * 1_023 + "…"),
    ],
    ids=lambda value: "number" if isinstance(value, int) else repr(value)[:30],
)
def test_values_are_plain(value, written):
    """What JSON has no word for is told by its type, or in a text."""
    expected = written.replace("tests.unit.integrations.test_jsonlogs", __name__) if isinstance(written, str) else written
    assert line_of(extra={"value": value})["value"] == expected


def test_containers_are_bounded():
    """In depth, in number, and when they contain themselves."""
    circle = {}
    circle["again"] = circle
    line = line_of(extra={"circle": circle, "many": list(range(100)), "wide": {str(n): n for n in range(100)}, "deep": [[[[[1]]]]]})
    assert line["circle"] == {"again": {"again": {"again": {"again": "…"}}}}
    assert line["many"] == [*range(64), "… 36 more"]
    assert len(line["wide"]) == 65
    assert line["wide"]["…"] == "36 more"
    assert line["deep"] == [[[["…"]]]]


def test_a_line_is_bounded_whatever_is_in_its_containers():
    """Lists of lists of lists of texts are many texts."""
    deep = [[["x" * 1_000] * 64] * 64] * 64
    text = JsonFormatter().format(record_of(extra={"deep": deep, "again": {str(n): "y" * 500 for n in range(64)}, "after": 17}))
    assert len(text) < 20_000
    line = json.loads(text)
    assert line["deep"][-1] == "… 63 more"
    assert line["after"] == 17
    assert len(JsonFormatter().format(record_of("\u20ac" * 50_000, extra={"deep": [["\u20ac" * 1_000] * 64] * 64}))) < 256 * 1_024


def test_names_that_are_no_texts_are_left_out():
    """They come from code that writes into a record by itself."""
    assert "17" not in json.dumps(line_of(extra={4711: 17}))


def test_fields_are_bounded_in_number_and_the_rest_is_counted():
    """As OpenTelemetry counts what it drops."""
    line = line_of(extra={f"field{n}": n for n in range(100)})
    assert sum(key.startswith("field") for key in line) == 64
    assert line["dropped_attributes_count"] == 36


def test_nobody_writes_over_what_a_line_says():
    """A field that is called as one of ours is kept beside it."""
    extra = {
        "time": "yesterday",
        "level": "DEBUG",
        "logger": "other",
        "service.name": "evil",
        "exception.type": "None",
        "log.problem": "no",
    }
    line = line_of(extra=extra, formatter=JsonFormatter(Resilience("gateway")))
    assert (line["level"], line["logger"], line["service.name"]) == ("INFO", "app", "gateway")
    assert {key.removeprefix("extra."): value for key, value in line.items() if key.startswith("extra.")} == extra


def test_levels_are_the_usual_ones():
    """A level of somebody's own is told as the next one below: labels of Loki come of it."""
    levels = {5: "DEBUG", 10: "DEBUG", 25: "INFO", 30: "WARNING", 49: "ERROR", 50: "CRITICAL", 1_000: "CRITICAL"}
    assert {level: line_of(level=level)["level"] for level in levels} == levels


@pytest.mark.parametrize(("template", "args"), [("%d of %s", ("x", 1)), ("%s", (1, 2)), ("%(a)s", ({"b": 1},)), ("100 % sure %s", ("!",))])
def test_a_message_that_cannot_be_put_together_is_told_as_its_template(template, args):
    """With what was wrong; the line is not lost."""
    line = line_of(template, *args)
    assert line["message"] == template
    assert line["log.problem"] in {"TypeError", "KeyError", "ValueError"}
    assert SafeFormatter("%(message)s").format(record_of(template, *args)) == f"{template} (log.problem: {line['log.problem']})"


class Unspeakable:
    def __str__(self):
        raise ZeroDivisionError


def test_a_message_that_is_no_text_is_told_as_logging_does():
    """By its text, and by its type if it has none."""
    assert line_of(["a", 1])["message"] == "['a', 1]"
    line = line_of(Unspeakable())
    assert line["message"] == f"<{__name__}.Unspeakable>"
    assert line["log.problem"] == "ZeroDivisionError"
    assert SafeFormatter("%(message)s").format(record_of(Unspeakable())).startswith(f"<{__name__}.Unspeakable>")


def test_a_record_that_is_broken_is_still_a_line():
    """Whoever makes records by hand may make them wrong."""
    broken = logging.makeLogRecord({"msg": "hello", "created": math.nan, "levelno": None})
    line = json.loads(JsonFormatter().format(broken))
    assert (line["message"], line["log.problem"], line["level"]) == ("hello", "ValueError", "ERROR")
    assert "hello" in SafeFormatter("%(asctime)s %(message)s").format(broken)


def test_an_error_is_told_by_type_and_frames_without_its_message():
    """What a library puts into a message is not ours to publish."""
    try:
        try:
            raise ValueError("card 4111")
        except ValueError as first:
            raise LookupError("card 4111") from first
    except LookupError:
        found = sys.exc_info()
    line = line_of("lost", exc_info=found)
    assert line["exception.type"] == "LookupError"
    assert "card" not in json.dumps({**line, "exception.stacktrace": ""})
    stack = line["exception.stacktrace"].split("\n")
    assert stack[0] == "LookupError"
    assert stack[1].startswith(f"  {__file__}:")
    assert "because of ValueError" in stack
    plain = SafeFormatter("%(message)s").format(record_of("lost", exc_info=found)).split("\n")
    assert plain[0] == "lost"
    assert all(part.startswith("  | ") for part in plain[1:])
    assert plain[1] == "  | LookupError"


def test_messages_of_errors_and_no_stack_are_a_choice():
    """Of who runs the service."""
    found = raised(ValueError("what it says"))
    line = line_of(exc_info=found, formatter=JsonFormatter(exception_messages=True))
    assert line["exception.message"] == "what it says"
    assert line["exception.stacktrace"].startswith("ValueError: what it says\n")
    line = line_of(exc_info=found, formatter=JsonFormatter(stack=0))
    assert "exception.stacktrace" not in line
    assert line["exception.type"] == "ValueError"
    assert SafeFormatter("%(message)s", stack=0).format(record_of(exc_info=found)) == "hello\n  | ValueError"


def test_stacks_are_bounded():
    """Of recursion, of groups, of chains and of errors that cannot be read."""

    def dive(depth):
        if depth == 0:
            raise Unreadable
        dive(depth - 1)

    class Unreadable(ExceptionGroup):
        def __new__(cls):
            return super().__new__(cls, "many", [ValueError(n) for n in range(100)])

        def __str__(self):
            raise ZeroDivisionError

    try:
        dive(200)
    except Unreadable:
        found = sys.exc_info()
    line = line_of(exc_info=found, formatter=JsonFormatter(stack=2_000, exception_messages=True))
    assert len(line["exception.stacktrace"]) <= 2_000
    assert line["exception.message"] == "(its text cannot be read)"
    line = line_of(exc_info=found, formatter=JsonFormatter(stack=100_000))
    assert line["exception.stacktrace"].count("with ValueError") == 7
    assert line["exception.stacktrace"].count("in dive") <= 30
    assert line_of(stack_info="x" * 20_000)["code.stacktrace"] == "x" * 8_191 + "…"


def test_messages_are_bounded():
    """And a mark shows where."""
    assert line_of("x" * 1_000, formatter=JsonFormatter(longest=100))["message"] == "x" * 99 + "…"
    assert len(SafeFormatter("%(message)s", longest=100).format(record_of("\n" * 10_000))) <= 1_300


def test_access_lines_of_uvicorn_become_fields_without_the_query(resilience):
    """Clients put tokens into queries."""
    args = ("127.0.0.1:51234", "GET", "/items?token=hunter2", "1.1", 200)
    line = line_of('%s - "%s %s HTTP/%s" %d', *args, name="uvicorn.access")
    assert line["message"] == "GET /items 200"
    assert {key: line[key] for key in line if key in LINE_KEYS and "." in key} == {
        "http.request.method": "GET",
        "url.path": "/items",
        "network.protocol.version": "1.1",
        "client.address": "127.0.0.1:51234",
        "http.response.status_code": 200,
    }
    assert SafeFormatter("%(message)s").format(record_of("%s", *args, name="uvicorn.access")) == "GET /items 200"
    assert line_of("%s is odd", "it", name="uvicorn.access")["message"] == "it is odd"


def test_the_plain_formatter_escapes_what_could_forge_a_line():
    """Breaks of every kind, ESC and the marks that turn the direction of writing."""
    hostile = "a\r\n2026-01-01 INFO root forged\x1b[2J\u2028\u2029\x85\x0b\u202e\\n"
    text = SafeFormatter("%(levelname)s %(message)s %(request_id)s").format(record_of(hostile, extra={"request_id": "x\ny"}))
    assert text.isprintable()
    assert text.startswith("INFO a\\r\\n2026-01-01")
    assert text.endswith("\\\\n x\\ny")


def test_formats_may_name_fields_that_a_record_lacks():
    """Lines of loggers without the filter are written as well."""
    assert SafeFormatter("[%(trace_id)s %(somaresil_guard)s] %(message)s").format(record_of()) == "[ ] hello"
    assert "log.problem" in SafeFormatter("%(unheard)s %(message)s").format(record_of())


def test_labels_of_loki_are_few_and_say_where_a_line_is_from(resilience):
    """Not the instance, unless somebody wants it; never what is in the line."""
    assert loki_labels(resilience) == {"service_name": "gateway", "deployment_environment": "staging"}
    assert {*loki_labels(resilience), "level"} == {*LOKI_LABELS}
    assert loki_labels(Resilience("gateway"))["deployment_environment"] == "unknown"
    assert loki_labels(resilience, instance=True)["service_instance_id"] == "gateway-1"


def test_levels_of_all_events_are_few(resilience):
    """So the label has five values at most, whatever happens."""
    numbers = {level for level in DEFAULT_LEVELS.values() if isinstance(level, int)}
    assert {line_of(level=number)["level"] for number in numbers} <= {"DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"}


@pytest.fixture
def restored():
    """Give the root logger back as it was."""
    root = logging.getLogger()
    before = root.level, list(root.handlers)
    yield
    for handler in list(root.handlers):
        root.removeHandler(handler)
    root.setLevel(before[0])
    for handler in before[1]:
        root.addHandler(handler)
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access", "quiet"):
        logger = logging.getLogger(name)
        logger.setLevel(logging.NOTSET)
        logger.propagate = True
        logger.handlers.clear()


@pytest.mark.usefixtures("restored")
def test_the_preset_is_a_mapping_and_does_nothing_by_itself(resilience, capsys):
    """Whoever applies it gets lines of JSON from every logger, with the level that was asked for."""
    before = list(logging.getLogger().handlers)
    config = configure_logging(resilience, level="info", levels={"quiet": "WARNING"}, stream="stdout")
    assert logging.getLogger().handlers == before
    logging.config.dictConfig(config)
    guard = resilience.guard("db")
    guard.call(logging.getLogger("app").info, "hello")
    logging.getLogger("app").debug("not this")
    logging.getLogger("quiet").info("nor this")
    logging.getLogger("uvicorn.error").info("started")
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(line["logger"], line["message"], line.get("somaresil.guard")) for line in lines] == [
        ("app", "hello", "db"),
        ("uvicorn.error", "started", None),
    ]


@pytest.mark.usefixtures("restored")
def test_the_preset_for_people_is_one_line_and_may_be_limited(resilience, capsys):
    """Applied at once when asked to."""
    configure_logging(resilience, json=False, apply=True, limit=RateLimitFilter(resilience, burst=1))
    for _ in range(3):
        resilience.guard("db").call(logging.getLogger("app").info, "hello\nthere")
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith("INFO     app [  db] hello\\nthere")


@pytest.mark.usefixtures("restored")
def test_uvicorn_takes_the_preset(resilience):
    """With and without its colours, which it puts into formatters by their names."""
    uvicorn = pytest.importorskip("uvicorn")
    for colours in (None, True):
        uvicorn.Config(lambda *_: None, log_config=configure_logging(resilience), use_colors=colours)
        (handler,) = logging.getLogger().handlers
        assert isinstance(handler.formatter, JsonFormatter)
        assert not logging.getLogger("uvicorn.access").handlers


def test_every_problem_is_told_at_once(resilience):
    """As everywhere."""
    with pytest.raises(ConfigurationError) as wrong:
        configure_logging(resilience, level="loud", levels={"a": True}, stream="printer", limit=3, secrets=("--",))
    assert [problem.path.partition(".")[2] for problem in wrong.value.problems] == ["level", "levels[a]", "stream", "limit", "secrets"]
    for kind in (JsonFormatter, SafeFormatter):
        with pytest.raises(ConfigurationError) as wrong:
            kind(longest=1, stack=-1, exception_messages="yes", secrets=(3,))
        assert len(wrong.value.problems) == 4


def test_names_are_remembered_within_bounds():
    """Names of fields may come from outside."""
    cleaner = Cleaner()
    for number in range(5_000):
        cleaner.named(f"header-{number}", "x", Room())
    assert cleaner.is_secret.cache_info().currsize <= 1_024
