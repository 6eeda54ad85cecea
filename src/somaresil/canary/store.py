"""Where a rollout is, in a file: so that another process goes on with it, and one of several leads."""

from __future__ import annotations

import json
import math
import os
import re
import secrets
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from somaresil.model.rollout import Rollout
from somaresil.safefile import read_plain, replace_with

if TYPE_CHECKING:
    from collections.abc import Sequence

    from somaresil.canary.state import Trial
    from somaresil.model.rollout import Phase

__all__ = ["CanaryFile", "is_about", "place_of", "written"]

_FORM: Final = 1
_LARGEST: Final = 16 * 1024 * 1024
_MOST_PEERS: Final = 64
_OWN: Final = re.compile(r"[0-9]{1,10}-[0-9a-f]{8}")


class CanaryFile:
    """One rollout on disk, and the lock beside it that says who leads. The kernel gives the lock back when its holder dies."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Nothing is opened yet."""
        self.path = Path(path)
        self._lock: int | None = None
        self._seen: tuple[int, int, int] | None = None
        self._said: dict[str, Any] | None = None
        self._peer: Path | None = None
        self._peers: dict[str, tuple[tuple[int, int, int], dict[str, Any]]] = {}

    @property
    def leads(self) -> bool:
        """Whether this process holds the lock."""
        return self._lock is not None

    def lead(self) -> bool:
        """Take the lock unless another process has it; whether it is ours. Raises ``OSError`` when there can be none."""
        if self._lock is not None:
            return True
        import fcntl

        descriptor = os.open(
            self.path.with_name(f".{self.path.name}.lock"),
            os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | getattr(os, "O_NOFOLLOW", 0),
            0o600,
        )
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return False
        except BaseException:
            os.close(descriptor)
            raise
        self._lock = descriptor
        return True

    def let_go(self) -> None:
        """Give the lock back. In a fork this closes the copy alone, and the parent goes on leading."""
        descriptor, self._lock = self._lock, None
        if descriptor is not None:
            with suppress(OSError):
                os.close(descriptor)

    def read(self) -> dict[str, Any] | None:
        """What the file says; None: there is none. Raises ``OSError`` or ``ValueError`` when it must not be used."""
        try:
            found = self.path.lstat()
            signature = (found.st_ino, found.st_mtime_ns, found.st_size)
            if signature != self._seen:
                said = _loaded(read_plain(self.path, _LARGEST))
                if not isinstance(said, dict):
                    raise ValueError("it is no object")
                self._seen, self._said = signature, said
        except FileNotFoundError:
            return None
        return self._said

    def write(self, said: dict[str, Any]) -> None:
        """Replace it in one step. Raises ``OSError``."""
        replace_with(self.path, json.dumps(said, allow_nan=False).encode())

    def write_own(self, said: dict[str, Any]) -> None:
        """Tell who leads what this process has seen: a file beside it, which stays when the process is gone. Raises ``OSError``."""
        if self._peer is None:
            self._peer = self.path.with_name(f"{self.path.name}.{os.getpid()}-{secrets.token_hex(4)}")
        replace_with(self._peer, json.dumps(said, allow_nan=False).encode())

    def drop_own(self) -> None:
        """Take that back: this process leads, and what it has seen is in the snapshot from here on."""
        peer, self._peer = self._peer, None
        if peer is not None:
            peer.unlink(missing_ok=True)

    def forget_own(self) -> None:
        """What this process tells from here on is in another file: it has begun anew."""
        self._peer = None

    def peers(self) -> list[tuple[Path, dict[str, Any]]]:
        """What other processes have seen, 64 of them at most; those that cannot be read are left out. Raises ``OSError``."""
        found: list[tuple[Path, dict[str, Any]]] = []
        known: dict[str, tuple[tuple[int, int, int], dict[str, Any]]] = {}
        prefix = f"{self.path.name}."
        names = sorted(e.name for e in os.scandir(self.path.parent) if e.name.startswith(prefix) and _OWN.fullmatch(e.name[len(prefix) :]))
        for name in names[:_MOST_PEERS]:
            path = self.path.with_name(name)
            if path == self._peer:
                continue
            try:
                seen = path.lstat()
                signature = (seen.st_ino, seen.st_mtime_ns, seen.st_size)
                before = self._peers.get(name)
                said = before[1] if before is not None and before[0] == signature else _loaded(read_plain(path, _LARGEST))
            except (OSError, ValueError):
                continue
            if isinstance(said, dict):
                known[name] = (signature, said)
                found.append((path, said))
        self._peers = known
        return found


def _loaded(text: bytes) -> Any:
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("it is nested without end") from None


# -- what stands in a file ----------------------------------------------------------------------------------------------------------------


def written(name: str, trial: Trial, rollout: Rollout, now: float, at: float, reason: str) -> dict[str, Any]:
    """A canary as JSON takes it. Of times it has how long, and not since when: another process has another clock."""
    return {
        "form": _FORM,
        "canary": name,
        "version": trial.version,
        "checksum": trial.checksum,
        "phase": rollout.name,
        "weight": rollout.weight,
        "baked": max(0.0, now - rollout.entered),
        "paused": rollout.paused,
        "base": trial.base,
        "reason": reason,
        "at": at,
        "ledger": trial.ledger.dump(),
    }


def is_about(said: dict[str, Any], name: str, trial: Trial) -> bool:
    """Whether that is of this canary and this version."""
    wanted = {"form": _FORM, "canary": name, "version": trial.version, "checksum": trial.checksum}
    return all(said.get(field) == value for field, value in wanted.items())


def place_of(said: dict[str, Any], phases: Sequence[Phase], now: float) -> Rollout | None:
    """Where that is, in these phases; None: it knows others, or is impossible."""
    baked = said.get("baked")
    if not isinstance(baked, int | float) or not 0.0 <= baked < math.inf:
        return None
    for place in range(-1, len(phases) + 1):
        rollout = Rollout(tuple(phases), place, now - baked, paused=said.get("paused") is True)
        if rollout.name == said.get("phase") and rollout.weight == said.get("weight"):
            return rollout
    return None
