"""What callers of a pool notice when, of five real servers, one turns slow and one fails; and how the two come back.

Five HTTP servers on loopback, in a process of their own, answer after 0.2 to 0.3 s. Callers come 100 times a second, whatever is going on.
After a while one server takes four seconds for an answer and another answers 500 at once; later both are well again. The pool has
``attempts=2``, breakers, ejections of three seconds and a slow start of five.

Held to: five seconds into the trouble, error rate and p99 are within 10 % of what they were; and while the two come back, none of them
ever has more than one and a half times its fair share of the calls, over any two seconds.
"""

from __future__ import annotations

import asyncio
import itertools
import sys
from collections import Counter
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from _measure import Benchmark, Ratio, Table

from somaresil import CircuitBreaker, Endpoint, OutlierEjection, Resilience
from somaresil.chance import Chance

if TYPE_CHECKING:
    from collections.abc import Iterable

SERVERS = ("one", "two", "three", "four", "five")
SLOW, FAILING = "one", "two"
RATE = 100.0
SHORTEST, LONGEST, SLOWEST = 0.2, 0.3, 4.0
GRACE = 5.0
"""Seconds after which callers must not notice any more."""
WINDOW = 2.0
FAIR = 1 / len(SERVERS)


class Phases(NamedTuple):
    """When the trouble begins and is over, and when it all ends; seconds."""

    trouble: float
    over: float
    end: float


# -- the servers: this file with the argument --serve -----------------------------------------------------------------------------------


class Server:
    """Answers one kind of request, in the way that it was last told to."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.mode = "well"
        self._chance = Chance(name)
        self._numbers = itertools.count()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                request = await reader.readuntil(b"\r\n\r\n")
                path = request.split(b" ", 2)[1].decode()
                status = b"200 OK"
                if path.startswith("/mode/"):
                    self.mode = path.removeprefix("/mode/")
                elif self.mode == "failing":
                    status = b"500 Internal Server Error"
                else:
                    usual = SHORTEST + (LONGEST - SHORTEST) * self._chance.draw("latency", self.name, next(self._numbers))
                    await asyncio.sleep(SLOWEST if self.mode == "slow" else usual)
                writer.write(b"HTTP/1.1 " + status + b"\r\ncontent-length: 2\r\n\r\nok")
                await writer.drain()
        writer.close()


async def serve() -> None:
    """Serve until the parent closes our standard input."""
    ports = []
    for name in SERVERS:
        server = await asyncio.start_server(Server(name).serve, "127.0.0.1", 0)
        ports.append(server.sockets[0].getsockname()[1])
    print(*ports, flush=True)
    await asyncio.to_thread(sys.stdin.read)


# -- the client -------------------------------------------------------------------------------------------------------------------------


class Client:
    """As much HTTP as the servers speak, with connections that are kept."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def get(self, path: str) -> None:
        reader, writer = self._idle.pop() if self._idle else await asyncio.open_connection("127.0.0.1", self._port)
        writer.write(f"GET {path} HTTP/1.1\r\nhost: loopback\r\n\r\n".encode())
        head = await reader.readuntil(b"\r\n\r\n")
        await reader.readexactly(2)
        self._idle.append((reader, writer))
        if not head.startswith(b"HTTP/1.1 200"):
            raise ConnectionError(head.partition(b"\r\n")[0].decode())

    def close(self) -> None:
        for _, writer in self._idle:
            writer.close()


# -- the callers ------------------------------------------------------------------------------------------------------------------------


