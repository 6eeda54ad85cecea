"""Who may look and who may do what, as it is said where the dashboard is made."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypedDict

from somaresil.config import did_you_mean
from somaresil.mounted.auth import BearerToken
from somaresil.mounted.request import check_authenticator

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from somaresil.chaos.plan import ChaosPlan, ErrorMakers
    from somaresil.config import Checker
    from somaresil.dashboard.stream import Pace
    from somaresil.mounted.auth import Authenticator

__all__ = ["CONTROLS", "UNSAFE_OPEN", "DashboardOptions", "Open", "check_controls", "check_people"]

CONTROLS: Final = ("stop", "engage", "experiment", "breaker", "canary")
"""What operators may do: the kill switch, the safety lever, experiments, breakers, canaries."""


class Open:
    """The type of :data:`UNSAFE_OPEN`."""

    def __repr__(self) -> str:
        """As it is written."""
        return "UNSAFE_OPEN"


UNSAFE_OPEN: Final = Open()
"""In place of an authenticator: everybody who can reach the page may read it, and nobody may do anything."""


class DashboardOptions(TypedDict, total=False):
    """What :meth:`~somaresil.resilience.Resilience.dashboard` takes besides ``auth``; see :class:`DashboardApp`."""

    operators: Authenticator | None
    at: str
    controls: Sequence[str]
    plans: Mapping[str, ChaosPlan] | None
    errors: ErrorMakers | None
    origins: Iterable[str]
    challenge: str | None
    workers: str | Path | None
    peers: Sequence[str]
    peer_token: str | None
    secret: str | None
    most_viewers: int
    pace: Pace


def check_people(check: Checker, auth: object, operators: object, challenge: object) -> None:
    """Note what lets nobody in, and what would let in more than is said: later it would be found out by somebody else."""
    hint = "BearerToken(secret), or a function of the scope; auth=UNSAFE_OPEN lets everybody read, and nobody do anything"
    if not isinstance(auth, Open):
        check_authenticator(check, "auth", auth, hint)
    if isinstance(operators, Open):
        check.problem("operators", operators, "an authenticator, or None", "nobody is let do things without being known")
    elif operators is not None:
        check_authenticator(check, "operators", operators, "BearerToken(secret), or a function of the scope")
    if challenge not in {None, "basic"}:
        check.problem("challenge", challenge, "basic, or None")
    elif challenge is not None:
        asked = [each for each in (auth, operators) if isinstance(each, BearerToken)]
        if isinstance(auth, Open) or (asked and not any(each.basic for each in asked)):
            check.problem("challenge", challenge, "an authenticator that takes passwords", "BearerToken(..., basic=True)")


def check_controls(check: Checker, controls: Any) -> None:
    """Note what nobody can be let do, and what would be let begin and not end."""
    listed = list(controls) if isinstance(controls, list | tuple | set | frozenset) else [controls]
    unknown = [each for each in listed if each not in CONTROLS]
    for each in unknown:
        check.problem("controls", each, " | ".join(CONTROLS), did_you_mean(each, CONTROLS))
    if listed and not unknown and "stop" not in listed:
        check.problem("controls", controls, "stop among them, or none at all", "who can do something has to be able to stop it")
