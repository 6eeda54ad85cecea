"""gRPC channels behind guards, blocking and asynchronous, on a real server."""

from __future__ import annotations

import asyncio
import gc
import pickle
import threading
from concurrent import futures
from types import SimpleNamespace

import grpc
import pytest

from somaresil import (
    BulkheadFull,
    CallTimedOut,
    CircuitOpen,
    ConfigurationError,
    DeadlineExceeded,
    InjectedFault,
    Outcome,
    Resilience,
    Retry,
    Timeout,
)
from somaresil.clock import ManualClock
from somaresil.integrations.grpc import GuardInterceptor, _over, aio_interceptors, guard_channel
from somaresil.testing.faults import inject
from tests.behaviour.kit import one_strike

GOOD, BAD, REJECTED, ABANDONED = Outcome.GOOD, Outcome.BAD, Outcome.REJECTED, Outcome.ABANDONED
CODE = grpc.StatusCode
NAME = "grpc.test.Echo"
PATIENCE = 20.0
ONCE = Retry(attempts=2, wait=0.0)


class Service:
    """A service that does as its requests say: ``fail:CODE``, ``hang``, ``items``, or an echo. ``failing`` fails the next ones first."""

    def __init__(self):
        self.failing = []
        self.asked = []
        self.remaining = []
        self.over = threading.Event()

    def _obey(self, request, context):
        self.asked.append(request)
        self.remaining.append(context.time_remaining())
        if self.failing:
            context.abort(self.failing.pop(0), "as told")
        if request.startswith(b"fail:"):
            context.abort(CODE[request[5:].decode()], "as told")
        if request == b"hang":
            gone = threading.Event()
            if context.add_callback(gone.set):
                gone.wait(PATIENCE)
        return request

    def unary(self, request, context):
        return self._obey(request, context)

    def many(self, request, context):
        self._obey(request, context)
        yield from (b"1", b"2")
        if request == b"cut":
            context.abort(CODE.UNAVAILABLE, "cut")
        if request == b"endless":
            gone = threading.Event()
            if context.add_callback(gone.set):
                gone.wait(PATIENCE)
        yield b"3"

    def gather(self, requests, context):
        return b"".join(self._obey(request, context) for request in requests)

    def talk(self, requests, context):
        for request in requests:
            yield self._obey(request, context)


@pytest.fixture(scope="module")
def server():
    """The service on a free port."""
    service = Service()
    running = grpc.server(futures.ThreadPoolExecutor(8))
    handlers = {
        "Unary": grpc.unary_unary_rpc_method_handler(service.unary),
        "Many": grpc.unary_stream_rpc_method_handler(service.many),
        "Gather": grpc.stream_unary_rpc_method_handler(service.gather),
        "Talk": grpc.stream_stream_rpc_method_handler(service.talk),
    }
    running.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Echo", handlers),))
    port = running.add_insecure_port("127.0.0.1:0")
    running.start()
    service.target = f"127.0.0.1:{port}"
    yield service
    running.stop(0).wait(PATIENCE)


@pytest.fixture(params=["sync", "aio"])
def mode(request):
    """Both kinds of channel."""
    return request.param


class Desk:
    """A process with a guarded channel of either kind, and a clock that waits for nobody."""

    def __init__(self, mode, server, **options):
        self.mode = mode
        self.server = server
        server.failing.clear()
        server.asked.clear()
        server.remaining.clear()
        self.clock = ManualClock()
        self.resilience = Resilience("tests", clock=self.clock, seed=7)
        self.guard_options = options
        if mode == "sync":
            self.interceptor = GuardInterceptor(self.resilience, **options)
        else:
            self.interceptors = aio_interceptors(self.resilience, **options)

    def run(self, use):
        """Have ``use(channel)``, a coroutine function, use a channel; errors are values."""

        async def with_channel():
            if self.mode == "sync":
                with grpc.intercept_channel(grpc.insecure_channel(self.server.target), self.interceptor) as channel:
                    return await use(channel)
            async with grpc.aio.insecure_channel(self.server.target, interceptors=self.interceptors) as channel:
                return await use(channel)

        try:
            return asyncio.run(with_channel())
        except Exception as error:
            return error

    def ask(self, request, **options):
        async def use(channel):
            answer = channel.unary_unary("/test.Echo/Unary")(request, **options)
            return answer if self.mode == "sync" else await answer

        return self.run(use)

    def read(self, request, **options):
        """The messages of a stream, and the error behind them."""

        async def use(channel):
            messages = []
            stream = channel.unary_stream("/test.Echo/Many")(request, **options)
            try:
                async for message in each(stream):
                    messages.append(message)
            except Exception as error:
                return messages, error
            return messages, None

        return self.run(use)

    def guard(self, name=NAME):
        return self.resilience.guards[name]

    def count(self, *outcomes):
        return self.guard().recorder.counts().total(*outcomes)

    def settled(self):
        """Wait until every call has ended: gRPC tells of ends in a thread of its own."""
        gc.collect()
        for _ in range(1_000):
            if not self.guard().bulkhead.active:
                return True
            threading.Event().wait(0.002)
        return False


