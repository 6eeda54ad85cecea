"""Faults on streams, written once: for the items of a guard's stream and for the chunks of a response, in threads and in tasks.

A *shaping* is what one experiment does to one stream. It sees each item as it passes, in order, and may hold it, change it, drop it, end
the stream or break it off. It waits only through the experiment (:meth:`ExperimentRun.hold`), so a wait ends with the lease and the kill
switch, blocks no event loop, and counts as active only while it lasts. A fault counts when it is made: a stream that is shorter than
``after_items``, or has nothing to damage, is not struck.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Protocol

from somaresil.chaos.transforms import CORRUPTIONS, DROP, MODEL_FAULTS, half_of

if TYPE_CHECKING:
    from somaresil.chaos.run import ExperimentRun
    from somaresil.chaos.strikes import Decision
    from somaresil.chaos.transforms import Transform
    from somaresil.listeners import Listeners
    from somaresil.runtime import Runtime
    from somaresil.typing import Clock

__all__ = ["END", "SHAPINGS", "SKIP", "Shaping", "Touched", "shaping_of", "strike", "tell", "transform_of"]

END: Final = object()
"""In place of an item: the stream ends here, cleanly."""
SKIP: Final = object()
"""In place of an item: there is none, the next one is wanted."""


class Touched(Protocol):
    """What is struck: a call of a guard, or a request."""

    @property
    def clock(self) -> Clock:
        """Its time."""
        ...

    @property
    def listeners(self) -> Listeners:
        """Who is told of defects."""
        ...

    @property
    def runtime(self) -> Runtime:
        """How it waits."""
        ...

    def touch(self) -> None:
        """An experiment strikes it."""
        ...


def strike(run: ExperimentRun, component: str, call: Touched, *, raises: bool, delays: bool = False) -> tuple[bool, BaseException | None]:
    """Count a strike and mark the call. False when the experiment is over, or when something of it is broken: that is no fault."""
    try:
        error = run.config.make_error(component, run.id) if raises else None
        if not run.claim(component, delays=delays):
            return False, None
        call.touch()
    except Exception as defect:  # noqa: BLE001 - the engine fails open
        tell(call, "fault on an answer", defect)
        return False, None
    return True, error


def tell(call: Touched, where: str, defect: Exception, consequence: str = "the call went on without it") -> None:
    """Report a defect of the engine, once. Never raises: a logging filter may."""
    try:
        call.listeners.defect(where, defect, call.clock.time(), consequence)
    except Exception:  # noqa: BLE001 - there is nobody left to tell
        return


class Shaping:
    """What is done to one stream. This one does nothing; :data:`SHAPINGS` says who does what."""

    ends_empty = False
    """Whether it may strike where an empty last chunk stands in place of an item."""

    def __init__(self, run: ExperimentRun, component: str, decision: Decision, call: Touched) -> None:
        """Begin with the first item."""
        self.run = run
        self.config = run.config
        self.component = component
        self.decision = decision
        self.call = call
        self.index = 0
        """Items that have passed."""
        self.struck: bool | None = None
        """Whether the stream was struck; None: not yet."""
        self.pending: BaseException | None = None
        """What the next item is in place of."""

    async def see(self, item: Any) -> Any:
        """What becomes of the next item: itself, another one, :data:`SKIP` or :data:`END`. May raise the error that ends the stream."""
        try:
            return await self.shape(item) if self.struck is not False and self.run.goes_on(struck=bool(self.struck)) else item
        finally:
            self.index += 1

    async def shape(self, item: Any) -> Any:
        """As :meth:`see`, while there is anything to do."""
        raise NotImplementedError

    def claim(self, *, raises: bool = False, delays: bool = False) -> tuple[bool, BaseException | None]:
        """Strike the stream, once. ``delays``: it is held up next."""
        if self.struck is None:
            self.struck, error = strike(self.run, self.component, self.call, raises=raises, delays=delays)
            return self.struck, error
        return self.struck, None

    async def hold(self, seconds: float) -> None:
        """Hold the stream; when the experiment ends meanwhile, it goes on and nothing more is done to it."""
        if seconds > 0.0 and not await self.run.hold(self.call.runtime, seconds):
            self.struck = False

    def delay(self) -> float:
        """Seconds of the delay at this item."""
        return self.run.delay(self.decision, self.index)


class Cut(Shaping):
    """Breaks off after some items. The item behind the last is waited for: what ends by itself is not struck."""

    ends_empty = True

    async def shape(self, item: Any) -> Any:
        """Raise in place of the item."""
        if self.index >= self.config.after_items:
            struck, error = self.claim(raises=True)
            if struck and error is not None:
                raise error
        return item


class Truncate(Shaping):
    """Ends after some items."""

    async def shape(self, item: Any) -> Any:
        """End in place of the item."""
        return END if self.index >= self.config.after_items and self.claim()[0] else item


class Tear(Shaping):
    """Gives half an item, then breaks off; an item that has no half is left out."""

    async def shape(self, item: Any) -> Any:
        """Half of the item."""
        if self.index < self.config.after_items:
            return item
        struck, error = self.claim(raises=True)
        if not struck or error is None:
            return item
        half = half_of(item)
        if half is item:
            raise error
        self.pending = error
        return half


class SlowStart(Shaping):
    """Holds the first item back."""

    async def shape(self, item: Any) -> Any:
        """The item, later."""
        if self.index == 0 and self.claim(delays=True)[0]:
            await self.hold(self.delay())
            self.struck = False
        return item


class Stall(Shaping):
    """Stops once."""

    async def shape(self, item: Any) -> Any:
        """The item; the one behind ``after_items`` later."""
        if self.index == self.config.after_items and self.claim(delays=True)[0]:
            await self.hold(self.delay())
            self.struck = False
        return item


class Drip(Shaping):
    """Waits before each item but the first."""

    async def shape(self, item: Any) -> Any:
        """The item, later."""
        if self.index > 0 and self.claim(delays=True)[0]:
            await self.hold(self.delay())
        return item


class Throttle(Shaping):
    """Lets items go at a pace: each may go when those before it have had their time."""

    due = 0.0

    async def shape(self, item: Any) -> Any:
        """The item, when it is its turn."""
        now = self.call.clock.monotonic()
        config = self.config
        cost = 1.0 / config.items_per_second if config.items_per_second is not None else _size(item) / (config.bytes_per_second or 1.0)
        # The first begins at once: it is what comes behind it that has to wait.
        begins = max(self.due, now)
        self.due = begins + cost
        if begins > now and self.claim(delays=True)[0]:
            await self.hold(begins - now)
        return item


class Change(Shaping):
    """Changes items; those that it does not understand pass as they are."""

    def __init__(self, run: ExperimentRun, component: str, decision: Decision, call: Touched) -> None:
        """By the kind of the experiment."""
        super().__init__(run, component, decision, call)
        self.transform = transform_of(run)

    async def shape(self, item: Any) -> Any:
        """The item, changed."""
        try:
            changed = self.transform(item, self.run.draw("corrupt", self.decision, self.index))
        except Exception as defect:  # noqa: BLE001 - the engine fails open
            tell(self.call, "damaging an answer", defect)
            return item
        if changed is item or not self.claim()[0]:
            return item
        return SKIP if changed is DROP else changed


SHAPINGS: Final[dict[str, type[Shaping]]] = {
    "stream_cut": Cut,
    "stream_truncate": Truncate,
    "stream_tear": Tear,
    "stream_slow_start": SlowStart,
    "stream_stall": Stall,
    "stream_drip": Drip,
    "stream_throttle": Throttle,
    "corrupt_result": Change,
    **dict.fromkeys(MODEL_FAULTS, Change),
}
"""Who does what, by kind."""


def shaping_of(run: ExperimentRun, component: str, decision: Decision, call: Touched) -> Shaping:
    """What this experiment does to one stream."""
    return SHAPINGS[run.config.experiment.value](run, component, decision, call)


def transform_of(run: ExperimentRun) -> Transform:
    """How this experiment changes an answer."""
    config = run.config
    known = MODEL_FAULTS.get(config.experiment.value)
    if known is not None:
        return known
    return config.corrupt if callable(config.corrupt) else CORRUPTIONS[config.corrupt]


def _size(item: Any) -> int:
    """Bytes of an item that is text; nothing is known of others."""
    if isinstance(item, str):
        return len(item.encode("utf-8", "surrogatepass"))
    return len(item) if isinstance(item, bytes | bytearray | memoryview) else 0
