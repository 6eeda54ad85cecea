"""Clients of redis-py behind guards, blocking and asynchronous, against a few lines that speak RESP."""

from __future__ import annotations

import asyncio
import pickle
import socket
import socketserver
import threading

import pytest
import redis
import redis.asyncio
from redis.backoff import NoBackoff

from somaresil import CallTimedOut, CircuitOpen, ConfigurationError, DeadlineExceeded, InjectedFault, Outcome, Resilience, Retry
from somaresil.clock import ManualClock
from somaresil.integrations.redispy import guard_redis
from somaresil.testing.faults import inject
from tests.behaviour.kit import one_strike

GOOD, BAD, REJECTED, IGNORED = Outcome.GOOD, Outcome.BAD, Outcome.REJECTED, Outcome.IGNORED
NAME = "redis.127.0.0.1"
ONCE = Retry(attempts=2, wait=0.0)


class Server(socketserver.ThreadingTCPServer):
    """Answers every command by the word that its key is, and remembers the commands that it was asked."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Session)
        self.asked = []
        self.failing = []
        self.over = threading.Event()
        self.port = self.server_address[1]
        self.thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self.thread.start()

    def stop(self):
        self.over.set()
        self.shutdown()
        self.server_close()
        self.thread.join(20.0)


class Session(socketserver.StreamRequestHandler):
    """One connection."""

    def handle(self):
        while line := self.rfile.readline():
            words = []
            for _ in range(int(line[1:])):
                size = int(self.rfile.readline()[1:])
                words.append(self.rfile.read(size).decode())
                self.rfile.readline()
            answer = self.answer(words)
            if answer is None:
                return
            self.wfile.write(answer)

    def answer(self, words):
        command, key = words[0].upper(), words[1] if len(words) > 1 else ""
        if command == "HELLO":
            return b"-ERR unknown command\r\n"
        if command in {"CLIENT", "SELECT", "MULTI"}:
            return b"+OK\r\n"
        self.server.asked.append(" ".join(words))
        if command == "EXEC":
            return b"*1\r\n+OK\r\n"
        if self.server.failing:
            return self.server.failing.pop(0)
        if key == "hang":
            self.server.over.wait(20.0)
            return None
        if key == "close":
            return None
        if key.startswith("-"):
            return f"{key}\r\n".encode()
        return b"+OK\r\n" if command in {"SET", "WATCH"} else b"$5\r\nvalue\r\n"


@pytest.fixture
def server():
    """On a free port."""
    running = Server()
    yield running
    running.stop()


@pytest.fixture(params=["sync", "async"])
def mode(request):
    """Both kinds of client."""
    return request.param


class Desk:
    """A process with a guarded client of either kind, and a clock that waits for nobody."""

    def __init__(self, mode, server, **options):
        self.mode = mode
        self.port = server if isinstance(server, int) else server.port
        self.resilience = Resilience("tests", clock=ManualClock(), seed=7)
        self.options = options

    def run(self, use):
        """Have ``use(client, wait)`` use a client; ``wait`` awaits what has to be. Errors are values."""
        kind = redis.Redis if self.mode == "sync" else redis.asyncio.Redis
        retry = redis.retry.Retry(NoBackoff(), 0) if self.mode == "sync" else redis.asyncio.retry.Retry(NoBackoff(), 0)

        async def wait(made):
            return await made if self.mode == "async" else made

        async def with_client():
            client = kind(host="127.0.0.1", port=self.port, retry=retry, protocol=2)
            guard_redis(client, self.resilience, **self.options)
            try:
                return await use(client, wait)
            except Exception as error:
                return error
            finally:
                if self.mode == "sync":
                    client.close()
                else:
                    # As it is called since redis-py 5.0.1.
                    await getattr(client, "aclose", client.close)()

        return asyncio.run(with_client())

    def do(self, *command):
        """One command."""

        async def use(client, wait):
            return await wait(client.execute_command(*command))

        return self.run(use)

    @property
    def guard(self):
        return self.resilience.guards[NAME]

    def count(self, *outcomes):
        return self.guard.recorder.counts().total(*outcomes)


# -- outcomes -----------------------------------------------------------------------------------------------------------------------------


def test_a_command_is_a_call(mode, server):
    """Its answer comes as it is, by whichever method it was asked."""

    async def use(client, wait):
        return await wait(client.get("key")), await wait(client.set("key", "value"))

    desk = Desk(mode, server)
    assert desk.run(use) == (b"value", True)
    assert desk.count(GOOD) == desk.count() == 2


@pytest.mark.parametrize(
    ("answer", "error", "outcome"),
    [
        ("-WRONGTYPE no", redis.ResponseError, GOOD),
        ("-NOSCRIPT no", redis.exceptions.NoScriptError, GOOD),
        ("-LOADING wait", redis.BusyLoadingError, BAD),
        ("-READONLY no", redis.ReadOnlyError, BAD),
        ("-OOM command not allowed", redis.OutOfMemoryError, BAD),
        ("-CLUSTERDOWN down", redis.ResponseError, BAD),
        ("-MISCONF cannot save", redis.ResponseError, BAD),
        ("close", redis.ConnectionError, BAD),
    ],
)
def test_the_class_of_the_error_decides(mode, server, answer, error, outcome):
    """It is redis-py's own."""
    desk = Desk(mode, server)
    raised = desk.do("GET", answer)
    assert isinstance(raised, error)
    assert not isinstance(raised, CircuitOpen)
    assert desk.count(outcome) == desk.count() == 1