async def each(stream):
    if hasattr(stream, "__aiter__"):
        async for message in stream:
            yield message
    else:
        for message in stream:
            yield message


# -- outcomes -----------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "outcome"),
    [
        ("UNAVAILABLE", BAD),
        ("DEADLINE_EXCEEDED", BAD),
        ("RESOURCE_EXHAUSTED", BAD),
        ("INTERNAL", BAD),
        ("UNKNOWN", BAD),
        ("DATA_LOSS", BAD),
        ("ABORTED", BAD),
        ("CANCELLED", ABANDONED),
        ("NOT_FOUND", GOOD),
        ("INVALID_ARGUMENT", GOOD),
        ("PERMISSION_DENIED", GOOD),
        ("FAILED_PRECONDITION", GOOD),
        ("UNIMPLEMENTED", GOOD),
    ],
)
def test_the_code_decides(mode, server, code, outcome):
    """The error is gRPC's own, and tells what it always told."""
    desk = Desk(mode, server, retry=ONCE)
    error = desk.ask(f"fail:{code}".encode())
    assert isinstance(error, grpc.RpcError)
    assert (error.code(), error.details()) == (CODE[code], "as told")
    assert desk.count(outcome) == desk.count() == 1


def test_an_answer_is_good(mode, server):
    """And comes as it is."""
    desk = Desk(mode, server)
    assert desk.ask(b"hello") == b"hello"
    assert desk.count(GOOD) == desk.count() == 1


def test_other_codes_may_be_bad(mode, server):
    """``bad_codes`` replaces the usual ones."""
    desk = Desk(mode, server, bad_codes={CODE.NOT_FOUND})
    desk.ask(b"fail:NOT_FOUND")
    desk.ask(b"fail:INTERNAL")
    assert (desk.count(BAD), desk.count(GOOD)) == (1, 1)


def test_classify_is_shown_messages_and_errors(mode, server):
    """As they come out of the stub."""
    seen = []

    def classify(result, error):
        seen.append((result, error and error.code()))

    desk = Desk(mode, server, classify=classify)
    desk.ask(b"hello")
    desk.ask(b"fail:NOT_FOUND")
    assert set(seen) == {(b"hello", None), (None, CODE.NOT_FOUND)}


def test_the_call_object_is_grpcs_own(mode, server):
    """Its code and metadata can be asked for."""
    desk = Desk(mode, server)

    async def use(channel):
        stub = channel.unary_unary("/test.Echo/Unary")
        if mode == "sync":
            answer, call = stub.with_call(b"hello")
            return answer, call.code(), tuple(call.trailing_metadata())
        call = stub(b"hello")
        return await call, await call.code(), tuple(await call.trailing_metadata())

    assert desk.run(use) == (b"hello", CODE.OK, ())


# -- streams ------------------------------------------------------------------------------------------------------------------------------


def test_a_stream_lasts_until_its_last_message(mode, server):
    """The permit is held until then."""
    desk = Desk(mode, server, bulkhead=1)

    async def use(channel):
        stream = channel.unary_stream("/test.Echo/Many")(b"go")
        held = []
        async for _ in each(stream):
            held.append(desk.guard().bulkhead.active)
        return held

    held = desk.run(use)
    assert held[0] == 1
    assert len(held) == 3
    assert desk.settled()
    assert desk.count(GOOD) == desk.count() == 1


@pytest.mark.parametrize("options", [{}, {"timeout": 5.0}, {"retry": ONCE, "idempotent": True}], ids=["plain", "timeout", "retry"])
def test_a_stream_that_breaks_off_is_bad(mode, server, options):
    """Its messages came, its error is gRPC's own, and nothing is made again."""
    desk = Desk(mode, server, bulkhead=1, **options)
    messages, error = desk.read(b"cut")
    assert messages == [b"1", b"2"]
    assert error.code() is CODE.UNAVAILABLE
    assert desk.settled()
    assert desk.count(BAD) == desk.count() == 1
    assert server.asked == [b"cut"]


