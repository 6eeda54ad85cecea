"""What the services say to one another: chat completions that certify themselves.

The answer to a question contains the digest of the question, so at every hop a wrong answer can be told from a right one without asking
anybody. Real services have schemas, finish reasons and evaluations for that, and never all of it; a drill needs a judge who is sure.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from hashlib import blake2b
from typing import Any, Final

from somaresil.classify import Classify

__all__ = ["MODEL", "SORRY", "SOUND", "chunks_of", "completion", "digest", "is_sound", "text_of", "truth"]

MODEL: Final = "drill-1"
SORRY: Final = "I cannot find that out just now; please ask again in a moment."


def digest(text: str) -> str:
    """What the tool computes."""
    return blake2b(text.encode(), digest_size=8).hexdigest()


def truth(question: str) -> str:
    """The right answer."""
    return f"the digest of {question} is {digest(question)}"


def completion(question: str, content: str) -> dict[str, Any]:
    """An answer of a model in the shape that OpenAI has given it, with the call of the tool that it wants or has made."""
    arguments = json.dumps({"text": question})
    call = {"id": "call-1", "type": "function", "function": {"name": "digest", "arguments": arguments}}
    message = {"role": "assistant", "content": content, "tool_calls": [call]}
    return {"model": MODEL, "question": question, "choices": [{"index": 0, "finish_reason": "stop", "message": message}]}


def chunks_of(question: str, start: int = 0) -> list[dict[str, Any]]:
    """The same as the chunks of a stream from the chunk number ``start`` on; the last has the finish reason and no text."""
    words = truth(question).split()
    texts = [word if number == 0 else f" {word}" for number, word in enumerate(words)]
    made = [_chunk(question, number, {"content": text}, None) for number, text in enumerate(texts)]
    return [*made, _chunk(question, len(made), {}, "stop")][start:]


def _chunk(question: str, number: int, delta: dict[str, str], finish: str | None) -> dict[str, Any]:
    return {"model": MODEL, "question": question, "number": number, "choices": [{"index": 0, "finish_reason": finish, "delta": delta}]}


def text_of(chunk: Any, question: str, number: int) -> str | None:
    """The text of a chunk; None: it is the last. Raises ``ValueError`` when it is not the right one."""
    if not isinstance(chunk, Mapping) or chunk.get("model") != MODEL or chunk.get("number") != number:
        raise ValueError(f"a chunk that is none: {str(chunk)[:80]}")
    expected = chunks_of(question, number)[:1]
    if not expected or chunk != expected[0]:
        raise ValueError(f"a wrong chunk: {str(chunk)[:80]}")
    (choice,) = expected[0]["choices"]
    return None if choice["finish_reason"] else str(choice["delta"]["content"])


def is_sound(answer: Any, question: str | None = None) -> bool:
    """Whether it is the right answer to its question, from the right model, finished, with a call of the tool that can be read."""
    try:
        (choice,) = answer["choices"]
        (call,) = choice["message"]["tool_calls"]
        asked = json.loads(call["function"]["arguments"])["text"]
        right = asked == answer["question"] and choice["message"]["content"] == truth(asked)
        mine = question is None or asked == question
        return bool(answer["model"] == MODEL and choice["finish_reason"] == "stop" and right and mine)
    except (KeyError, TypeError, ValueError, AttributeError):
        return False


SOUND: Final = Classify(bad_result=lambda answer: not is_sound(answer))
"""Judges the answers of a guard: what is not sound is a failure, and another endpoint is asked."""
