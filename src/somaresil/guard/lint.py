"""What is surely wrong with a pipeline whose parts are each right by themselves.

Options in, findings out. Only what cannot be meant is found: a wait that never ends in an attempt, a threshold that is never reached. The
usual options have no findings, and neither has anything that is only unusual.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from somaresil.errors import CallTimedOut
from somaresil.guard.estimate import longest_line, worst_case
from somaresil.policy.breaker import CircuitBreaker

if TYPE_CHECKING:
    from collections.abc import Iterator

    from somaresil.guard.options import GuardOptions

__all__ = ["Finding", "findings"]

_MOST_WITHOUT_PAUSE = 3
_USUAL = CircuitBreaker()


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is surely wrong."""

    code: str
    """What kind of thing, in a word or two."""
    path: str
    """Where: ``retry.max_elapsed``."""
    message: str
    """What happens, with the numbers."""
    hint: str
    """What to do."""

    def __str__(self) -> str:
        """One line."""
        return f"{self.path}: {self.message} ({self.hint}) [{self.code}]"


def findings(options: GuardOptions, *, deadline: float | None = None) -> tuple[Finding, ...]:
    """Everything that is surely wrong with a pipeline. ``deadline``: seconds after which no caller waits any more, when that is known."""
    found = [
        *_about_retry(options),
        *_about_breaker(options),
        *_about_time(options),
    ]
    if deadline is not None:
        found.extend(_about_deadline(options, deadline))
    return tuple(found)


def _about_retry(options: GuardOptions) -> Iterator[Finding]:
    retry, total = options.retry, _total(options)
    idempotent, hedge = getattr(options, "idempotent", None), getattr(options, "hedge", None)
    if hedge is not None and (idempotent is None or idempotent is False):
        yield Finding(
            "hedge-repeats",
            "hedge",
            "a call that is still running is made a second time, and nothing says that this does no harm",
            "say idempotent=True, or name the argument that holds its key",
        )
    if retry is None or retry.attempts == 1:
        return
    if idempotent is False:
        yield Finding(
            "retry-denied",
            "retry",
            "it is said that a call must not be repeated, so it is never tried again",
            "take the retry away, or name the argument that holds its key: idempotent='key'",
        )
    elapsed = _seconds(retry.max_elapsed)
    if elapsed is not None and total is not None and elapsed < total and _tries_timeouts_again(retry.on):
        yield Finding(
            "retry-too-late",
            "retry.max_elapsed",
            f"a call that timed out has taken {total:g} s, and no attempt begins after {elapsed:g} s: it is never tried again",
            "make max_elapsed longer than one timeout",
        )
    if not callable(retry.wait) and retry.wait is not None:
        if elapsed is not None and retry.wait > elapsed:
            yield Finding(
                "retry-never",
                "retry.wait",
                f"the pause of {retry.wait:g} s is longer than max_elapsed, {elapsed:g} s: no call is ever tried again",
                "make the pause shorter",
            )
        if retry.wait == 0 and retry.attempts > _MOST_WITHOUT_PAUSE:
            yield Finding(
                "hammering",
                "retry.wait",
                f"{retry.attempts} attempts follow one another without a pause, when the dependency needs one most",
                "leave wait out: the usual pause grows and is drawn",
            )


def _about_breaker(options: GuardOptions) -> Iterator[Finding]:
    breaker, total = options.breaker, _total(options)
    if breaker is None:
        return
    lease, longest = _seconds(breaker.probe_timeout), _seconds(breaker.open_maximum)
    if total is not None and lease is not None and lease < total:
        yield Finding(
            "probe-too-short",
            "breaker.probe_timeout",
            f"a probe that takes longer than {lease:g} s has no say, and a call may take {total:g} s: a slow dependency stays cut off",
            "make probe_timeout at least as long as the timeout",
        )
    if total is None and lease is not None and longest is not None and lease > longest and lease != _USUAL.probe_timeout:
        yield Finding(
            "probe-too-long",
            "breaker.probe_timeout",
            f"probes that hang keep the circuit from trying again for {lease:g} s, longer than any opening ({longest:g} s)",
            "give the guard a timeout, or make probe_timeout shorter",
        )
    slow = _seconds(breaker.slow_call_duration)
    if slow is not None and total is not None and slow >= total:
        yield Finding(
            "never-slow",
            "breaker.slow_call_duration",
            f"no call is slow at {slow:g} s before it times out at {total:g} s",
            "make slow_call_duration shorter than the timeout",
        )
    seen = _seen_while_hanging(options)
    if seen is not None and seen < breaker.minimum_calls:
        yield Finding(
            "breaker-blind",
            "breaker.minimum_calls",
            f"while every call hangs for {total:g} s the window of {_seconds(breaker.window):g} s sees at most {int(seen)} calls end, "
            f"and {breaker.minimum_calls} are needed: it never opens",
            "ask for fewer calls, look back further, or say consecutive_failures as well",
        )


def _seen_while_hanging(options: GuardOptions) -> float | None:
    """How many calls end within a breaker's window when each takes its whole timeout; None: nothing bounds that, or they are not needed."""
    breaker, total = options.breaker, _total(options)
    # An adaptive limit in its place says how far it may grow.
    places = getattr(options.bulkhead, "max_concurrent", None) or getattr(options.bulkhead, "maximum", None)
    if breaker is None or total is None or places is None:
        return None
    if breaker.consecutive_failures is not None or breaker.window_calls is not None:
        return None
    window = _seconds(breaker.window)
    # Each place is free again after every timeout; one more call may have begun before the window.
    return None if window is None else float(places * (window // total + 1))


def _about_time(options: GuardOptions) -> Iterator[Finding]:
    timeout, total = options.timeout, _total(options)
    if timeout is None or total is None:
        return
    for name in ("first_item", "idle"):
        limit = _seconds(getattr(timeout, name))
        if limit is not None and limit >= total:
            yield Finding(
                "never-reached",
                f"timeout.{name}",
                f"{limit:g} s never pass before the total of {total:g} s is over",
                "make it shorter than total, or leave it out",
            )
    for field in fields(options):
        wait = getattr(getattr(options, field.name), "max_wait", None)
        if isinstance(wait, int | float) and wait > total:
            yield Finding(
                "waits-longer-than-it-works",
                f"{field.name}.max_wait",
                f"the timeout of {total:g} s begins when a call is let through, and before that it may wait for {wait:g} s",
                "make max_wait shorter than the timeout",
            )


def _about_deadline(options: GuardOptions, deadline: float) -> Iterator[Finding]:
    line, worst = longest_line(options), worst_case(options)
    if line > deadline:
        yield Finding(
            "line-past-deadline",
            "max_wait",
            f"a call may wait in line for {line:g} s, and nobody waits longer than {deadline:g} s",
            "wait less",
        )
    elif worst is not None and worst > deadline:
        yield Finding(
            "past-deadline",
            "retry" if options.retry is not None else "timeout",
            f"a call may take {worst:.3g} s, and nobody waits longer than {deadline:g} s",
            "fewer attempts, a shorter timeout, or max_elapsed",
        )


def _tries_timeouts_again(on: Any) -> bool:
    """Whether a retry surely tries again what timed out. What a predicate says is not known."""
    kinds = on if isinstance(on, tuple) else (on,)
    return any(isinstance(kind, type) and issubclass(CallTimedOut, kind) for kind in kinds)


def _total(options: GuardOptions) -> float | None:
    return None if options.timeout is None else _seconds(options.timeout.total)


def _seconds(value: Any) -> float | None:
    # Durations were turned into seconds when the options were made.
    return value if isinstance(value, float | int) else None