def test_a_reader_that_cancels_says_nothing(mode, server):
    """The permit is back, and there is no verdict."""
    desk = Desk(mode, server, bulkhead=1, breaker=one_strike())

    async def use(channel):
        stream = channel.unary_stream("/test.Echo/Many")(b"endless")
        async for _ in each(stream):
            break
        stream.cancel()
        for _ in range(1_000):
            if not desk.guard().bulkhead.active:
                return stream
            await asyncio.sleep(0.002)
        raise AssertionError("the stream is there still, but it was cancelled")

    assert not isinstance(desk.run(use), AssertionError)
    assert desk.count(ABANDONED) == desk.count() == 1


def test_a_forgotten_stream_gives_its_permit_back(mode, server):
    """gRPC cancels it, the asynchronous one when its channel is closed, and nothing of ours keeps it from that."""
    desk = Desk(mode, server, bulkhead=1)

    async def use(channel):
        stream = channel.unary_stream("/test.Echo/Many")(b"endless")
        if mode == "sync":
            assert next(stream) == b"1"
        else:
            assert await stream.read() == b"1"
        assert desk.guard().bulkhead.active == 1
        del stream
        if mode == "sync":
            assert desk.settled()

    assert desk.run(use) is None
    assert desk.settled()
    assert desk.count(ABANDONED) == desk.count() == 1


def test_who_waits_is_told_how_it_ends():
    """gRPC tells of an end in a thread of its own, which has no say while a reader waits for the next message."""
    told = []
    ending = SimpleNamespace(reading=True, left=lambda: told.append("left"))
    _over(lambda: None, ending)
    ending.reading = False
    _over(lambda: None, ending)
    assert told == ["left"]


def test_many_messages_for_one(mode, server):
    """Sent from an iterator; never made again, for it is used up."""
    desk = Desk(mode, server, bulkhead=1, retry=ONCE, idempotent=True)

    async def use(channel):
        stub = channel.stream_unary("/test.Echo/Gather")
        return stub(iter([b"a", b"b"])) if mode == "sync" else await stub(iter([b"a", b"b"]))

    assert desk.run(use) == b"ab"
    assert desk.settled()
    assert desk.count(GOOD) == desk.count() == 1
    server.failing[:] = [CODE.UNAVAILABLE]
    assert desk.run(use).code() is CODE.UNAVAILABLE
    assert desk.settled()
    assert desk.count(BAD) == 1


def test_many_messages_for_many(mode, server):
    """Each answer before the next question, so nothing waits for a message that was not asked for."""
    desk = Desk(mode, server, bulkhead=1, retry=ONCE, idempotent=True, timeout=5.0)
    answered = threading.Semaphore(0)

    def questions():
        yield b"a"
        assert answered.acquire(timeout=PATIENCE)
        yield b"b"

    async def use(channel):
        messages = []
        stub = channel.stream_stream("/test.Echo/Talk")
        if mode == "sync":
            for message in stub(questions()):
                messages.append(message)
                answered.release()
            return messages
        call = stub()
        for question in (b"a", b"b"):
            await call.write(question)
            messages.append(await call.read())
        await call.done_writing()
        assert await call.read() is grpc.aio.EOF
        return messages

    assert desk.run(use) == [b"a", b"b"]
    assert desk.settled()
    assert desk.count(GOOD) == desk.count() == 1


def test_written_messages_for_one(server):
    """The interceptor waits for nothing that the caller has yet to write."""
    desk = Desk("aio", server, bulkhead=1)

    async def use(channel):
        call = channel.stream_unary("/test.Echo/Gather")()
        for part in (b"a", b"b"):
            await call.write(part)
        await call.done_writing()
        return await call

    assert desk.run(use) == b"ab"
    assert desk.settled()
    assert desk.count(GOOD) == desk.count() == 1


@pytest.mark.parametrize(("request_", "outcome"), [(b"hello", GOOD), (b"fail:INTERNAL", BAD), (b"fail:NOT_FOUND", GOOD)])
def test_a_future_lasts_until_it_is_done(server, request_, outcome):
    """Whoever asks for it."""
    desk = Desk("sync", server, bulkhead=1)

    async def use(channel):
        future = channel.unary_unary("/test.Echo/Unary").future(request_)
        return future.result(PATIENCE)

    result = desk.run(use)
    assert result == request_ or result.code() is not CODE.OK
    assert desk.settled()
    assert desk.count(outcome) == desk.count() == 1


