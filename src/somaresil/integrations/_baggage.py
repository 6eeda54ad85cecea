"""Request plans on the way out: who is asked for something gets the ``baggage`` header without ours, unless he may have it.

OpenTelemetry puts its baggage into every request by itself, often inside of our hooks (its instrumentation of httpx replaces a method of
the transport that we wrap). So while a request is being sent its context has none of ours either.
"""

from __future__ import annotations

import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from somaresil.chaos.baggage import KEY

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable

__all__ = ["HEADER", "joined", "own_baggage"]

HEADER: Final = "baggage"


def joined(values: Iterable[str | bytes]) -> str | None:
    """Several headers as one; None: there is none."""
    texts = [value.decode("latin-1") if isinstance(value, bytes) else value for value in values]
    return ",".join(texts) if texts else None


@contextmanager
def own_baggage(plan: str | None) -> Generator[None]:
    """``with``: OpenTelemetry's baggage has ``plan`` as our member, or none. Costs a look-up while nobody has loaded OpenTelemetry."""
    api: Any = sys.modules.get("opentelemetry.baggage")
    if api is None or (plan is None and api.get_baggage(KEY) is None):
        yield
        return
    context: Any = sys.modules["opentelemetry.context"]
    token = context.attach(api.remove_baggage(KEY) if plan is None else api.set_baggage(KEY, plan))
    try:
        yield
    finally:
        context.detach(token)
