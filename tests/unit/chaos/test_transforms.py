"""What is done to contents: text, JSON, SSE, and the answers of models; and what is not understood is the same object."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from somaresil.chaos.transforms import CORRUPTIONS, DROP, MODEL_FAULTS, half_of

UNFINISHED, MALFORMED = MODEL_FAULTS["stream_unfinished"], MODEL_FAULTS["malformed_tool_call"]
EMPTY, REPEATED, WRONG = MODEL_FAULTS["empty_answer"], MODEL_FAULTS["repeated_tokens"], MODEL_FAULTS["wrong_model"]
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=10,
)
ANY = {**CORRUPTIONS, **MODEL_FAULTS}


@pytest.mark.parametrize("name", ANY)
@given(answer=json_values | st.binary(max_size=20) | json_values.map(json.dumps), u=st.floats(0.0, 1.0, exclude_max=True))
def test_nothing_raises_and_the_original_is_never_touched(name, answer, u):
    """Whatever comes; and the same answer and draw are changed alike."""
    before = repr(answer)
    changed, again = ANY[name](answer, u), ANY[name](answer, u)
    assert repr(answer) == before
    assert changed is again or changed == again


@pytest.mark.parametrize("name", ANY)
@pytest.mark.parametrize("thing", [object(), None, 1.5j, {1, 2}])
def test_what_is_not_understood_comes_back_as_it_is(name, thing):
    """That is how a fault knows that it was not made."""
    assert ANY[name](thing, 0.5) is thing


def test_structure_is_damaged_by_name():
    """Each way does one thing."""
    assert CORRUPTIONS["truncate"]("abcdefgh", 0.5) == "abcd"
    assert CORRUPTIONS["truncate"]({"a": "x", "b": "long text"}, 0.0) == {"a": "x", "b": ""}
    assert CORRUPTIONS["drop_keys"]({"a": 1, "b": 2}, 0.9) == {"a": 1}
    assert CORRUPTIONS["drop_keys"]([{"a": 1}, 5], 0.0) == [{}, 5]
    assert CORRUPTIONS["flip_numbers"]({"a": 1, "b": [0, -2.5, True], "c": "x"}, 0.0) == {"a": -1, "b": [1, 2.5, True], "c": "x"}
    assert CORRUPTIONS["flip_numbers"](b'{"a": 1}', 0.0) == b'{"a": -1}'
    assert {str(CORRUPTIONS["any"]({"a": 1, "b": "text"}, place / 10)) for place in range(10)} >= {"{'a': -1, 'b': 'text'}"}


def answer(content="hello world", finish="stop", arguments='{"city": "Rome"}'):
    calls = [{"id": "1", "type": "function", "function": {"name": "weather", "arguments": arguments}}]
    message = {"role": "assistant", "content": content, "tool_calls": calls}
    return {"model": "gpt", "choices": [{"message": message, "finish_reason": finish}]}


CLAUDE = {
    "model": "claude",
    "stop_reason": "tool_use",
    "content": [{"type": "text", "text": "hello world"}, {"type": "tool_use", "name": "weather", "input": {"city": "Rome"}}],
}


def test_an_answer_in_the_shape_of_openai():
    """Each fault where it belongs, and everything else as it was."""
    assert UNFINISHED(answer(), 0) == answer(finish=None)
    assert EMPTY(answer(), 0) == answer(content="")
    assert WRONG(answer(), 0)["model"] != "gpt"
    assert REPEATED(answer(), 0)["choices"][0]["message"]["content"].split()[-40:] == ["world"] * 40
    broken = MALFORMED(answer(), 0)["choices"][0]["message"]["tool_calls"][0]["function"]
    assert broken["name"] == "weather"
    with pytest.raises(ValueError, match=r"Unterminated|Expecting|Invalid"):
        json.loads(broken["arguments"])


def test_an_answer_in_the_shape_of_anthropic():
    """As well."""
    assert UNFINISHED(CLAUDE, 0)["stop_reason"] is None
    assert EMPTY(CLAUDE, 0)["content"][0] == {"type": "text", "text": ""}
    assert WRONG(CLAUDE, 0)["model"] != "claude"
    assert isinstance(MALFORMED(CLAUDE, 0)["content"][1]["input"], str)


@pytest.mark.parametrize(
    ("fault", "event", "expected"),
    [
        (UNFINISHED, {"type": "message_stop"}, DROP),
        (UNFINISHED, {"type": "message_delta", "delta": {"stop_reason": "end_turn"}}, DROP),
        (EMPTY, {"type": "content_block_delta", "delta": {"type": "text_delta", "text": "hi"}}, ""),
        (MALFORMED, {"type": "content_block_delta", "delta": {"type": "input_json_delta", "partial_json": '{"a": 1}'}}, '{"a"" '),
    ],
)
def test_events_of_a_stream_of_anthropic(fault, event, expected):
    """The end is dropped, text and arguments are changed."""
    changed = fault(event, 0)
    if expected is DROP:
        assert changed is DROP
    else:
        assert changed["delta"] != event["delta"]
        assert changed["type"] == event["type"]


def sse(*data):
    return "".join(f"data: {line if isinstance(line, str) else json.dumps(line)}\n\n" for line in data)


def test_sse_is_changed_event_by_event():
    """In text and in bytes; what is no JSON passes, and the last word is dropped."""
    first, last = {"choices": [{"delta": {"content": "a b"}, "finish_reason": None}]}, {"choices": [{"delta": {}, "finish_reason": "stop"}]}
    text = sse(first, last, "[DONE]")
    assert UNFINISHED(text, 0) == sse(first, {"choices": [{"delta": {}, "finish_reason": None}]})
    assert UNFINISHED(text.encode(), 0) == UNFINISHED(text, 0).encode()
    assert UNFINISHED(sse("[DONE]"), 0) is DROP
    assert json.loads(EMPTY(sse(first), 0).removeprefix("data:"))["choices"][0]["delta"]["content"] == ""
    kept = ": ping\n\ndata: not json\n\n"
    assert UNFINISHED(kept, 0) is kept


def test_half_of_an_item_is_text():
    """At least a character; what has no half is itself."""
    assert [half_of(item) for item in ("abcd", b"abc", "a", "", 5)] == ["ab", b"a", "a", "", 5]


@pytest.mark.parametrize(
    ("fault", "thing"),
    [
        (MALFORMED, ["no mapping"]),
        (MALFORMED, {"choices": "none"}),
        (MALFORMED, {"choices": [{"message": {"tool_calls": [{"function": {"arguments": ""}}, "no call"]}}]}),
        (UNFINISHED, {"choices": [1, 2]}),
        (WRONG, ["no mapping"]),
        (WRONG, {"type": "message_start", "message": {"model": 4}}),
        (EMPTY, {"content": ""}),
    ],
)
def test_an_answer_of_another_shape_is_the_very_same_object(fault, thing):
    assert fault(thing, 0.5) is thing


def test_a_message_start_names_the_wrong_model_and_the_rest_stays():
    event = {"type": "message_start", "message": {"model": "claude", "role": "assistant"}}
    assert WRONG(event, 0.0) == {"type": "message_start", "message": {"model": "injected-wrong-model", "role": "assistant"}}


def test_text_and_content_in_other_places_is_emptied_too():
    assert EMPTY({"choices": [{"text": "hello"}]}, 0.0) == {"choices": [{"text": ""}]}
    assert EMPTY({"content": "hello"}, 0.0) == {"content": ""}


def test_of_tool_calls_only_those_with_arguments_are_broken_off():
    calls = [{"function": {"arguments": '{"a": 1}'}}, {"function": {"name": "no arguments"}}]
    (choice,) = MALFORMED({"choices": [{"message": {"tool_calls": calls}}]}, 0.0)["choices"]
    assert choice["message"]["tool_calls"] == [{"function": {"arguments": '{"a"' + '"'}}, calls[1]]


def test_buffers_are_bytes_and_what_is_neither_text_nor_json_is_damaged_only_where_plain_text_is():
    assert CORRUPTIONS["any"](bytearray(b"ab"), 0.9) in {b"", b"a"}
    assert CORRUPTIONS["drop_keys"](b"\xff{", 0.5) == b"\xff{"
    assert len(CORRUPTIONS["any"](b"\xff\xfe", 0.9)) < 2
    for broken in ("{no json", "[" * 100_000):
        assert CORRUPTIONS["drop_keys"](broken, 0.5) is broken
        assert CORRUPTIONS["any"](broken, 0.9) != broken


def test_an_event_without_json_is_left_and_one_that_ends_the_stream_is_dropped():
    assert UNFINISHED("data: plain words\n\ndata: more", 0.0) == "data: plain words\n\ndata: more"
    assert UNFINISHED('data: {"type": "message_stop"}', 0.0) is DROP


def test_a_list_is_damaged_in_one_of_the_objects_in_it():
    assert CORRUPTIONS["drop_keys"]([1, {"a": 1}, 2], 0.0) == [1, {}, 2]
    nothing = [1, 2]
    assert CORRUPTIONS["drop_keys"](nothing, 0.0) is nothing
