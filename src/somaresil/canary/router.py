"""Who moves the traffic between two versions, as far as somaresil needs to know."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from somaresil.errors import SomaresilError

__all__ = ["RouterError", "RouterStatus", "TrafficRouter"]


class RouterError(SomaresilError):
    """The router did not take an order, or did not answer: nobody knows that the traffic has moved."""


@dataclass(frozen=True, slots=True)
class RouterStatus:
    """Where the traffic goes now, as its router says."""

    phase: str
    """In the words of the router: ``Progressing``, ``Paused``, ``Healthy`` ..."""
    weight: float | None
    """Share of the requests that the candidate gets, 0 to 1; None: it does not say."""
    version: str = ""
    """Of the candidate, as the router names it; empty: it does not say."""
    paused: bool = False
    message: str = ""


@runtime_checkable
class TrafficRouter(Protocol):
    """Moves traffic. Each method returns when the router has taken the order, and raises ``RouterError`` when it has not.

    They wait for networks and disks, so they are for threads that may: never for the calls that are routed.
    """

    steps: bool
    """Whether the share is set from here (:meth:`set_weight`); else the router ramps by itself, and asks or is stopped."""

    def start(self, version: str) -> None:
        """Begin with this version: with no traffic, or with what the router gives it first."""
        ...

    def set_weight(self, share: float) -> None:
        """Give the candidate this share of the requests, 0 to 1. Setting the same twice is no change."""
        ...

    def suspend(self) -> None:
        """Stay with this share."""
        ...

    def resume(self) -> None:
        """Go on after :meth:`suspend`."""
        ...

    def promote(self) -> None:
        """Give the candidate everything, for good."""
        ...

    def abort(self, reason: str) -> None:
        """Give the candidate nothing, for good."""
        ...

    def status(self) -> RouterStatus:
        """Where the traffic goes now."""
        ...
