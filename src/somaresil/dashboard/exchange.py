"""Workers of one service on one machine find each other through a folder and ask each other through sockets in it.

Each has a Unix socket there, listened to by a thread that sleeps until somebody connects: it costs nothing while nobody asks. What is said
is one JSON document with its length before it, in each direction, bounded in size, time and number.

The folder is ours alone (mode 0700), and the kernel is asked who connects (``SO_PEERCRED``): what can be asked here includes commands. A
socket that nobody answers belongs to a process that was killed; it is kept under another name for a minute, so that it is missed.
"""

from __future__ import annotations

import errno
import json
import os
import re
import secrets
import socket
import stat
import struct
import threading
from contextlib import closing, suppress
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from somaresil.config import Checker
    from somaresil.listeners import Listeners
    from somaresil.typing import Clock

__all__ = ["Exchange", "Gone", "Unanswered", "check_folder"]

_LARGEST_REQUEST: Final = 65_536
_LARGEST_ANSWER: Final = 64 * 1024 * 1024
_AT_ONCE: Final = 16
"""Questions that are answered at the same time; others wait in the backlog of the socket."""
_BACKLOG: Final = 64
_PATIENCE: Final = 5.0
"""Seconds for a question to be read, and for an answer to be taken."""
_REMEMBERED: Final = 60.0
"""Seconds for which the socket of a killed process is kept as ``.dead``."""
_GLANCE: Final = 0.1
_SWEPT: Final = 0.5
"""Seconds that whoever begins looks for others that are not there any more."""
_LENGTH: Final = struct.Struct("!I")
_CREDENTIALS: Final = struct.Struct("3i")
_LONGEST_PATH: Final = 100
"""Bytes that every system has room for in the address of a socket."""
_BY_DESCRIPTOR: Final = "/proc/self/fd"
MOST_WORKERS: Final = 256


class Unanswered(Exception):
    """Nobody has answered in time, or not properly. Its text says why, for people."""


class Gone(Unanswered):
    """The process that had this socket is not there any more."""


def check_folder(check: Checker, path: str, folder: object) -> None:
    """Note what is wrong with a folder for workers. One that is not there is made when it is needed."""
    if not isinstance(folder, str | os.PathLike) or not os.fspath(folder):
        check.problem(path, folder, "the path of a folder, or None")
        return
    if not hasattr(socket, "AF_UNIX") or not hasattr(os, "geteuid"):
        check.problem(path, folder, "None on this system", "it has no Unix sockets")
        return
    place = Path(os.fspath(folder))
    wrong = _wrong_with(place)
    if wrong:
        check.problem(path, os.fspath(folder), "a folder that only this user may read and write (mode 0700)", wrong)
    elif not Path(_BY_DESCRIPTOR).is_dir() and len(os.fsencode(place.absolute())) > _LONGEST_PATH - 40:
        check.problem(path, os.fspath(folder), f"a path of at most {_LONGEST_PATH - 40} bytes", "sockets have no room for longer ones")


def _wrong_with(folder: Path) -> str:
    try:
        found = folder.lstat()
    except FileNotFoundError:
        if not folder.parent.is_dir():
            return f"{folder.parent} is not there"
        return "" if os.access(folder.parent, os.W_OK | os.X_OK) else f"it is not there, and {folder.parent} is not writable"
    except OSError as refused:
        return refused.strerror or type(refused).__name__
    if stat.S_ISLNK(found.st_mode):
        return "it is a symbolic link"
    if not stat.S_ISDIR(found.st_mode):
        return "it is no folder"
    if found.st_uid != os.geteuid():
        return "it belongs to another user"
    return "others may look into it: chmod 700" if stat.S_IMODE(found.st_mode) & 0o077 else ""


