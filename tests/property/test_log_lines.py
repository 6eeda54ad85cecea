"""Whatever is logged, a line is one line: nobody forges another, and JSON gives the text back."""

from __future__ import annotations

import json
import logging

from hypothesis import given
from hypothesis import strategies as st

from somaresil.integrations.jsonlogs import JsonFormatter, SafeFormatter

TEXTS = st.text(st.characters(exclude_categories=()) | st.sampled_from("\r\n\x1b\u2028\u202e\\%{}$\"'\ud800"), max_size=60)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXTS | st.binary(max_size=9) | st.builds(object),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS | st.integers(), inner, max_size=4) | st.tuples(inner),
    max_leaves=12,
)
RESERVED = {*vars(logging.makeLogRecord({})), "message", "asctime", "taskName"}
EXTRAS = st.dictionaries(TEXTS.filter(lambda name: name not in RESERVED), VALUES, max_size=6)
JSON = JsonFormatter(exception_messages=True)
PLAIN = SafeFormatter("%(levelname)s %(name)s %(message)s %(request_id)s", exception_messages=True)


def record_of(message, args, name, extra, error=None):
    info = None if error is None else (type(error), error, None)
    return logging.getLogger("x").makeRecord(name, logging.INFO, "", 0, message, args, info, extra=extra)


@given(message=TEXTS, name=TEXTS, extra=EXTRAS)
def test_any_message_is_one_line_that_gives_it_back(message, name, extra):
    """Without arguments a message is a text, whatever signs are in it."""
    text = JSON.format(record_of(message, (), name, extra))
    assert text.isascii()
    assert text.isprintable()
    line = json.loads(text)
    assert line["message"] == message
    assert line["logger"] == name


@given(message=TEXTS, args=st.lists(VALUES, max_size=3), extra=EXTRAS, said=TEXTS)
def test_any_record_is_one_line(message, args, extra, said):
    """With arguments that fit or do not, and with an error that says anything."""
    line = json.loads(text := JSON.format(record_of(message, tuple(args), "app", extra, ValueError(said))))
    assert text.isprintable()
    assert line["exception.message"] == said
    assert line["level"] == "INFO"


@given(name=TEXTS, value=TEXTS)
def test_any_field_is_found_again(name, value):
    """Under its name, or beside one of ours; or hidden."""
    extra = {f"x {name}": value}
    line = json.loads(JSON.format(record_of("m", (), "app", extra)))
    assert line[f"x {name}"] in {value, "[hidden]"}


@given(message=TEXTS, name=TEXTS, request=TEXTS, said=TEXTS)
def test_a_plain_line_is_one_line(message, name, request, said):
    """What follows it begins as no record does, and everything prints."""
    record = record_of(message, (), name, {"request_id": request}, ValueError(said))
    first, *others = PLAIN.format(record).split("\n")
    assert first.isprintable()
    assert first.startswith("INFO ")
    assert all(line.startswith("  | ") and line.isprintable() for line in others)
    assert PLAIN.format(record).splitlines() == [first, *others]


@given(message=TEXTS.filter(lambda text: text.isprintable() and "\\" not in text))
def test_a_plain_line_leaves_harmless_texts_alone(message):
    """Letters of every language are written as they are."""
    assert SafeFormatter("%(message)s").format(record_of(message, (), "app", {})) == message
