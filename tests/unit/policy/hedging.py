"""What the tests of hedges share: a guard in virtual time, whose limits share timers, and a dependency that takes as long as told."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from somaresil import Bulkhead, Resilience
from somaresil.policy.bulkhead import BulkheadPolicy
from somaresil.testing import VirtualClock, VirtualLoop

if TYPE_CHECKING:
    from somaresil import Guard, Outcome


class LinedLoop(VirtualLoop):
    """A virtual loop that lets its timers stand, as real ones do."""

    leaves_no_timer = False


class Timed:
    """A process with one guard in virtual time."""

    held: ClassVar[bool] = False
    """Whether the guard is kept on the full path."""

    def __init__(self, **options: Any) -> None:
        self.clock = VirtualClock()
        self.resilience = Resilience("tests", clock=self.clock, seed=7)
        self.guard: Guard = self.resilience.guard("dependency", **({"idempotent": True} | options))
        if self.held:
            self.guard.switch.hold("test")
        self.events: list[Any] = []
        self.resilience.on(self.events.append)
        self.left: set[str] = set()
        """Tasks that were still there when the test had ended."""

    def run(self, coroutine: Any) -> Any:
        """Run it; give its result, and how long it took."""

        async def main() -> Any:
            try:
                return await coroutine
            finally:
                self.left = {str(task.get_coro()) for task in asyncio.all_tasks() if task is not asyncio.current_task()}

        with asyncio.Runner(loop_factory=lambda: LinedLoop(self.clock)) as runner:
            begun = self.clock.monotonic()
            return runner.run(main()), self.clock.monotonic() - begun

    def told(self, *kinds: type) -> list[Any]:
        """The events of some kinds, in order."""
        return [event for event in self.events if isinstance(event, kinds)]

    def count(self, *outcomes: Outcome) -> int:
        """How many calls ended so."""
        return self.guard.recorder.counts().total(*outcomes)


class Turnstile(Bulkhead):
    """A bulkhead that counts who comes by on the express path."""

    def build(self, site: Any) -> Any:
        """Build the one below."""
        return _Turnstile(self, site)


class _Turnstile(BulkheadPolicy):
    def __init__(self, options: Any, site: Any) -> None:
        super().__init__(options, site)
        self.passed = 0
        """How many calls came by on the express path."""
        enter = self.try_enter

        def counted() -> Any:
            slot = enter()
            self.passed += slot is not None
            return slot

        self.try_enter = counted


@dataclass(frozen=True)
class Attempt:
    """What one attempt does: take so many seconds, then raise or answer; a stubborn one ignores that it is cancelled."""

    lasts: float
    end: Any = "answer"
    stubborn: bool = False


class Dependency:
    """Goes through a script, an attempt a call; the last entry is repeated."""

    def __init__(self, *script: Attempt) -> None:
        self.script = script
        self.begun: list[float] = []
        self.ended: dict[int, str] = {}
        """How each attempt ended, by its number from 0."""

    async def __call__(self, *args: Any, **kwargs: Any) -> Any:
        number = len(self.begun)
        plan = self.script[min(number, len(self.script) - 1)]
        loop = asyncio.get_running_loop()
        self.begun.append(loop.time())
        try:
            try:
                await asyncio.sleep(plan.lasts)
            except asyncio.CancelledError:
                if not plan.stubborn:
                    raise
            if isinstance(plan.end, BaseException):
                raise plan.end
        except BaseException as error:
            self.ended[number] = type(error).__name__
            raise
        self.ended[number] = "answered"
        return plan.end