class Exchange:
    """The socket of this process, and those of the others."""

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        service: str,
        answer: Callable[[Mapping[str, Any]], Any],
        clock: Clock,
        listeners: Listeners,
    ) -> None:
        """Nothing is listened to before :meth:`start`. ``answer`` is called in a thread for each question, and may raise."""
        self.folder = Path(os.fspath(folder))
        self._answer = answer
        self._clock = clock
        self._listeners = listeners
        self._prefix = blake2b(service.encode(errors="replace"), digest_size=4).hexdigest()
        self._pattern = re.compile(rf"{self._prefix}-([0-9]{{1,10}})-[0-9a-f]{{8}}\.(sock|dead)")
        self._socket: socket.socket | None = None
        self._directory: int | None = None
        self._begin()

    def _begin(self) -> None:
        self._lock = threading.RLock()
        self._places = threading.BoundedSemaphore(_AT_ONCE)
        self.name = f"{self._prefix}-{os.getpid()}-{secrets.token_hex(4)}.sock"
        """The socket of this process."""

    @property
    def listening(self) -> bool:
        """Whether others can ask this process."""
        return self._socket is not None

    # -- life -------------------------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Listen from now on, in a daemon thread. That it cannot is reported once, and then this process is not seen by others."""
        with self._lock:
            if self._socket is not None:
                return
            try:
                self._socket = self._listen()
            except (OSError, ValueError) as refused:
                self._listeners.defect("the folder of workers", refused, self._clock.time(), "other workers do not see this one")
                self._close()
                return
            self.sweep()
            thread = threading.Thread(target=self._serve, args=(self._socket,), name="somaresil-workers", daemon=True)
            try:
                thread.start()
            except RuntimeError as none_left:
                self._listeners.defect("thread somaresil-workers", none_left, self._clock.time(), "other workers do not see this one")
                self.stop()

    def _listen(self) -> socket.socket:
        self.folder.mkdir(mode=0o700, exist_ok=True)
        wrong = _wrong_with(self.folder)
        if wrong:
            raise ValueError(f"{self.folder}: {wrong}")
        directory = self._open()
        draft = f".{self.name}.tmp"
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            listener.bind(self._address(draft))
            os.chmod(draft, 0o600, dir_fd=directory)
            listener.listen(_BACKLOG)
            # Whoever sees it can connect: what refuses is dead.
            os.rename(draft, self.name, src_dir_fd=directory, dst_dir_fd=directory)
        except BaseException:
            listener.close()
            with suppress(OSError):
                os.unlink(draft, dir_fd=directory)
            raise
        return listener

    def _open(self) -> int:
        if self._directory is None:
            self._directory = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        return self._directory

    def _address(self, name: str) -> str:
        """Where a socket of the folder is, in few enough bytes."""
        if Path(_BY_DESCRIPTOR).is_dir():
            return f"{_BY_DESCRIPTOR}/{self._open()}/{name}"
        return str(self.folder.absolute() / name)

    def stop(self) -> None:
        """Listen no more, and leave the folder."""
        with self._lock:
            if self._socket is not None:
                with suppress(OSError):
                    os.unlink(self.name, dir_fd=self._open())
                with suppress(OSError):
                    # Closing alone would not wake the thread that waits for somebody to connect.
                    self._socket.shutdown(socket.SHUT_RDWR)
            self._close()
            self._begin()

    def _close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        if self._directory is not None:
            with suppress(OSError):
                os.close(self._directory)
            self._directory = None

    def mend(self) -> None:
        """Listen anew when somebody has cleaned up: without a name nobody finds this process, and without a folder nobody meets."""
        with self._lock:
            if self._socket is None or self._directory is None:
                return
            try:
                there, here = self.folder.lstat(), os.fstat(self._directory)
                os.stat(self.name, dir_fd=self._directory, follow_symlinks=False)
                lost = (there.st_dev, there.st_ino) != (here.st_dev, here.st_ino)
            except OSError:
                lost = True
            if lost:
                self.stop()
                self.start()

    def after_fork(self) -> None:
        """In the child: the socket is the parent's. :meth:`start` gives it one of its own."""
        self._close()
        self._begin()

    # -- answering --------------------------------------------------------------------------------------------------------------------

    def sweep(self) -> None:
        """Remember those that were killed as such, and forget those of long ago. Whoever starts does so, for perhaps nobody ever looks."""
        until = self._clock.monotonic() + _SWEPT
        for name, alive in self.others().items():
            if alive and self._clock.monotonic() < until:
                with suppress(OSError), closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)) as other:
                    other.settimeout(_GLANCE)
                    try:
                        other.connect(self._address(name))
                    except ConnectionRefusedError:
                        self.bury(name)
        with self._lock, suppress(OSError):
            directory, now = self._open(), self._clock.time()
            for name in [entry.name for entry in os.scandir(directory)]:
                if name.startswith(f".{self._prefix}-") and name.endswith(".tmp"):
                    with suppress(OSError):
                        if now - os.stat(name, dir_fd=directory, follow_symlinks=False).st_ctime > _REMEMBERED:
                            os.unlink(name, dir_fd=directory)

    def _serve(self, listener: socket.socket) -> None:
        while True:
            try:
                asker, _ = listener.accept()
            except OSError as ended:
                if ended.errno in {errno.ECONNABORTED, errno.EINTR, errno.EAGAIN}:
                    continue
                if ended.errno in {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}:
                    # There is nothing left to answer with for now.
                    self._clock.wait(threading.Event(), 1.0)
                    continue
                return
            places = self._places
            places.acquire()
            thread = threading.Thread(target=self._reply, args=(asker, places), name="somaresil-workers-answer", daemon=True)
            try:
                thread.start()
            except RuntimeError:
                asker.close()
                places.release()

    def _reply(self, asker: socket.socket, places: threading.BoundedSemaphore) -> None:
        try:
            with closing(asker):
                if not _is_ours(asker):
                    return
                asked = _receive(asker, _LARGEST_REQUEST, self._clock, _PATIENCE)
                try:
                    said = {"answer": self._answer(asked if isinstance(asked, dict) else {})}
                    data = json.dumps(said, allow_nan=False).encode()
                except Exception as defect:  # noqa: BLE001 - whoever asks hears of it, and nobody else
                    self._listeners.defect("answering another worker", defect, self._clock.time(), "it was told so")
                    data = json.dumps({"problem": type(defect).__qualname__}).encode()
                _send(asker, data, self._clock, _PATIENCE)
        except (OSError, ValueError, Unanswered):
            # Whoever asked has gone, or asked nothing that could be understood.
            pass
        finally:
            places.release()

    # -- asking -----------------------------------------------------------------------------------------------------------------------

    def others(self) -> dict[str, bool]:
        """The sockets of the other processes, and whether they are there: False for those that were killed a short while ago."""
        found: dict[str, bool] = {}
        with self._lock:
            try:
                directory = self._open()
                names = [entry.name for entry in os.scandir(directory)]
            except OSError:
                return found
            now = self._clock.time()
            for name in sorted(names):
                if name == self.name or self._pattern.fullmatch(name) is None or len(found) >= MOST_WORKERS:
                    continue
                alive = name.endswith(".sock")
                if not alive:
                    with suppress(OSError):
                        if abs(now - os.stat(name, dir_fd=directory, follow_symlinks=False).st_ctime) > _REMEMBERED:
                            os.unlink(name, dir_fd=directory)
                            continue
                found[f"{name[: name.rindex('.')]}.sock"] = alive
        return found

    def process_of(self, name: str) -> int | None:
        """The process id in the name of a socket."""
        found = self._pattern.fullmatch(name)
        return None if found is None else int(found[1])

    def bury(self, name: str) -> None:
        """Remember that nobody is there any more."""
        with self._lock, suppress(OSError):
            directory = self._open()
            os.rename(name, f"{name[: name.rindex('.')]}.dead", src_dir_fd=directory, dst_dir_fd=directory)

    def ask(self, name: str, question: Mapping[str, Any], timeout: float) -> Any:
        """What another process answers. Raises :class:`Gone` when it is not there any more, and :class:`Unanswered`."""
        with self._lock:
            if self._directory is None and not self.folder.is_dir():
                raise Gone("it has left")
            address = self._address(name)
        until = self._clock.monotonic() + timeout
        with closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)) as other:
            other.settimeout(timeout)
            try:
                other.connect(address)
            except FileNotFoundError:
                raise Gone("it has left") from None
            except ConnectionRefusedError:
                raise Gone("it has ended without a word") from None
            except OSError as refused:
                raise Unanswered("it does not answer" if isinstance(refused, TimeoutError | BlockingIOError) else str(refused)) from None
            if not _is_ours(other):
                raise Unanswered("it belongs to another user")
            try:
                _send(other, json.dumps(question, allow_nan=False).encode(), self._clock, until - self._clock.monotonic())
                said = _receive(other, _LARGEST_ANSWER, self._clock, until - self._clock.monotonic())
            except (OSError, ValueError) as broken:
                late = isinstance(broken, TimeoutError)
                raise Unanswered(f"no answer within {timeout:g} s" if late else f"it broke off ({type(broken).__name__})") from None
        if not isinstance(said, dict) or "answer" not in said:
            problem = said.get("problem") if isinstance(said, dict) else None
            raise Unanswered(f"it could not answer ({str(problem)[:60]})")
        return said["answer"]


