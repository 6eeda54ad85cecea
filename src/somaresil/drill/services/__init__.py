"""The four services, each as a class: what it serves, and what it does beside that.

::

    users ──> gateway ──worker/*──> worker ──llm/*──> (a model, simulated)
                 │ │                   └─────tool/*──> tools ──tool.run
                 │ └─stream/*───────> worker ──tokens/*──> (the same model, token by token)
                 └─memory/*, session/*──> memory ──store──> Redis

Names on the arrows are guards; those with a slash are endpoints of a pool. The same code runs in processes of its own and, with another
clock and another way to reach one another, in a simulation.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from somaresil.drill.services.gateway import Gateway
from somaresil.drill.services.memory import Memory
from somaresil.drill.services.tools import Tools
from somaresil.drill.services.worker import Worker

if TYPE_CHECKING:
    import httpx

    from somaresil.drill.policies import Policies
    from somaresil.drill.services.base import Service
    from somaresil.drill.store import Store
    from somaresil.drill.topology import Instance, Settings
    from somaresil.typing import Clock

__all__ = ["build"]


def build(
    instance: Instance, settings: Settings, policies: Policies, http: httpx.AsyncClient, store: Store, clock: Clock | None = None
) -> Service:
    """One instance of a service; only a memory service uses ``store``."""
    if instance.role == "memory":
        return Memory(instance, settings, policies, http, clock, store)
    kind = {"gateway": Gateway, "worker": Worker, "tools": Tools}[instance.role]
    return kind(instance, settings, policies, http, clock)