def test_a_cancelled_future_says_nothing(server):
    """The caller has gone."""
    desk = Desk("sync", server, bulkhead=1)

    async def use(channel):
        future = channel.unary_unary("/test.Echo/Unary").future(b"hang")
        assert desk.guard().bulkhead.active == 1
        assert future.cancel()

    desk.run(use)
    assert desk.settled()
    assert desk.count(ABANDONED) == desk.count() == 1


# -- retries ------------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [CODE.UNAVAILABLE, CODE.RESOURCE_EXHAUSTED])
@pytest.mark.parametrize(("told", "attempts"), [(None, 1), (False, 1), (True, 2), (lambda request: request == b"hello", 2)])
def test_only_what_is_idempotent_is_made_again(mode, server, code, told, attempts):
    """No RPC says so by itself."""
    desk = Desk(mode, server, retry=ONCE, idempotent=told)
    server.failing[:] = [code]
    answer = desk.ask(b"hello")
    assert len(server.asked) == attempts
    assert answer == b"hello" if attempts == 2 else answer.code() is code
    assert desk.count() == 1


@pytest.mark.parametrize("code", ["NOT_FOUND", "INTERNAL"])
def test_other_codes_are_not_made_again(mode, server, code):
    """They say nothing about a second try."""
    desk = Desk(mode, server, retry=Retry(attempts=3, wait=0.0), idempotent=True)
    assert desk.ask(f"fail:{code}".encode()).code() is CODE[code]
    assert len(server.asked) == 1


def test_the_last_error_is_grpcs_own(mode, server):
    """After the last attempt, and when the circuit opened between two."""
    desk = Desk(mode, server, retry=ONCE, idempotent=True)
    error = desk.ask(b"fail:UNAVAILABLE")
    assert (error.code(), error.details(), len(server.asked)) == (CODE.UNAVAILABLE, "as told", 2)
    desk = Desk(mode, server, retry=ONCE, idempotent=True, breaker=one_strike())
    error = desk.ask(b"fail:UNAVAILABLE")
    assert (error.code(), error.details(), len(server.asked)) == (CODE.UNAVAILABLE, "as told", 1)


def test_a_stream_may_begin_anew_before_its_first_message(mode, server):
    """Then nobody has seen its beginning twice."""
    desk = Desk(mode, server, retry=ONCE, idempotent=True)
    server.failing[:] = [CODE.UNAVAILABLE]
    assert desk.read(b"go") == ([b"1", b"2", b"3"], None)
    assert len(server.asked) == 2
    messages, error = desk.read(b"fail:NOT_FOUND")
    assert (messages, error.code()) == ([], CODE.NOT_FOUND)


def test_a_fallback_answers(mode, server):
    """For a bad end, and not for an answer like NOT_FOUND."""

    def instead(request):
        return b"instead of " + request

    async def ainstead(request):
        return instead(request)

    desk = Desk(mode, server, fallback=instead if mode == "sync" else ainstead)
    assert desk.ask(b"fail:INTERNAL") == b"instead of fail:INTERNAL"
    assert desk.ask(b"fail:NOT_FOUND").code() is CODE.NOT_FOUND
    assert desk.count(GOOD) == desk.count() == 2


def test_a_fallback_answers_for_a_stream(mode, server):
    """With something that gives messages."""

    def instead(request):
        return [b"in", b"stead"]

    async def ainstead(request):
        return instead(request)

    desk = Desk(mode, server, fallback=instead if mode == "sync" else ainstead)
    assert desk.read(b"fail:INTERNAL") == ([b"in", b"stead"], None)
    assert desk.count(GOOD) == desk.count() == 1


