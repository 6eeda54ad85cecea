"""The kind of fault ``network_partition``: a part of the network is cut off from this process.

==============  =========================================================  =====================================================
``mode``        new connections                                            connections that exist
==============  =========================================================  =====================================================
``refuse``      are refused at once (``ECONNREFUSED``)                     are reset
``reset``       as ``refuse``                                              as ``refuse``; not armed where they cannot be found
``blackhole``   hang until the caller's own time-out                       are reset, and what comes after them hangs
``drop``        hang; connected when it heals in time                      hang; what was sent arrives when it heals in time
``loss``        lose a share ``loss`` of the packets that come in          as new ones
==============  =========================================================  =====================================================

``failure_rate`` is the share of the *connections* that are struck, decided by the keyed hash: of new ones at each attempt, of those that
exist once. Only TCP. Connections that others have opened to this process are never touched.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from somaresil.chaos.network.cut import LOSS, MODES, REFUSE, Cut
from somaresil.chaos.network.probes import probe_mode
from somaresil.chaos.network.targets import NetTarget
from somaresil.chaos.network.wires import WIRES

if TYPE_CHECKING:
    from collections.abc import Callable

    from somaresil.chaos.config import ChaosCeilings, ChaosConfig
    from somaresil.chaos.engine import ChaosEngine
    from somaresil.chaos.run import ExperimentRun
    from somaresil.config import Checker

__all__ = ["Partition"]


class Partition:
    """Cuts off parts of the network (:class:`~somaresil.chaos.process.ProcessFault`)."""

    def __init__(self, engine: ChaosEngine) -> None:
        """For one engine; the wires belong to the process."""
        self._listeners = engine.listeners

    def check(self, check: Checker, config: ChaosConfig, ceilings: ChaosCeilings, target: str) -> None:  # noqa: ARG002 - none is about networks
        """Note what is wrong with the target or its options, and what cannot be done here."""
        text = config.target_component
        # That it is one of the network, and that neither calls, a path nor a number of injections are named, the configuration has seen to.
        try:
            NetTarget.parse(text)
        except ValueError as wrong:
            check.problem(target, text, "net:HOST[:PORT], HOST a name, a pattern, an address or a network", str(wrong))
        mode = check.one_of("mode", config.mode or REFUSE, MODES)
        if mode == LOSS:
            check.ratio("loss", config.loss, allow_zero=False)
        elif config.loss is not None:
            check.problem("loss", config.loss, f"None for mode={mode}", "mode='loss' loses packets")
        can = probe_mode(mode)
        if not can:
            check.problem("mode", mode, "a mode that works here", f"{can.reason}; resilience.chaos.capabilities() lists them")

    def begin(self, run: ExperimentRun) -> Callable[[], None]:
        """Cut it off."""
        return WIRES.add(Cut(run, NetTarget.parse(run.config.target_component), self._listeners))
