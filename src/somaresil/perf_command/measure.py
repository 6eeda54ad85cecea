"""Commands that are run and measured: how long they take, how much processor time, or what they print or write about themselves."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import tempfile
import threading
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from somaresil.config import Checker
from somaresil.perf.read import read_results, read_text
from somaresil.perf.read.node import refusal
from somaresil.perf.samples import RunResult, Series, merge

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from somaresil.chance import Chance
    from somaresil.perf.ab import PairedTest
    from somaresil.perf.detector import Comparison
    from somaresil.typing import Clock

__all__ = ["FIGURES", "NOT_COMPARED", "OUT", "Arm", "Meter", "Pairs", "measure_pairs"]

FIGURES: Final = ("wall", "cpu", "output")
"""What is measured of a command: seconds that pass, seconds of processor time, what it prints."""
OUT: Final = "{out}"
"""Stands in a command for a file that it writes its figures to."""
_LARGEST: Final = 32 * 1024 * 1024
_TAIL: Final = 400
NOT_COMPARED: Final = ("requests", "errors", "good", "streams", "truncated", "minimum", "mean", "p75", "p90", "p98", "p99.9", "p100")
"""Metrics that are read and shown, and compared only when they are named: they say again what others say, or nothing by themselves."""


@dataclass(frozen=True, slots=True)
class Arm:
    """One of the two things that are compared: a command, and where it runs."""

    label: str
    words: tuple[str, ...]
    folder: Path


@dataclass(frozen=True, slots=True)
class Pairs:
    """What was measured of both, a value for each pair."""

    baseline: dict[tuple[str, str], Series]
    current: dict[tuple[str, str], Series]
    comparisons: tuple[Comparison, ...]

    @property
    def count(self) -> int:
        """Pairs."""
        return max(len(each.values) for each in self.baseline.values())


class Meter:
    """Runs a command once and says what it took. Raises :class:`~somaresil.errors.ConfigurationError` when it fails or takes too long."""

    __slots__ = ("_clock", "_figure", "_form", "_metrics", "_timeout")

    def __init__(
        self, clock: Clock, *, figure: str = "wall", timeout: float = 600.0, form: str | None = None, metrics: Sequence[str] = ()
    ) -> None:
        """``metrics``: which of the figures that a command says itself are compared; without any, all that are worth it."""
        check = Checker("measure")
        self._clock = clock
        self._figure = check.one_of("figure", figure, FIGURES)
        self._timeout = check.seconds("timeout", timeout, maximum=86_400.0)
        check.finish()
        self._form = form
        self._metrics = tuple(metrics)

    def once(self, arm: Arm) -> RunResult:
        """One run: a value for each figure."""
        with tempfile.TemporaryDirectory(prefix="somaresil-perf-") as folder:
            out = Path(folder) / "out"
            words = [word.replace(OUT, str(out)) for word in arm.words]
            wall, cpu, printed = self._run(arm, words, Path(folder))
            if any(OUT in word for word in arm.words):
                if not out.exists():
                    raise refusal(arm.label, "no file", f"a command that writes its figures to {OUT}")
                return self._medians(arm, read_results(out, self._form))
        if self._figure == "output":
            return self._medians(arm, read_text(printed, f"output of {arm.label}", self._form))
        value, metric = (cpu, "cpu") if self._figure == "cpu" else (wall, "duration")
        return RunResult((Series("command", "seconds", (value,), metric=metric),), arm.label)

    def _medians(self, arm: Arm, results: Sequence[RunResult]) -> RunResult:
        found = []
        for each in merge(results).values():
            if each.metric in self._metrics or (not self._metrics and each.metric not in NOT_COMPARED):
                ordered = sorted(each.values)
                found.append(replace(each, values=((ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) / 2.0,)))
        if not found:
            raise refusal(arm.label, "no figures", f"a command that says {', '.join(self._metrics) or 'figures that can be compared'}")
        return RunResult(tuple(found), arm.label)

    def _run(self, arm: Arm, words: list[str], folder: Path) -> tuple[float, float, str]:
        """Seconds, seconds of processor time, and what it has printed."""
        with (folder / "stdout").open("w+b") as stdout, (folder / "stderr").open("w+b") as stderr:
            used = _processor_time()
            begun = self._clock.monotonic()
            try:
                process = subprocess.Popen(
                    words, cwd=arm.folder, stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr, start_new_session=True
                )
            except (OSError, ValueError) as failed:
                words_of = failed.strerror if isinstance(failed, OSError) else None
                raise refusal(arm.label, words[0][:80], "a program that starts", words_of or type(failed).__name__) from None
            late = threading.Event()

            def end() -> None:
                late.set()
                _kill(process)

            # Waiting with a timeout polls, in steps that are longer than many a command: whoever waits here is woken by its end.
            watchdog = threading.Timer(self._timeout, end)
            watchdog.daemon = True
            watchdog.start()
            try:
                code = process.wait()
            except BaseException:
                _kill(process)
                process.wait()
                raise
            finally:
                watchdog.cancel()
            taken, used = self._clock.monotonic() - begun, _processor_time() - used
            # Whatever it has started and left behind.
            _kill(process)
            if late.is_set():
                raise refusal(arm.label, f"no end after {self._timeout:g} s", "a command that ends")
            if code:
                raise refusal(arm.label, f"exit code {code}", "0", _tail(stderr.name) or "it says nothing on stderr")
            stdout.seek(0)
            printed = stdout.read(_LARGEST + 1) if self._figure == "output" else b""
            if len(printed) > _LARGEST:
                raise refusal(arm.label, "its output", f"at most {_LARGEST} bytes")
            return taken, used, printed.decode("utf-8", "replace")


def measure_pairs(
    arms: tuple[Arm, Arm], test: PairedTest, meter: Meter, chance: Chance, *, told: Callable[[int, tuple[Comparison, ...]], None]
) -> Pairs:
    """Measure the baseline and the current version in turn until the test is clear or has seen enough.

    One run of each goes before and does not count: it fills caches. ``told`` hears of each look.
    """
    results: tuple[list[RunResult], list[RunResult]] = [], []
    figures = max(len(meter.once(arm).series) for arm in arms)
    if (needed := test.needed(figures)) > test.most:
        raise refusal("pairs", test.most, f"{needed} at least for {figures} figure{'s' if figures > 1 else ''}", "fewer can say nothing")
    pairs = None
    for number in range(test.most):
        order = (1, 0) if test.current_first(number, chance) else (0, 1)
        for place in order:
            results[place].append(meter.once(arms[place]))
        if number + 1 in test.looks:
            baseline, current = merge(results[0]), merge(results[1])
            pairs = Pairs(baseline, current, test.compare(baseline, current))
            told(number + 1, pairs.comparisons)
            if test.clear(pairs.comparisons):
                break
    if pairs is None:
        raise refusal("pairs", 0, "at least one look")
    return pairs


def _processor_time() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _kill(process: subprocess.Popen[bytes]) -> None:
    """End the whole session of a command of ours."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)


def _tail(path: str) -> str:
    text = Path(path).read_bytes()[-_TAIL:].decode("utf-8", "replace")
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())
