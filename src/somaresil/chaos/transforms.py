"""What experiments do to the contents of an answer: damage it, or answer as a model does that has gone wrong.

Functions of one answer, or of one item of a stream, and a draw in [0, 1): the same answer and the same draw are changed alike. What they do
not understand comes back as the very same object, and that is how a fault knows that it was not made.

They understand plain text (``str``, ``bytes``), dictionaries of the chat interfaces of OpenAI (``choices`` with a ``message`` or a
``delta``) and Anthropic (``content`` blocks, and the events of its streams), and both as JSON or as SSE events, in whole lines.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, Final

__all__ = ["CORRUPTIONS", "DROP", "MODEL_FAULTS", "Corrupter", "Transform", "half_of", "through_text"]

Transform = Callable[[Any, float], Any]
"""Of an answer and a draw."""
Corrupter = Transform
"""One of the user's: gets an answer (or an item of a stream) and a draw in [0, 1), gives another answer; the same object: leave it."""

DROP: Final = object()
"""In place of an item: there is none."""

WRONG_MODEL: Final = "injected-wrong-model"
_REPEATS: Final = 50
_DEEPEST: Final = 20


def half_of(item: Any) -> Any:
    """The first half of text, at least one character; the same object when it cannot be halved."""
    return item[: max(1, len(item) // 2)] if isinstance(item, str | bytes) and len(item) > 1 else item


# -- structure ------------------------------------------------------------------------------------------------------------------------


def _truncate(answer: Any, u: float) -> Any:
    """Leave the rest off: of text, of a list, of the longest text in an object."""
    if isinstance(answer, str | bytes | list | tuple) and answer:
        return answer[: int(u * len(answer))]
    if isinstance(answer, Mapping):
        lengths = {key: len(value) for key, value in answer.items() if isinstance(value, str | list) and value}
        if lengths:
            longest = max(lengths, key=lengths.__getitem__)
            return {**answer, longest: _truncate(answer[longest], u)}
    return answer


def _drop_keys(answer: Any, u: float) -> Any:
    """Leave one field of an object out; of a list, in one of its objects."""
    if isinstance(answer, Mapping) and answer:
        gone = list(answer)[int(u * len(answer))]
        return {key: value for key, value in answer.items() if key != gone}
    if isinstance(answer, list):
        return _in_one(answer, u, _drop_keys)
    return answer


def _flip_numbers(answer: Any, u: float, depth: int = 0) -> Any:
    """Give every number the other sign; 0 becomes 1."""
    if isinstance(answer, bool) or depth > _DEEPEST:
        return answer
    if isinstance(answer, int | float):
        return -answer if answer else 1
    if isinstance(answer, Mapping):
        changed = {key: _flip_numbers(value, u, depth + 1) for key, value in answer.items()}
        return answer if all(changed[key] is answer[key] for key in changed) else changed
    if isinstance(answer, list):
        items = [_flip_numbers(value, u, depth + 1) for value in answer]
        return answer if all(one is other for one, other in zip(items, answer, strict=True)) else items
    return answer


def _in_one(items: list[Any], u: float, change: Transform) -> Any:
    """Change one of the items that can be changed."""
    made = [(place, new) for place, item in enumerate(items) if (new := change(item, u)) is not item]
    if not made:
        return items
    place, new = made[int(u * len(made))]
    return [*items[:place], new, *items[place + 1 :]]


def _any_damage(answer: Any, u: float) -> Any:
    """One of the others, as the draw says; where that can do nothing, the next that can."""
    ways = (_drop_keys, _flip_numbers, _truncate)
    scaled = u * len(ways)
    first = int(scaled)
    for step in range(len(ways)):
        changed = ways[(first + step) % len(ways)](answer, scaled - first)
        if changed is not answer:
            return changed
    return answer


# -- models ---------------------------------------------------------------------------------------------------------------------------


def _choices(answer: Mapping[str, Any], change: Callable[[dict[str, Any]], dict[str, Any]]) -> Any:
    """An answer in the shape of OpenAI with each of its choices changed."""
    choices = answer.get("choices")
    if not isinstance(choices, list) or not all(isinstance(choice, Mapping) for choice in choices):
        return answer
    made = [change(dict(choice)) for choice in choices]
    return answer if made == choices else {**answer, "choices": made}


def _said(change: Callable[[str], str]) -> Transform:
    """Change the text that a model says, wherever it stands."""

    def in_choice(choice: dict[str, Any]) -> dict[str, Any]:
        for part in ("message", "delta"):
            said = choice.get(part)
            if isinstance(said, Mapping) and isinstance(said.get("content"), str) and said["content"]:
                choice[part] = {**said, "content": change(said["content"])}
        if isinstance(choice.get("text"), str) and choice["text"]:
            choice["text"] = change(choice["text"])
        return choice

    def apply(answer: Any, u: float) -> Any:  # noqa: ARG001 - nothing is drawn here
        if isinstance(answer, str) and answer:
            return change(answer)
        if not isinstance(answer, Mapping):
            return answer
        if "choices" in answer:
            return _choices(answer, in_choice)
        content, delta = answer.get("content"), answer.get("delta")
        if isinstance(content, list) and any(_is_block(block, "text") for block in content):
            blocks = [{**block, "text": change(block["text"])} if _is_block(block, "text") else block for block in content]
            return {**answer, "content": blocks}
        if isinstance(content, str) and content:
            return {**answer, "content": change(content)}
        if isinstance(delta, Mapping) and isinstance(delta.get("text"), str) and delta["text"]:
            return {**answer, "delta": {**delta, "text": change(delta["text"])}}
        return answer

    return apply


def _is_block(block: Any, kind: str) -> bool:
    return (
        isinstance(block, Mapping)
        and block.get("type") == kind
        and isinstance(block.get("text" if kind == "text" else "input"), str | Mapping)
    )


def _again(text: str) -> str:
    words = text.split()
    return text + f" {words[-1]}" * _REPEATS if words else text


def _unfinished(answer: Any, u: float) -> Any:  # noqa: ARG001 - nothing is drawn here
    """Take out what says that a model has finished; an event that says nothing else is dropped."""
    if not isinstance(answer, Mapping):
        return answer
    if "choices" in answer:
        return _choices(answer, lambda choice: {**choice, "finish_reason": None} if choice.get("finish_reason") else choice)
    kind, delta = answer.get("type"), answer.get("delta")
    if kind == "message_stop" or (kind == "message_delta" and isinstance(delta, Mapping) and delta.get("stop_reason")):
        return DROP
    return {**answer, "stop_reason": None} if answer.get("stop_reason") else answer


def _malformed_call(answer: Any, u: float) -> Any:  # noqa: ARG001 - nothing is drawn here
    """Break off the arguments of each tool call in the middle, so that they are no JSON."""
    if not isinstance(answer, Mapping):
        return answer
    if "choices" in answer:
        return _choices(answer, _with_broken_calls)
    content, delta = answer.get("content"), answer.get("delta")
    if isinstance(content, list) and any(_is_block(block, "tool_use") for block in content):
        blocks = [{**block, "input": _broken(json.dumps(block["input"]))} if _is_block(block, "tool_use") else block for block in content]
        return {**answer, "content": blocks}
    if isinstance(delta, Mapping) and delta.get("type") == "input_json_delta" and delta.get("partial_json"):
        return {**answer, "delta": {**delta, "partial_json": _broken(str(delta["partial_json"]))}}
    return answer


def _with_broken_calls(choice: dict[str, Any]) -> dict[str, Any]:
    for part in ("message", "delta"):
        said = choice.get(part)
        calls = said.get("tool_calls") if isinstance(said, Mapping) else None
        if not isinstance(said, Mapping) or not isinstance(calls, list):
            continue
        broken = []
        for call in calls:
            function = call.get("function") if isinstance(call, Mapping) else None
            if isinstance(function, Mapping) and isinstance(function.get("arguments"), str) and function["arguments"]:
                broken.append({**call, "function": {**function, "arguments": _broken(function["arguments"])}})
            else:
                broken.append(call)
        choice[part] = {**said, "tool_calls": broken}
    return choice


def _broken(text: str) -> str:
    """No JSON: cut off in the middle, with a string begun."""
    return text[: len(text) // 2] + '"'


def _other_model(answer: Any, u: float) -> Any:  # noqa: ARG001 - nothing is drawn here
    if not isinstance(answer, Mapping):
        return answer
    if isinstance(answer.get("model"), str):
        return {**answer, "model": WRONG_MODEL}
    message = answer.get("message")
    if answer.get("type") == "message_start" and isinstance(message, Mapping) and isinstance(message.get("model"), str):
        return {**answer, "message": {**message, "model": WRONG_MODEL}}
    return answer


# -- text that holds structure --------------------------------------------------------------------------------------------------------


def through_text(change: Transform, *, plain: bool = True) -> Transform:
    """The same change for answers that are JSON or SSE in text or bytes; ``plain``: for text that is neither, too."""

    def apply(answer: Any, u: float) -> Any:
        if isinstance(answer, bytearray | memoryview):
            answer = bytes(answer)
        if not isinstance(answer, str | bytes):
            return change(answer, u)
        try:
            text = answer if isinstance(answer, str) else answer.decode()
        except UnicodeDecodeError:
            return change(answer, u) if plain else answer
        made = _in_text(text, u, change, plain=plain)
        if made is text or made is DROP:
            return answer if made is text else DROP
        return made if isinstance(answer, str) or not isinstance(made, str) else made.encode()

    return apply


def _in_text(text: str, u: float, change: Transform, *, plain: bool) -> Any:
    if text.startswith(("data:", "event:")) or "\ndata:" in text:
        return _in_events(text, u, change)
    if text[:1] in {"{", "["}:
        try:
            parsed = json.loads(text)
        except (ValueError, RecursionError):
            return change(text, u) if plain else text
        made = change(parsed, u)
        return text if made is parsed else made if made is DROP else json.dumps(made)
    return change(text, u) if plain else text


def _in_events(text: str, u: float, change: Transform) -> Any:
    """Events of SSE, separated by blank lines."""
    events, changed = [], False
    for event in text.split("\n\n"):
        made = _in_event(event, u, change)
        changed = changed or made is not event
        if made is not DROP:
            events.append(made)
    if not changed:
        return text
    return "\n\n".join(events) if any(events) else DROP


def _in_event(event: str, u: float, change: Transform) -> Any:
    lines = event.split("\n")
    for place, line in enumerate(lines):
        if not line.startswith("data:"):
            continue
        data = line.removeprefix("data:").strip()
        if data == "[DONE]":
            return DROP if change is _unfinished else event
        try:
            parsed = json.loads(data)
        except (ValueError, RecursionError):
            continue
        made = change(parsed, u)
        if made is DROP:
            return DROP
        if made is not parsed:
            return "\n".join([*lines[:place], f"data: {json.dumps(made)}", *lines[place + 1 :]])
    return event


CORRUPTIONS: Final[Mapping[str, Transform]] = {
    "any": through_text(_any_damage),
    "truncate": _truncate,
    "drop_keys": through_text(_drop_keys, plain=False),
    "flip_numbers": through_text(_flip_numbers, plain=False),
}
"""Ways to damage an answer, by the names that plans have for them."""

MODEL_FAULTS: Final[Mapping[str, Transform]] = {
    "stream_unfinished": through_text(_unfinished, plain=False),
    "malformed_tool_call": through_text(_malformed_call, plain=False),
    "empty_answer": through_text(_said(lambda _: "")),
    "repeated_tokens": through_text(_said(_again)),
    "wrong_model": through_text(_other_model, plain=False),
}
"""Kinds of faults that a model may have, and what each does to an answer."""
