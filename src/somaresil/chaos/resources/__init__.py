"""Resources of the process that experiments take away: each capped, measured, and given back exactly when the lease ends.

The way down: the driver says which resource a target means; ``stalls``, ``burns``, ``ballast``, ``descriptors`` and ``pools`` take one
each; ``limits`` says how much, of what ``machine`` reads; ``hold``, ``latch`` and ``loops`` see to it that whatever waits is freed.
"""

from somaresil.chaos.effect import Effect
from somaresil.chaos.resources.driver import ResourceExhaustion, resource_capabilities

__all__ = ["Effect", "ResourceExhaustion", "resource_capabilities"]