class Run:
    """Everything that was seen, in seconds since the beginning."""

    def __init__(self, clients: dict[str, Client], phases: Phases) -> None:
        self.phases = phases
        self._clients = clients
        self._loop = asyncio.get_running_loop()
        self._began = self._loop.time()
        self.calls: list[tuple[float, float, bool]] = []
        """When it began, how long it took, whether it was good."""
        self.reached: list[tuple[float, str]] = []
        pool = Resilience("bench", seed=1).pool(
            "llm",
            [Endpoint(name, client) for name, client in clients.items()],
            attempts=2,
            slow_start=5.0,
            latency_decay=5.0,
            ejection=OutlierEjection(base_duration=3.0),
            breaker=CircuitBreaker(open_duration=3.0),
        )

        @pool
        async def call(endpoint: Endpoint[Client]) -> None:
            self.reached.append((self.now, endpoint.name))
            await endpoint.target.get("/work")

        self._call = call

    @property
    def now(self) -> float:
        return self._loop.time() - self._began

    async def live(self) -> None:
        troubles = [
            (self.phases.trouble, SLOW, "slow"),
            (self.phases.trouble, FAILING, "failing"),
            (self.phases.over, SLOW, "well"),
            (self.phases.over, FAILING, "well"),
        ]
        async with asyncio.TaskGroup() as tasks:
            for number in itertools.count():
                due = number / RATE
                if due >= self.phases.end:
                    break
                while troubles and troubles[0][0] <= due:
                    _, name, mode = troubles.pop(0)
                    await self._clients[name].get(f"/mode/{mode}")
                await asyncio.sleep(max(0.0, due - self.now))
                tasks.create_task(self._caller())

    async def _caller(self) -> None:
        began, good = self.now, True
        try:
            await self._call()
        except Exception:
            good = False
        self.calls.append((began, self.now - began, good))

    def seen(self, since: float, until: float) -> tuple[float, float, float]:
        """Error rate, and p50 and p99 in milliseconds, of the calls that began then."""
        calls = [(seconds, good) for began, seconds, good in self.calls if since <= began < until]
        seconds = sorted(1e3 * seconds for seconds, _ in calls)
        return sum(not good for _, good in calls) / len(calls), seconds[len(seconds) // 2], seconds[int(0.99 * len(seconds))]

    def share(self, name: str, since: float, until: float) -> float:
        """Which part of the calls reached this server then."""
        found = Counter(server for at, server in self.reached if since <= at < until)
        return found[name] / max(1, sum(found.values()))

    def largest(self, name: str) -> float:
        """The largest share of a server in any window after the trouble, in fair shares."""
        starts = [self.phases.over + step / 4 for step in range(int(4 * (self.phases.end - WINDOW - self.phases.over)) + 1)]
        return max(self.share(name, start, start + WINDOW) for start in starts) / FAIR

    def recovered_after(self) -> float:
        """Seconds of the trouble until each later second of it was as good as before."""
        errors, _, p99 = self.seen(0.0, self.phases.trouble)
        after = 0.0
        for second in range(int(self.phases.over - self.phases.trouble)):
            start = self.phases.trouble + second
            now_errors, _, now_p99 = self.seen(start, start + 1.0)
            if now_errors > errors + 0.01 or now_p99 > 1.25 * p99:
                after = second + 1.0
        return after


async def run(phases: Phases) -> Run:
    """Start the servers and live through it."""
    servers = await asyncio.create_subprocess_exec(
        sys.executable, __file__, "--serve", stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    assert servers.stdin is not None
    assert servers.stdout is not None
    try:
        ports = [int(port) for port in (await servers.stdout.readline()).split()]
        clients = {name: Client(port) for name, port in zip(SERVERS, ports, strict=True)}
        found = Run(clients, phases)
        await found.live()
        for client in clients.values():
            client.close()
    finally:
        servers.stdin.close()
        await servers.wait()
    return found


def table(found: Run, rows: Iterable[tuple[str, float, float]]) -> Table:
    """The phases, as callers saw them."""
    columns = ("errors %", "p50 ms", "p99 ms", *(f"% to {name}" for name in (SLOW, FAILING)), "% to others, each")
    made = Table("what callers saw", columns)
    for title, since, until in rows:
        errors, p50, p99 = found.seen(since, until)
        slow, failing = (100 * found.share(name, since, until) for name in (SLOW, FAILING))
        made.rows[title] = (100 * errors, p50, p99, slow, failing, (100 - slow - failing) / (len(SERVERS) - 2))
    return made


def main() -> None:
    bench = Benchmark(__doc__ or "", ("somaresil",))
    phases = Phases(2.0, 8.0, 11.0) if bench.quick else Phases(5.0, 14.0, 28.0)
    found = asyncio.run(run(phases))
    calm = phases.trouble + GRACE
    bench.tables.append(
        table(
            found,
            [
                ("all well", 0.5, phases.trouble),
                (f"trouble: the first {GRACE:.0f} s", phases.trouble, calm),
                ("trouble: after that", calm, phases.over),
                ("over: the first 3 s", phases.over, phases.over + 3.0),
                ("over: the last 2 s", phases.end - WINDOW, phases.end),
            ],
        )
    )
    errors, _, p99 = found.seen(0.5, phases.trouble)
    later_errors, _, later_p99 = found.seen(calm, phases.over)
    bench.ratios += [
        Ratio(f"p99 {GRACE:.0f} s into the trouble, of the p99 before", later_p99 / p99, 1.1),
        Ratio("errors then, in a hundred calls, beyond those before", 100 * (later_errors - errors), 0.1, "%"),
        Ratio(f"largest share of `{SLOW}` on its return, in fair shares", found.largest(SLOW), 1.5),
        Ratio(f"largest share of `{FAILING}` on its return, in fair shares", found.largest(FAILING), 1.5),
    ]
    bench.notes.append(f"Callers noticed it for {found.recovered_after():.0f} s.")
    bench.finish()


if __name__ == "__main__":
    if "--serve" in sys.argv:
        asyncio.run(serve())
    else:
        main()