@pytest.mark.parametrize("kind", ["unary_unary", "unary_stream", "stream_unary", "stream_stream"])
def test_a_fallback_answers_for_a_refusal(mode, server, kind):
    """Of any kind of RPC, though none was begun."""

    def instead(request):
        return [b"in", b"stead"] if kind.endswith("stream") else b"instead"

    async def ainstead(request):
        return instead(request)

    desk = Desk(mode, server, fallback=instead if mode == "sync" else ainstead, breaker=one_strike())

    async def use(channel):
        desk.resilience.guard(NAME, fallback=desk.guard_options["fallback"], breaker=one_strike())
        desk.resilience.breaker(NAME).trip(30.0)
        made = getattr(channel, kind)("/test.Echo/Any")(b"hello" if kind.startswith("unary") else iter([b"hello"]))
        if kind.endswith("stream"):
            messages = [message async for message in each(made)]
            return messages, made.code() if mode == "aio" else None
        return made if mode == "sync" else (await made, made.code())

    answered = desk.run(use)
    if mode == "aio":
        answered, code = answered
        assert asyncio.run(code) is CODE.OK
    elif kind.endswith("stream"):
        answered, _ = answered
    assert answered == instead(None)
    assert server.asked == []
    assert desk.count(GOOD) == desk.count() == 1
    gc.collect()


# -- refusals, timeouts, deadlines --------------------------------------------------------------------------------------------------------


def test_a_refusal_is_both(mode, server):
    """Who catches gRPC's errors catches it, and may ask for its code."""
    desk = Desk(mode, server, breaker=one_strike())
    desk.ask(b"fail:INTERNAL")
    refused = desk.ask(b"hello")
    assert isinstance(refused, CircuitOpen)
    assert isinstance(refused, grpc.RpcError if mode == "sync" else grpc.aio.AioRpcError)
    assert refused.code() is CODE.UNAVAILABLE
    assert refused.details() == str(refused)
    assert "circuit open" in str(refused)
    messages, error = desk.read(b"go")
    assert messages == []
    assert isinstance(error, CircuitOpen)
    copied = pickle.loads(pickle.dumps(refused))
    assert (type(copied), copied.code(), str(copied)) == (type(refused), refused.code(), str(refused))
    assert server.asked == [b"fail:INTERNAL"]


def test_a_full_bulkhead_is_exhausted(mode, server):
    """The code says what gRPC's users look for."""
    desk = Desk(mode, server, bulkhead=1)

    async def use(channel):
        stream = channel.unary_stream("/test.Echo/Many")(b"endless")
        async for _ in each(stream):
            break
        try:
            answer = channel.unary_unary("/test.Echo/Unary")(b"hello")
            return answer if mode == "sync" else await answer
        except grpc.RpcError as error:
            return error
        finally:
            stream.cancel()

    refused = desk.run(use)
    assert isinstance(refused, BulkheadFull)
    assert refused.code() is CODE.RESOURCE_EXHAUSTED


def test_a_refused_future_fails(server):
    """Its result is the refusal."""
    desk = Desk("sync", server, breaker=one_strike())
    desk.ask(b"fail:INTERNAL")

    async def use(channel):
        return channel.unary_unary("/test.Echo/Unary").future(b"hello").exception(PATIENCE)

    assert isinstance(desk.run(use), CircuitOpen)


def test_interceptors_outside_see_an_rpc_that_failed(server):
    """A refusal has the methods of a call and of a future."""
    desk = Desk("sync", server, breaker=one_strike())
    seen = []

    class Outer(grpc.UnaryUnaryClientInterceptor):
        def intercept_unary_unary(self, continuation, client_call_details, request):
            made = continuation(client_call_details, request)
            made.add_done_callback(lambda call: seen.append((call.code(), call.done(), call.exception() is call.exception())))
            return made

    async def use(channel):
        stub = grpc.intercept_channel(channel, Outer()).unary_unary("/test.Echo/Unary")
        for _ in range(2):
            with pytest.raises(grpc.RpcError):
                stub(b"fail:INTERNAL")

    assert desk.run(use) is None
    assert seen == [(CODE.INTERNAL, True, True), (CODE.UNAVAILABLE, True, True)]


def test_a_slow_answer_times_out(mode, server):
    """The guard cancels an asynchronous RPC; a blocking one has the limit as its native timeout."""
    desk = Desk(mode, server, timeout=0.05)
    late = desk.ask(b"hang")
    assert late.code() is CODE.DEADLINE_EXCEEDED
    assert isinstance(late, CallTimedOut if mode == "aio" else grpc.RpcError)
    assert desk.count(BAD) == desk.count() == 1


