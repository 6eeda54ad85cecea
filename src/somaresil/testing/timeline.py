"""A history as text, for the message of a test that has failed: read at night by somebody who did not write it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from somaresil.events import BreakerChanged, CallEnded, DefectFound, FallbackUsed, IncidentClosed

if TYPE_CHECKING:
    from somaresil.testing.watch import History

__all__ = ["render"]


@dataclass(slots=True)
class _Line:
    """Something that happened from ``begin`` to ``end``, ``count`` times."""

    begin: float
    end: float
    text: str
    count: int = 0

    def __str__(self) -> str:
        span = f"{self.begin:.1f}" if self.end - self.begin < 0.05 else f"{self.begin:.1f} - {self.end:.1f}"  # noqa: PLR2004 - one digit is shown
        text = self.text if not self.count else f"{self.text} x {self.count}"
        return f"  {span:>17}  {text}"


def render(history: History, most: int) -> str:
    """The lines, and a summary below them."""
    lines = [*_windows(history), *_moments(history)]
    lines.sort(key=lambda line: line.begin)
    shown = [str(line) for line in lines]
    if len(shown) > most:
        half = most // 2
        shown = [*shown[:half], f"  {'...':>17}  {len(shown) - 2 * half} lines left out", *(shown[-half:] if half else [])]
    touched = history.touched()
    absorbed = history.absorbed()
    summary = f"  {history.injected} calls struck, {touched} touched"
    if absorbed is not None:
        summary += f", {absorbed:.1%} of them absorbed"
    if history.dropped:
        summary += f"; the first {history.dropped} moments are forgotten"
    return "\n".join([f"  {'seconds':>17}  what happened", *shown, summary])


def _windows(history: History) -> list[_Line]:
    return [_Line(begin, end, f"fault: {kind} on {target}") for begin, end, target, kind in history.windows]


def _moments(history: History) -> list[_Line]:
    lines: list[_Line] = []
    # The line to which the next end of a call of this guard may be added.
    open_lines: dict[str, _Line] = {}
    for moment in history.moments:
        event, at = moment.event, moment.at
        if isinstance(event, CallEnded | FallbackUsed):
            text = _call(event)
            # A fallback is told beside the call that it answers: each has a line of its own to grow.
            slot = f"{event.guard} {type(event).__name__}"
            line = open_lines.get(slot)
            if line is None or line.text != text:
                line = open_lines[slot] = _Line(at, at, text)
                lines.append(line)
            line.end = at
            line.count += 1
        elif (told := _event(event)) is not None:
            lines.append(_Line(at, at, told))
            for slot in [slot for slot in open_lines if slot.startswith(f"{getattr(event, 'guard', '')} ")]:
                del open_lines[slot]
    return lines


def _call(event: CallEnded | FallbackUsed) -> str:
    if isinstance(event, FallbackUsed):
        return f"{event.guard}: fallback answered for {event.error}"
    error = f" ({event.error})" if event.error else ""
    return f"{event.guard}: {event.outcome}{error}{', struck' if event.injected else ''}"


def _event(event: Any) -> str | None:
    if isinstance(event, BreakerChanged):
        share = f" ({event.failures} of {event.calls} calls failed)" if event.calls else ""
        duration = f" for {event.open_duration:.3g} s" if event.open_duration is not None else ""
        whose = f"{event.guard} ({event.key})" if event.key is not None else event.guard
        what = "shadow circuit" if event.shadow else "circuit"
        return f"{whose}: {what} {event.before} -> {event.after}{duration}: {event.cause}{share}"
    if isinstance(event, IncidentClosed):
        return f"{event.guard or event.slo}: incident over after {event.duration:.3g} s{'' if event.recovered else ', not recovered'}"
    if isinstance(event, DefectFound):
        return f"defect: {event.where} raised {event.error}"
    return None
