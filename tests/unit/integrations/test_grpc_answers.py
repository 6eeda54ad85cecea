"""What stands for an RPC that never was: the side of it that gRPC's users look at."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import grpc
import pytest

from somaresil import CallTimedOut, CircuitOpen
from somaresil.integrations._grpc import AioRefused, Answer, Lost, Over, Refused, code_of, refused
from somaresil.integrations._grpc_aio import _Given, _over, _Stream

CODE = grpc.StatusCode


def refusal(kind=Refused):
    return refused(CircuitOpen("db", 1.0), kind)


def test_a_fallbacks_answer_is_an_rpc_that_is_over_and_went_well():
    answer, told = Answer(b"given"), []
    answer.add_done_callback(told.append)
    assert told == [answer]
    assert (answer.code(), answer.details(), answer.result(), answer.exception(), answer.traceback()) == (CODE.OK, "", b"given", None, None)
    assert (answer.initial_metadata(), answer.trailing_metadata(), answer.time_remaining()) == ((), (), None)
    assert (answer.done(), answer.running(), answer.is_active(), answer.cancelled(), answer.cancel()) == (True, False, False, False, False)
    # As gRPC says it to who comes too late.
    assert answer.add_callback(told.append) is False
    with pytest.raises(NotImplementedError):
        Over().result()


@pytest.mark.parametrize("failed", [refusal(), Lost(CODE.UNAVAILABLE, "cut off")], ids=["refused", "lost"])
def test_what_failed_is_raised_by_its_result_and_given_by_its_exception(failed):
    with pytest.raises(grpc.RpcError) as raised:
        failed.result()
    assert raised.value is failed is failed.exception()
    assert failed.traceback() is failed.__traceback__ is not None
    assert failed.code() is CODE.UNAVAILABLE
    assert failed.details() == str(failed)


def test_a_lost_stream_raises_with_its_first_message():
    lost = Lost(CODE.UNAVAILABLE, "cut off")
    with pytest.raises(Lost, match="cut off"):
        list(lost)


def test_an_error_without_a_code_has_none():
    assert code_of(ValueError()) is None
    assert code_of(grpc.RpcError()) is None


def test_messages_of_a_fallback_can_be_read_in_every_way_that_grpc_has():
    async def plain():
        given, told = _Given([b"1", b"2"]), []
        given.add_done_callback(told.append)
        assert told == [given]
        assert [await given.read(), await given.read(), await given.read()] == [b"1", b"2", grpc.aio.EOF]
        await given.write(b"nobody reads it")
        await given.done_writing()
        await given.wait_for_connection()
        assert (await given.code(), await given.details(), await given.debug_error_string()) == (CODE.OK, "", "")
        assert (len(await given.initial_metadata()), len(await given.trailing_metadata())) == (0, 0)
        assert (given.done(), given.cancelled(), given.cancel(), given.time_remaining()) == (True, False, False, None)
        return await _Given(b"one")

    async def suspending():
        async def messages():
            yield b"1"
            yield b"2"

        return [message async for message in _Given(messages())]

    assert asyncio.run(plain()) == b"one"
    assert asyncio.run(suspending()) == [b"1", b"2"]


class Ending:
    """What was told of the end of a call."""

    def __init__(self, reading=False):
        self.reading = reading
        self.told = []
        self.guard = SimpleNamespace(name="db")

    def left(self):
        self.told.append("left")

    def complete(self):
        self.told.append("complete")

    def failed(self, error):
        self.told.append(error)


class Made:
    """An RPC of ``grpc.aio`` that is over."""

    def __init__(self, code=CODE.OK, cancelled=False):
        self._code = code
        self._cancelled = cancelled

    def cancelled(self):
        return self._cancelled

    async def code(self):
        if self._code is None:
            raise RuntimeError("nobody knows")
        return self._code

    async def details(self):
        return "as told"


def ended(made, **options):
    ending = Ending(**options)
    _over(ending, made)
    return ending.told


def test_the_end_of_an_rpc_is_told_as_it_ended_and_by_its_reader_alone_while_there_is_one():
    assert ended(Made()) == ["complete"]
    assert ended(Made(cancelled=True)) == ["left"]
    assert ended(Made(), reading=True) == []
    (error,) = ended(Made(CODE.INTERNAL))
    assert (error.code(), error.details()) == (CODE.INTERNAL, "as told")
    (unknown,) = ended(Made(None))
    assert str(unknown) == "nobody knows"


@pytest.mark.parametrize("guard", ["db", "other"])
def test_a_late_message_is_grpcs_own_error_and_closes_the_stream_when_the_guard_is_ours(monkeypatch, guard):
    late = CallTimedOut(guard, 1.0)

    async def too_late(source, ending):
        raise late

    closed = []

    class Source:
        async def aclose(self):
            closed.append(True)

    monkeypatch.setattr("somaresil.integrations._grpc_aio.anext_item", too_late)

    async def read():
        await anext(_Stream(Source(), Ending()))

    with pytest.raises(CallTimedOut) as raised:
        asyncio.run(read())
    if guard == "db":
        assert isinstance(raised.value, AioRefused)
        assert raised.value.code() is CODE.DEADLINE_EXCEEDED
        assert closed == [True]
    else:
        assert raised.value is late
        assert closed == []