@pytest.mark.parametrize(("request_", "timeout"), [(b"hang", Timeout(first_item=0.05)), (b"endless", Timeout(idle=0.05))])
def test_a_stream_that_stops_times_out(server, request_, timeout):
    """Before its first message and between two."""
    desk = Desk("aio", server, timeout=timeout, bulkhead=1)
    messages, late = desk.read(request_)
    assert messages == ([b"1", b"2"] if request_ == b"endless" else [])
    assert isinstance(late, CallTimedOut)
    assert isinstance(late, grpc.aio.AioRpcError)
    assert late.code() is CODE.DEADLINE_EXCEEDED
    assert desk.settled()
    assert desk.count(BAD) == desk.count() == 1


@pytest.mark.parametrize(("given", "left"), [(None, 30.0), (10.0, 10.0), (90.0, 30.0)])
def test_the_deadline_is_the_native_timeout(mode, server, given, left):
    """The shorter of the two goes along."""
    desk = Desk(mode, server)
    with desk.resilience.deadline(30.0):
        assert desk.ask(b"hello", timeout=given) == b"hello"
        assert desk.read(b"go", timeout=given)[1] is None
    # On its way gRPC rounds it up.
    assert all(left - 5.0 < seconds < left + 1.0 for seconds in server.remaining)
    assert len(server.remaining) == 2


def test_what_is_too_late_is_not_sent(mode, server):
    """The guard refuses it."""
    desk = Desk(mode, server)
    with desk.resilience.deadline(1.0):
        desk.clock.advance(1.0)
        refused = desk.ask(b"hello")
    assert isinstance(refused, DeadlineExceeded)
    assert refused.code() is CODE.DEADLINE_EXCEEDED
    assert server.asked == []


# -- names and experiments ----------------------------------------------------------------------------------------------------------------


def test_names_may_be_a_template_or_a_function(mode, server):
    """None lets an RPC pass, with its deadline all the same."""
    desk = Desk(mode, server, name="rpc.{method}")
    desk.ask(b"hello")
    desk.read(b"go")
    assert sorted(desk.resilience.guards) == ["rpc.Many", "rpc.Unary"]
    desk = Desk(mode, server, name=lambda details: None)
    with desk.resilience.deadline(30.0):
        assert desk.ask(b"hello") == b"hello"
        assert desk.read(b"go")[0] == [b"1", b"2", b"3"]
    assert all(seconds < 31.0 for seconds in server.remaining)
    assert not desk.resilience.guards


def test_a_channel_is_guarded_in_one_line(server):
    """The short way."""
    resilience = Resilience("tests")
    with guard_channel(grpc.insecure_channel(server.target), resilience, breaker=True) as channel:
        assert channel.unary_unary("/test.Echo/Unary")(b"hello") == b"hello"
    assert resilience.guards[NAME].breaker is not None


@pytest.mark.parametrize("make", [GuardInterceptor, aio_interceptors])
def test_mistakes_are_told_at_once(make):
    """Every one of them."""
    with pytest.raises(ConfigurationError) as wrong:
        make(Resilience("tests"), bad_codes=["UNAVAILABLE"], retry_codes=CODE.OK, name="{host}", braker=True)
    assert [problem.path.partition(".")[2] for problem in wrong.value.problems] == ["bad_codes", "retry_codes", "name", "braker"]


@pytest.mark.parametrize("error", [None, TimeoutError])
def test_a_struck_rpc_raises_what_the_experiment_says(mode, server, error):
    """Nothing is sent."""
    desk = Desk(mode, server)
    desk.ask(b"hello")
    with inject(desk.resilience, NAME, "error", error=error):
        assert type(desk.ask(b"hello")) is (error or InjectedFault)
        messages, raised = desk.read(b"go")
    assert messages == []
    assert type(raised) is (error or InjectedFault)
    assert server.asked == [b"hello"]


@pytest.mark.parametrize("kind", ["stream_cut", "stream_truncate"])
@pytest.mark.parametrize("after", [0, 1, 2])
def test_a_stream_can_be_cut(mode, server, kind, after):
    """The call is its first item, and each message one more."""
    desk = Desk(mode, server, bulkhead=1)
    assert desk.read(b"go") == ([b"1", b"2", b"3"], None)
    with inject(desk.resilience, NAME, kind, after_items=after):
        messages, error = desk.read(b"go")
    assert messages == [b"1", b"2", b"3"][: max(0, after - 1)]
    assert type(error) is (InjectedFault if kind == "stream_cut" else type(None))
    assert desk.settled()
    assert desk.count(BAD if kind == "stream_cut" else GOOD) == (1 if kind == "stream_cut" else 2)
