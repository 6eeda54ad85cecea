"""A part of the network that is gone, as this process sees it: connections refused, swallowed, reset, or their packets lost.

Read in this order: ``targets`` (which part), ``names`` (which name has which address), ``sink`` (where swallowed connections go), ``hooks``
(new connections of Python), ``sockets`` (connections that exist, those of C libraries too), ``filters`` (what the kernel can do), ``wires``
(all partitions of the process together), ``partition`` (the kind of fault), ``seam`` (what the hooks of client libraries ask).
"""

from somaresil.chaos.network.hooks import remember_names
from somaresil.chaos.network.seam import Blackhole, Refuse, verdict

__all__ = ["Blackhole", "Refuse", "remember_names", "verdict"]
