"""A safety control for the Chaos Toolkit: whatever becomes of an experiment, its faults end.

It ends every fault of the service when the experiment is over: completed, failed, aborted, or interrupted by Ctrl-C or SIGTERM, after
which Chaos Toolkit plays no rollbacks by default. It has a time limit of its own, ``longest`` seconds, kept by a thread. An experiment
whose service does not answer is interrupted before anything is done. What it cannot reach (the toolkit was killed, the network is gone)
ends by the lease that each fault has in the service.
"""

from __future__ import annotations

import logging
import threading
from typing import Any

from somaresil.config import Checker
from somaresil.integrations.chaostoolkit._service import Service, service_of

__all__ = ["after_experiment_control", "before_experiment_control", "cleanup_control"]

_log = logging.getLogger("chaostoolkit")
_TRIES = 3

_Data = dict[str, Any]


class _Watch:
    """Ends everything after a time, unless it is ended before."""

    def __init__(self, service: Service, longest: float) -> None:
        self.service = service
        self._lock = threading.RLock()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._wait, args=(longest,), name="somaresil-safety", daemon=True)
        self._thread.start()

    def _wait(self, longest: float) -> None:
        if not self._over.wait(longest):
            _log.warning("somaresil: the experiment lasts longer than %g s, so every fault is ended", longest)
            self.stop_all()

    def stop_all(self) -> None:
        """Try a few times: there is nobody behind us but the leases."""
        for left in reversed(range(_TRIES)):
            try:
                self.service.stop_all()
            except Exception as broken:  # noqa: BLE001 - the end of an experiment goes on, whatever the service says
                if not left:
                    _log.error("somaresil: faults could not be ended (%s); each ends by its own lease", broken)
            else:
                return

    def end(self) -> None:
        """Once."""
        with self._lock:
            first = not self._over.is_set()
            self._over.set()
        if first:
            self.stop_all()


_watches: list[_Watch] = []


def before_experiment_control(
    context: _Data,  # noqa: ARG001 - the toolkit passes it by name
    service: str = "",
    longest: float = 3600.0,
    configuration: _Data | None = None,
    secrets: _Data | None = None,
) -> None:
    """Find the service, ask whether it answers, and begin to watch the time."""
    from chaoslib.exceptions import InterruptExecution

    try:
        check = Checker("safety")
        seconds = check.seconds("longest", longest, maximum=86_400.0)
        check.finish()
        found = service_of(service, configuration, secrets)
        found.experiments()
    except Exception as broken:
        raise InterruptExecution(f"somaresil safety: {broken}") from broken
    _watches.append(_Watch(found, seconds))


def after_experiment_control(context: _Data, **_: Any) -> None:  # noqa: ARG001
    """End everything."""
    cleanup_control()


def cleanup_control() -> None:
    """End everything, also where the experiment had no end."""
    while _watches:
        _watches.pop().end()