def test_no_connection_is_bad(mode):
    """The exception is redis-py's own."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    desk = Desk(mode, port)
    assert type(desk.do("GET", "key")) is redis.ConnectionError
    assert desk.count(BAD) == desk.count() == 1


def test_what_never_left_says_nothing(mode, server):
    """A command that cannot be written down is its author's fault."""
    desk = Desk(mode, server)
    assert isinstance(desk.do("SET", "key", object()), redis.DataError)
    assert desk.count(IGNORED) == desk.count() == 1


# -- pipelines and what passes by ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("transaction", [True, False])
def test_a_pipeline_is_one_call(mode, server, transaction):
    """With all its commands; never made again, for it has forgotten them."""

    async def use(client, wait):
        pipeline = client.pipeline(transaction=transaction)
        pipeline.set("key", "value")
        return await wait(pipeline.execute())

    desk = Desk(mode, server, retry=ONCE, idempotent=True)
    assert desk.run(use) == [True]
    assert desk.count(GOOD) == desk.count() == 1

    async def fail(client, wait):
        pipeline = client.pipeline(transaction=False)
        pipeline.get("close")
        return await wait(pipeline.execute())

    server.asked.clear()
    assert isinstance(desk.run(fail), redis.ConnectionError)
    assert server.asked == ["GET close"]
    assert desk.count(BAD) == 1


def test_a_pipeline_that_watches_asks_at_once(mode, server):
    """Each such command is a call."""

    async def use(client, wait):
        pipeline = client.pipeline()
        await wait(pipeline.watch("key"))
        value = await wait(pipeline.get("key"))
        pipeline.multi()
        pipeline.set("key", "value")
        return value, await wait(pipeline.execute())

    desk = Desk(mode, server)
    assert desk.run(use) == (b"value", [True])
    assert desk.count(GOOD) == desk.count() == 3


@pytest.mark.parametrize("command", [("BLPOP", "key", "0"), ("XREAD", "BLOCK", "0", "STREAMS", "key", "$")])
def test_what_waits_passes_by(mode, server, command):
    """It is slow because nothing happens."""
    desk = Desk(mode, server, breaker=one_strike())
    desk.do("GET", "close")
    assert isinstance(desk.do("GET", "key"), CircuitOpen)
    assert not isinstance(desk.do(*command), CircuitOpen)
    assert server.asked[-1] == " ".join(command)
    assert desk.count() == 2


# -- retries ------------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "told", "attempts"),
    [
        (("GET", "key"), None, 2),
        (("HGETALL", "key"), None, 2),
        (("GET", "key"), False, 1),
        (("SET", "key", "value"), None, 1),
        (("INCR", "key"), None, 1),
        (("SET", "key", "value"), True, 2),
        (("SET", "key", "value"), lambda command: command[0] == "SET", 2),
    ],
)
def test_only_what_does_no_harm_is_made_again(mode, server, command, told, attempts):
    """Commands that read, and what the guard was told of."""
    server.failing[:] = [None]
    desk = Desk(mode, server, retry=ONCE, idempotent=told)
    answer = desk.do(*command)
    assert len(server.asked) == attempts
    assert isinstance(answer, redis.ConnectionError) is (attempts == 1)
    assert desk.count() == 1


