"""The child processes of one run: started on sockets that are bound already, watched, and ended with everything they left."""

from __future__ import annotations

import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Final, Self

from somaresil.demo import DemoError
from somaresil.demo.settings import LiveSettings, Settings

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["HOST", "ROLES", "Child", "Fleet"]

HOST: Final = "127.0.0.1"
ROLES: Final = ("model", "memory", "worker", "gateway")
STOP_SECONDS: Final = 4.0
"""How long all children together may take to end politely."""


@dataclass(frozen=True, slots=True)
class Child:
    """One process of ours."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path

    def tail(self, lines: int = 25) -> str:
        """The last lines it wrote."""
        return "\n".join(self.log.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])


class Fleet:
    """The processes of one run and the folder of their files. On leaving the ``with`` block all of it is gone.

    Children have sessions of their own, so that Ctrl-C in the terminal reaches the driver alone, which then ends them; if the driver is
    killed, the kernel kills them (:mod:`somaresil.demo.leash`).
    """

    def __init__(self) -> None:
        """Nothing is started."""
        self._stack = ExitStack()
        self._children: list[Child] = []
        self.folder = Path()
        """For files that live as long as the run."""

    def __enter__(self) -> Self:
        """Make the folder."""
        # Last in, first out: the children end before their files are taken away.
        self.folder = Path(self._stack.enter_context(TemporaryDirectory(prefix="somaresil-demo-", ignore_cleanup_errors=True)))
        self._stack.callback(self._stop)
        return self

    def __exit__(self, *_: object) -> None:
        """End every child, then remove the folder."""
        self._stack.close()

    @property
    def pids(self) -> dict[str, int]:
        """Process ids by name."""
        return {child.name: child.process.pid for child in self._children}

    def start_services(self, seed: int) -> Settings:
        """Start the four services on free loopback ports, and say where they are."""
        with ExitStack() as sockets:
            bound = {role: sockets.enter_context(_listening()) for role in ROLES}
            addresses = {role: f"http://{HOST}:{listening.getsockname()[1]}" for role, listening in bound.items()}
            settings = Settings(seed=seed, token=secrets.token_urlsafe(24), database=str(self.folder / "memory.sqlite3"), **addresses)
            for role, listening in bound.items():
                # It has one process of each service and leaves nothing behind, so there is no file to stop others by.
                allowed = {"SOMARESIL_CHAOS": "1", "SOMARESIL_CHAOS_SWITCH": "off"}
                self.serve(role, role, listening, settings.to_environment() | (allowed if role == "gateway" else {}))
        return settings

    def start_live(self, seed: int, *, workers: int, port: int) -> LiveSettings:
        """Start the same services, the gateway as so many processes on one port, and say where they are.

        Raises :class:`OSError` when the port is taken.
        """
        with ExitStack() as sockets:
            doors = [sockets.enter_context(door) for door in _doors(workers, port)]
            bound = {role: sockets.enter_context(_listening()) for role in ROLES[:-1]} | {ROLES[-1]: doors[0]}
            addresses = {role: f"http://{HOST}:{listening.getsockname()[1]}" for role, listening in bound.items()}
            folder = self.folder / "workers"
            folder.mkdir(mode=0o700)
            common = Settings(seed=seed, token=secrets.token_urlsafe(32), database=str(self.folder / "memory.sqlite3"), **addresses)
            for role in ROLES[:-1]:
                self.serve(role, role, bound[role], common.to_environment())
            settings = LiveSettings(**asdict(common), workers=str(folder))
            # One file stops the experiments of all of them, and goes when they go.
            allowed = {"SOMARESIL_CHAOS": "1", "SOMARESIL_CHAOS_SWITCH": str(self.folder / "gateway.switch")}
            # Whichever of them is asked for metrics tells those of all.
            metrics = self.folder / "metrics"
            metrics.mkdir(mode=0o700)
            allowed["PROMETHEUS_MULTIPROC_DIR"] = str(metrics)
            for number, door in enumerate(doors, 1):
                told = replace(settings, name=f"gateway-{number}", seed=seed + number)
                self.serve("live", told.name, door, told.to_environment() | allowed)
        return settings

    def listen(self) -> tuple[socket.socket, str]:
        """A socket on a free loopback port that lives as long as the run, for one process after the other; and its address."""
        listening = self._stack.enter_context(_listening())
        return listening, f"http://{HOST}:{listening.getsockname()[1]}"

    def serve(self, role: str, name: str, listening: socket.socket, environment: Mapping[str, str]) -> Child:
        """Start one service (:mod:`somaresil.demo.serve`) on this socket."""
        command = [sys.executable, "-m", "somaresil.demo.serve", role, str(listening.fileno()), str(os.getpid())]
        return self.start(name, command, environment, pass_fds=(listening.fileno(),))

    def start(
        self, name: str, command: Sequence[str], environment: Mapping[str, str] | None = None, *, pass_fds: Sequence[int] = ()
    ) -> Child:
        """Start one process; ``environment`` is added to a copy of ours without the variables of somaresil."""
        # Whatever the user's own service is told (production, a seed, a directory of metrics) is not meant for the demo.
        ours = {key: value for key, value in os.environ.items() if not key.startswith(("SOMARESIL_", "PROMETHEUS_MULTIPROC_"))}
        log = self.folder / f"{name}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=ours | dict(environment or {}),
                start_new_session=True,
                pass_fds=pass_fds,
            )
        child = Child(name, process, log)
        self._children.append(child)
        return child

    def check(self, names: Sequence[str] | None = None) -> None:
        """Raise :class:`DemoError` with its last words when a child has ended; ``names``: look at these only."""
        for child in self._children:
            code = child.process.poll()
            if code is not None and (names is None or child.name in names):
                raise DemoError(f"the {child.name} process ended with code {code}; its last lines:\n{child.tail() or '(it wrote nothing)'}")

    def last_words(self) -> str:
        """What the children have written, for an error report; they write only when something is wrong."""
        return "\n".join(f"--- {child.name} wrote:\n{words}" for child in self._children if (words := child.tail()))

    def ended(self) -> dict[str, int]:
        """Children that have ended by themselves, with their exit codes; each is told once."""
        over = {child.name: code for child in self._children if (code := child.process.poll()) is not None}
        self._children = [child for child in self._children if child.name not in over]
        return over

    def stop(self, child: Child) -> None:
        """End one child."""
        self._children.remove(child)
        _end([child])

    def _stop(self) -> None:
        children, self._children = self._children, []
        _end(children)


def _end(children: list[Child]) -> None:
    deadline = time.monotonic() + STOP_SECONDS
    for child in children:
        _signal(child, signal.SIGTERM)
    for child in children:
        with suppress(subprocess.TimeoutExpired):
            child.process.wait(max(0.0, deadline - time.monotonic()))
    for child in children:
        if child.process.poll() is None:
            _signal(child, signal.SIGKILL)
            child.process.wait()


def _signal(child: Child, number: signal.Signals) -> None:
    # Its own session means its own group, whose number is the process id.
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(child.process.pid, number)


def _listening(port: int = 0, *, shared: bool = False) -> socket.socket:
    listening = socket.socket()
    try:
        if shared:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listening.bind((HOST, port))
        listening.listen(512)
    except OSError:
        listening.close()
        raise
    return listening


def _doors(many: int, port: int) -> list[socket.socket]:
    """A socket for each of so many processes, all on one port.

    The kernel of Linux deals connections out to them; of processes that wait at one socket the same one would often be the first. Elsewhere
    it is one socket.
    """
    if sys.platform != "linux":
        first = _listening(port)
        return [first, *(first.dup() for _ in range(many - 1))]
    if port:
        # Whoever shares a port shares it with every process of the same user: with another demo too, which would get half of the requests.
        probe = socket.socket()
        with probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((HOST, port))
    first = _listening(port, shared=True)
    return [first, *(_listening(first.getsockname()[1], shared=True) for _ in range(many - 1))]
