"""A command of one's own as the router of a canary: whatever moves the traffic, if it can be called with a number."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING, Any, Final

from somaresil.canary.router import RouterError, RouterStatus
from somaresil.config import Checker

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import timedelta

__all__ = ["CommandRouter"]

_MOST_WORDS: Final = 100
_SHOWN: Final = 300


class CommandRouter:
    """Runs ``set`` with the share of the candidate, ``{percent}`` (0 to 100, up to three places) or ``{share}`` (0 to 1), in its words.

    ``{version}`` is what is rolled out. ``show``, if given, prints the percentage that the candidate has now. No shell reads any of it;
    a command that fails, or takes longer than ``timeout`` seconds, has not taken the order.
    """

    steps = True

    def __init__(
        self,
        *,
        set: Sequence[str],  # noqa: A002 - what it is called in a file
        show: Sequence[str] | None = None,
        timeout: float | timedelta = 30.0,
        version: str = "",
    ) -> None:
        """Nothing is run. Raises :class:`~somaresil.errors.ConfigurationError` with every problem found."""
        check = Checker("CommandRouter")
        self._set = _words(check, "set", set)
        self._show = None if show is None else _words(check, "show", show)
        self._timeout = check.seconds("timeout", timeout, maximum=3_600.0)
        if self._set and not any("{percent}" in word or "{share}" in word for word in self._set):
            check.problem("set", self._set, "a command with {percent} or {share} in it", "it would always do the same")
        check.finish()
        self._version = version
        self._share: float | None = None

    def start(self, version: str) -> None:
        """Remember the version; the first share says the rest."""
        self._version = version

    def set_weight(self, share: float) -> None:
        """Run ``set``. Raises :class:`~somaresil.canary.router.RouterError` when it did not end with 0."""
        words = {"{percent}": f"{share * 100.0:.3f}".rstrip("0").rstrip("."), "{share}": f"{share:.6g}", "{version}": self._version}
        self._run(self._set, words)
        self._share = share

    def suspend(self) -> None:
        """Nothing: the share stays as it is."""

    def resume(self) -> None:
        """Nothing, likewise."""

    def promote(self) -> None:
        """Everything to the candidate."""
        self.set_weight(1.0)

    def abort(self, reason: str) -> None:  # noqa: ARG002 - a command has no use for it
        """Nothing to the candidate."""
        self.set_weight(0.0)

    def status(self) -> RouterStatus:
        """What ``show`` prints, or what was set last."""
        if self._show is None:
            return RouterStatus("", self._share, self._version)
        said = self._run(self._show, {"{version}": self._version})
        try:
            percent = float(said.strip().rstrip("%"))
        except ValueError:
            percent = -1.0
        if not 0.0 <= percent <= 100.0:  # noqa: PLR2004
            raise RouterError(f"{self._show[0]}: expected a percentage, got {said[:_SHOWN]!r}")
        return RouterStatus("", percent / 100.0, self._version)

    def _run(self, command: tuple[str, ...], words: dict[str, str]) -> str:
        filled: list[str] = []
        for word in command:
            for name, value in words.items():
                word = word.replace(name, value)  # noqa: PLW2901
            filled.append(word)
        try:
            ended = subprocess.run(  # noqa: S603 - the command is the operator's, and no shell reads it
                filled, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", timeout=self._timeout, check=False
            )
        except subprocess.TimeoutExpired:
            raise RouterError(f"{command[0]} took longer than {self._timeout:g} s") from None
        except OSError as failed:
            raise RouterError(f"{command[0]} cannot be run: {failed.strerror or failed}") from failed
        if ended.returncode:
            said = " | ".join((ended.stderr or ended.stdout).strip().splitlines()[-3:])[:_SHOWN]
            raise RouterError(f"{command[0]} ended with {ended.returncode}: {said or 'it says nothing'}")
        return ended.stdout


def _words(check: Checker, name: str, value: Any) -> tuple[str, ...]:
    if (
        not isinstance(value, list | tuple)
        or not 0 < len(value) <= _MOST_WORDS
        or not all(isinstance(each, str) and each for each in value)
    ):
        check.problem(name, value, "a command as a list of words", "no shell reads it")
        return ()
    return tuple(value)