def test_an_answer_is_not_asked_for_again(mode, server):
    """Unless the guard is told to: a wrong type stays wrong."""
    desk = Desk(mode, server, retry=Retry(attempts=3, wait=0.0, on=redis.ConnectionError))
    assert isinstance(desk.do("GET", "-WRONGTYPE no"), redis.ResponseError)
    assert len(server.asked) == 1


def test_a_fallback_answers(mode, server):
    """It is called with the command."""

    def instead(command):
        return f"instead of {command[1]}"

    async def ainstead(command):
        return instead(command)

    desk = Desk(mode, server, fallback=instead if mode == "sync" else ainstead)
    assert desk.do("GET", "close") == "instead of close"
    assert desk.count(GOOD) == desk.count() == 1


# -- refusals, timeouts, deadlines, experiments -------------------------------------------------------------------------------------------


def test_a_refusal_is_both(mode, server):
    """Who catches redis-py's errors catches it, and nothing is sent."""
    desk = Desk(mode, server, breaker=one_strike())
    desk.do("GET", "close")
    refused = desk.do("GET", "key")
    assert isinstance(refused, CircuitOpen)
    assert isinstance(refused, redis.ConnectionError)
    assert "CircuitOpen" in repr(refused)
    copied = pickle.loads(pickle.dumps(refused))
    assert (type(copied), str(copied)) == (type(refused), str(refused))
    assert server.asked == ["GET close"]
    assert desk.count(REJECTED) == 1


def test_a_slow_answer_times_out(server):
    """It is our error and redis-py's; its connection is not used again."""

    async def use(client, wait):
        with pytest.raises(CallTimedOut) as late:
            await client.get("hang")
        return late.value, await client.get("key")

    desk = Desk("async", server, timeout=0.05)
    late, value = desk.run(use)
    assert isinstance(late, redis.TimeoutError)
    assert value == b"value"
    assert (desk.count(BAD), desk.count(GOOD)) == (1, 1)


def test_what_is_too_late_is_not_sent(mode, server):
    """The guard refuses it."""
    desk = Desk(mode, server)
    with desk.resilience.deadline(1.0):
        desk.resilience.clock.advance(1.0)
        refused = desk.do("GET", "key")
    assert isinstance(refused, DeadlineExceeded)
    assert isinstance(refused, redis.ConnectionError)
    assert server.asked == []


def test_a_struck_command_raises_what_the_experiment_says(mode, server):
    """Nothing is sent."""
    desk = Desk(mode, server)
    desk.do("GET", "key")
    with inject(desk.resilience, NAME, "error"):
        assert type(desk.do("GET", "key")) is InjectedFault
    with inject(desk.resilience, NAME, "error", error=redis.BusyLoadingError):
        assert type(desk.do("GET", "key")) is redis.BusyLoadingError
    assert server.asked == ["GET key"]


# -- names --------------------------------------------------------------------------------------------------------------------------------


def test_names_may_be_a_template_or_a_function(mode, server):
    """None lets a command pass."""
    desk = Desk(mode, server, name="redis.{db}.{command}")
    desk.do("GET", "key")
    assert list(desk.resilience.guards) == ["redis.0.GET"]
    desk = Desk(mode, server, name=lambda command: None if command[0] == "GET" else "writes")
    desk.do("GET", "key")
    desk.do("SET", "key", "value")
    assert list(desk.resilience.guards) == ["writes"]


def test_mistakes_are_told_at_once():
    """Every one of them."""
    client = redis.Redis()
    guard_redis(client, Resilience("tests"))
    with pytest.raises(ConfigurationError) as wrong:
        guard_redis(client, Resilience("tests"), name="{path}", most_guards=0, braker=True)
    assert [problem.path.partition(".")[2] for problem in wrong.value.problems] == ["client", "most_guards", "name", "braker"]
    with pytest.raises(ConfigurationError):
        guard_redis(object(), Resilience("tests"))
