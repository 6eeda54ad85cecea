"""A guard in words and as data: its pipeline, what a call can come to, what is surely wrong."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

from somaresil.guard.change import changes_between, shown, usual_parts
from somaresil.guard.estimate import amplification, worst_case
from somaresil.guard.lint import Finding, findings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from somaresil.guard.core import Guard

__all__ = ["Description", "Layer", "describe"]


@dataclass(frozen=True, slots=True)
class Layer:
    """One part of a pipeline."""

    name: str
    options: str
    """What is not as usual, as ``name=value``; empty when all is, and for the parts that have no options."""
    shadow: bool = False
    """Whether it only counts what it would do."""

    def __str__(self) -> str:
        """Name and options."""
        return f"{self.name:<10} {self.options}".rstrip()


@dataclass(frozen=True, slots=True)
class Description:
    """One guard at one moment. Frozen; its text is what :meth:`Guard.describe` gives."""

    guard: str
    where: str
    """File and line where it was made."""
    pipeline: tuple[Layer, ...]
    """Outermost first."""
    options: tuple[str, ...]
    """Options that are no part of the pipeline (``slo``, ``classify`` …), as ``name=value``."""
    worst_case: float | None
    """Seconds that a call takes at most, the fallback's own time aside; None: nothing bounds it."""
    worst_case_asked: float | None
    """The same when each failing answer asks for the longest pause that it may ask for (``Retry-After``)."""
    amplification: int
    """How many calls of the dependency one call makes at most."""
    uninterrupted: bool
    """Whether a plain function may take longer than that: its timeout does not interrupt it."""
    changed: tuple[str, ...]
    """What is not as the code has made it."""
    shadow: tuple[tuple[str, str, int], ...]
    """Policy, decision and count: what was decided in shadow mode, and not done."""
    findings: tuple[Finding, ...]

    def __str__(self) -> str:
        """Some ten lines, without one at the end that is empty."""
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        yield f"{self.guard}  ({self.where})" if self.where else self.guard
        for layer in self.pipeline:
            yield f"  {layer}"
        for option in self.options:
            yield f"  {option}"
        calls = f"{self.amplification} call{'s' if self.amplification != 1 else ''}"
        yield f"  worst case {self._time()}, at most {calls} of the dependency"
        for change in self.changed:
            yield f"  not as in the code: {change}"
        for policy, decision, count in self.shadow:
            yield f"  shadow: {policy} would have decided {decision!r} {count} times"
        for finding in self.findings:
            yield f"  ! {finding}"

    def _time(self) -> str:
        if self.worst_case is None:
            return "without bound"
        asked = self.worst_case_asked
        besides = [
            *([f"{asked:.3g} s when answers ask for pauses"] if asked is not None and asked > self.worst_case else []),
            *(["longer for a plain function"] if self.uninterrupted else []),
        ]
        return f"{self.worst_case:.3g} s" + (f" ({'; '.join(besides)})" if besides else "")


def describe(guard: Guard, *, deadline: float | None = None) -> Description:
    """The guard as it is now. ``deadline``: seconds after which no caller waits any more, when that is known."""
    options, timeout = guard.options, guard.options.timeout
    others = [
        field.name for field in fields(options) if field.name not in guard.pipeline and getattr(options, field.name) not in (None, ())
    ]
    return Description(
        guard=guard.name,
        where=guard.where,
        pipeline=tuple(
            Layer(name, ", ".join(usual_parts(policy)), shadow=bool(getattr(policy, "shadow", False)))
            for name, policy in ((name, getattr(options, name, None)) for name in guard.pipeline)
        ),
        options=tuple(f"{name}={shown(getattr(options, name))}" for name in others),
        worst_case=worst_case(options),
        worst_case_asked=worst_case(options, asked=True),
        amplification=amplification(options),
        uninterrupted=timeout is not None and timeout.total is not None and not timeout.abandon,
        changed=tuple(str(change).partition(": ")[2] for change in changes_between(guard.name, guard.coded, options)),
        shadow=tuple((policy, decision, count) for (policy, decision), count in guard.shadow.counts().items()),
        findings=findings(options, deadline=deadline),
    )