def _is_ours(other: socket.socket) -> bool:
    """Whether whoever is at the other end is this user, or root. Where nobody can say, the mode of the folder decides."""
    option = getattr(socket, "SO_PEERCRED", None)
    if option is None:
        return True
    _, user, _ = _CREDENTIALS.unpack(other.getsockopt(socket.SOL_SOCKET, option, _CREDENTIALS.size))
    return user in {0, os.geteuid()}


def _send(other: socket.socket, data: bytes, clock: Clock, patience: float) -> None:
    if len(data) > _LARGEST_ANSWER:
        raise ValueError(f"{len(data)} bytes are too many")
    until = clock.monotonic() + patience
    view = memoryview(_LENGTH.pack(len(data)) + data)
    while view:
        other.settimeout(_left(until, clock))
        view = view[other.send(view[:1_048_576]) :]


def _receive(other: socket.socket, largest: int, clock: Clock, patience: float) -> Any:
    until = clock.monotonic() + patience
    (length,) = _LENGTH.unpack(_read(other, _LENGTH.size, clock, until))
    if length > largest:
        raise ValueError(f"{length} bytes are too many")
    try:
        return json.loads(_read(other, length, clock, until))
    except RecursionError:
        raise ValueError("it is too deep") from None


def _read(other: socket.socket, length: int, clock: Clock, until: float) -> bytes:
    data = bytearray()
    while len(data) < length:
        other.settimeout(_left(until, clock))
        piece = other.recv(min(1_048_576, length - len(data)))
        if not piece:
            raise ConnectionError("it broke off")
        data += piece
    return bytes(data)


def _left(until: float, clock: Clock) -> float:
    left = until - clock.monotonic()
    if left <= 0.0:
        raise TimeoutError("it took too long")
    return left
