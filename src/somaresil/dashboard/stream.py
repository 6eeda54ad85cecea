"""Pictures and events as they come, to everybody who looks: one producer, however many look, and nothing while nobody does.

A picture is made, written down and compressed once. Who is slow misses pictures, for only the newest counts, and the oldest of his events,
which he is told. Nobody waits for him: what he has not taken after some seconds he no longer gets, and whatever he does, he holds no more
than a picture that all others hold too and what the server has buffered for him, a few hundredths of a megabyte.

Compressed streams are made of blocks that stand for themselves (RFC 1951 with a full flush after each message), so that all viewers get the
same bytes although each began at another time.
"""

from __future__ import annotations

import asyncio
import json
import signal
import zlib
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from somaresil.dashboard.aside import Aside

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Mapping

    from somaresil.dashboard.sources import Sources
    from somaresil.listeners import Listeners
    from somaresil.mounted.request import Receive, Send
    from somaresil.typing import Clock

__all__ = ["Frame", "Hub", "Pace", "Viewer", "server_leaves"]

_PIECE: Final = 32_768
"""Bytes given to the server at once: it buffers a whole one beyond its own limit."""
_MOST_EVENTS: Final = 256
"""That wait for a viewer."""
_AT_ONCE: Final = 4
"""Viewers that are woken together; requests of the service come in between."""
_BETWEEN: Final = 0.004
_SLICE: Final = 50
"""Of a list that is written at once: less than a millisecond."""
_LARGE: Final = 100_000
"""Bytes that are compressed in a thread."""
_GZIP_HEADER: Final = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"


@dataclass(frozen=True, slots=True)
class Pace:
    """How often what is done, in seconds."""

    tick: float = 1.0
    """From one picture to the next."""
    soonest: float = 0.25
    """The same after something of note."""
    look: float = 0.05
    """How often it is looked whether something of note has happened."""
    heartbeat: float = 10.0
    """How long a viewer hears nothing at most."""
    patience: float = 10.0
    """How long a viewer may leave a piece where it is."""
    again: float = 60.0
    """How often it is asked again whether he may look."""
    share: float = 0.05
    """Of the time that writing pictures down may take: large ones come less often."""
    longest: float = 10.0
    """From one picture to the next, whatever it costs."""


class Frame:
    """A message, as it is and compressed."""

    __slots__ = ("_packed", "plain")

    def __init__(self, plain: bytes) -> None:
        """Compress nothing until somebody asks."""
        self.plain = plain
        self._packed: bytes | None = None

    @classmethod
    def of(cls, event: str, data: Any, identity: object = None) -> Frame:
        """An event of a stream."""
        return cls.written(event, _json(data), identity)

    @classmethod
    def written(cls, event: str, text: str, identity: object = None) -> Frame:
        """The same of what is JSON already."""
        return cls((f"id: {identity}\n" if identity is not None else "").encode() + f"event: {event}\ndata: {text}\n\n".encode())

    @property
    def packed(self) -> bytes:
        """A part of a compressed stream."""
        if self._packed is None:
            # Level 1: twice as large as the best and many times as quick.
            packer = zlib.compressobj(1, zlib.DEFLATED, -zlib.MAX_WBITS)
            self._packed = packer.compress(self.plain) + packer.flush(zlib.Z_FULL_FLUSH)
        return self._packed


_BEAT: Final = Frame(b": \n\n")
_BEGIN: Final = Frame(b"retry: 2000\n\n")


class Viewer:
    """Somebody who looks: what waits for him, and since when he has left it there."""

    def __init__(self, *, packs: bool) -> None:
        """``packs``: whether he takes compressed streams."""
        self.packs = packs
        self.over = False
        """Whether he shall go."""
        self.stalled = False
        self.sending: float | None = None
        """Monotonic time since when he was offered what he has not taken."""
        self.task: asyncio.Task[Any] | None = asyncio.current_task()
        self._events: deque[Frame] = deque(maxlen=_MOST_EVENTS)
        self._lost = 0
        self._picture: Frame | None = None
        self._bell: asyncio.Future[None] | None = None

    def show(self, picture: Frame) -> None:
        """Only the newest counts."""
        self._picture = picture

    def tell(self, event: Frame) -> None:
        """The oldest makes room."""
        self._lost += len(self._events) == _MOST_EVENTS
        self._events.append(event)

    def lose(self, count: int) -> None:
        """So many events are gone for him."""
        self._lost += count

    def wake(self) -> None:
        """Have him take what waits."""
        if self._bell is not None and not self._bell.done():
            self._bell.set_result(None)

    def leave(self) -> None:
        """Have him go."""
        self.over = True
        self.wake()

    async def waits(self, seconds: float, clock: Clock) -> None:
        """Until he is woken, for so many seconds at most."""
        if not self._events and self._picture is None and not self._lost and not self.over:
            self._bell = asyncio.get_running_loop().create_future()
            await clock.await_(self._bell, seconds)
            self._bell = None

    def takes(self) -> Iterator[bytes]:
        """What waits for him, in pieces. What comes meanwhile is among it."""
        while True:
            if self._lost:
                lost, self._lost = self._lost, 0
                frame = Frame.of("lost", {"lost": lost})
            elif self._events:
                frame = self._events.popleft()
            elif self._picture is not None:
                frame, self._picture = self._picture, None
            else:
                return
            yield from self.pieces(frame)

    def pieces(self, frame: Frame) -> Iterator[bytes]:
        """A message in pieces that a server may buffer."""
        data = frame.packed if self.packs else frame.plain
        for start in range(0, len(data), _PIECE):
            yield data[start : start + _PIECE]


class Hub:
    """The producer and those who look, in one event loop."""

    def __init__(
        self, sources: Sources, draw: Callable[[], Awaitable[Mapping[str, Any]]], clock: Clock, listeners: Listeners, pace: Pace
    ) -> None:
        """``draw`` gives the picture that is shown."""
        self._sources = sources
        self._draw = draw
        self._clock = clock
        self._listeners = listeners
        self._pace = pace
        self._viewers: dict[Viewer, None] = {}
        self._producer: asyncio.Task[None] | None = None
        self._last: tuple[float, Frame] | None = None
        self._after: int | None = None
        self._told = 0
        """What version the events had that were told last."""
        self._hurried = False
        self._aside = Aside("somaresil-dashboard-stream")
        self.stalled = 0
        """How many were sent away because they took nothing."""

    def __len__(self) -> int:
        """How many look."""
        return len(self._viewers)

    def hurry(self) -> None:
        """Something was done here: the next picture is wanted soon."""
        self._hurried = True

    def close(self) -> None:
        """Send everybody away."""
        for viewer in tuple(self._viewers):
            viewer.leave()

    # -- one viewer ----------------------------------------------------------------------------------------------------------------------

    async def serve(
        self,
        receive: Receive,
        send: Send,
        *,
        headers: list[tuple[bytes, bytes]],
        packs: bool,
        after: int | None,
        known: Callable[[], Awaitable[bool]],
    ) -> None:
        """Show him everything until he goes. ``known``: whether he may look still. ``after``: the last event that he has seen, if any."""
        viewer = Viewer(packs=packs)
        gone = asyncio.ensure_future(_gone(receive))
        gone.add_done_callback(lambda _: viewer.leave())
        begun = False
        # Before anything is awaited, so that no two think that they are the last one that is let in.
        self._viewers[viewer] = None
        try:
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            begun = True
            await self._begin(viewer, after)
            await self._attend(viewer, send, known)
            await self._say(viewer, send, b"", more=False)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if not viewer.stalled or task is None:
                raise
            # It was us: the server is given back a request that is over, and drops the connection.
            task.uncancel()
            self.stalled += 1
        except OSError:
            # So servers say that the client has gone (ASGI 2.4).
            return
        except Exception as defect:
            if not begun:
                raise
            # Too late for another answer; the client comes back.
            self._listeners.defect("dashboard stream", defect, self._clock.time(), "it ended")
        finally:
            self._viewers.pop(viewer, None)
            gone.cancel()

    async def _begin(self, viewer: Viewer, after: int | None) -> None:
        if after is not None:
            told = await self._sources.events(after, kind=None, about=None, most=_MOST_EVENTS)
            viewer.lose(int(told.get("lost") or 0))
            for entry in told["events"]:
                viewer.tell(Frame.of("event", entry, entry["id"]))
        if self._last is not None and self._clock.monotonic() - self._last[0] < 2.0 * self._pace.tick:
            viewer.show(self._last[1])
        self._hurried = True
        if self._producer is None or self._producer.done():
            self._producer = asyncio.ensure_future(self._produce())

    async def _attend(self, viewer: Viewer, send: Send, known: Callable[[], Awaitable[bool]]) -> None:
        opening = [_GZIP_HEADER] if viewer.packs else []
        for piece in (*opening, *viewer.pieces(_BEGIN)):
            await self._say(viewer, send, piece)
        asked = heard = self._clock.monotonic()
        while not viewer.over:
            for piece in viewer.takes():
                await self._say(viewer, send, piece)
                heard = self._clock.monotonic()
                if viewer.over:
                    return
            now = self._clock.monotonic()
            if now - asked >= self._pace.again:
                asked = now
                if not await known():
                    return
            if now - heard >= self._pace.heartbeat:
                heard = now
                for piece in viewer.pieces(_BEAT):
                    await self._say(viewer, send, piece)
            await viewer.waits(min(self._pace.heartbeat - (now - heard), self._pace.again), self._clock)

    async def _say(self, viewer: Viewer, send: Send, piece: bytes, *, more: bool = True) -> None:
        viewer.sending = self._clock.monotonic()
        await send({"type": "http.response.body", "body": piece, "more_body": more})
        viewer.sending = None

    # -- the producer --------------------------------------------------------------------------------------------------------------------

    async def _produce(self) -> None:
        pause = self._pace.tick
        with self._sources.watching():
            while self._viewers:
                began, version, self._hurried = self._clock.monotonic(), self._sources.version, False
                try:
                    await self._tell_events(version)
                    pause = await self._show_picture()
                    await self._hand_out()
                    await self._rest(began, version, pause)
                except Exception as defect:  # noqa: BLE001 - the next one may come off
                    self._listeners.defect("dashboard stream", defect, self._clock.time(), "it is tried again")
                    await self._clock.asleep(self._pace.tick)
            self._last = self._after = None

    async def _tell_events(self, version: int) -> None:
        after, self._told = self._after, version
        told = await self._sources.events(after or 0, kind=None, about=None, most=_MOST_EVENTS)
        self._after = told["next"]
        if after is None:
            # What was before they came they ask for.
            return
        lost = int(told.get("lost") or 0)
        frames = [Frame.of("event", entry, entry["id"]) for entry in told["events"]]
        for viewer in self._viewers:
            if lost:
                viewer.lose(lost)
            for frame in frames:
                viewer.tell(frame)

    async def _show_picture(self) -> float:
        """Seconds until the next one."""
        picture = await self._draw()
        frame, spent = await self._write_down(picture)
        if any(viewer.packs for viewer in self._viewers):
            if len(frame.plain) > _LARGE:
                await self._aside.run(frame, lambda: frame.packed)
            else:
                _ = frame.packed
        self._last = (self._clock.monotonic(), frame)
        for viewer in self._viewers:
            viewer.show(frame)
        return min(self._pace.longest, max(self._pace.tick, spent / self._pace.share))

    async def _write_down(self, picture: Mapping[str, Any]) -> tuple[Frame, float]:
        """The message, and the seconds that it took. A long list is written in slices, so that requests come in between."""
        spent, members = 0.0, []
        for name, value in picture.items():
            whole = isinstance(value, list)
            slices = [value[start : start + _SLICE] for start in range(0, len(value), _SLICE)] if whole else [value]
            texts = []
            for part in slices:
                began = self._clock.monotonic()
                texts.append(_json(part))
                spent += self._clock.monotonic() - began
                await self._clock.asleep(0.0)
            text = f"[{','.join(each[1:-1] for each in texts)}]" if whole else texts[0]
            members.append(f"{_json(name)}:{text}")
        return Frame.written("picture", f"{{{','.join(members)}}}"), spent

    async def _hand_out(self) -> None:
        for number, viewer in enumerate(tuple(self._viewers), 1):
            viewer.wake()
            if number % _AT_ONCE == 0:
                await self._clock.asleep(_BETWEEN)

    async def _rest(self, began: float, version: int, pause: float) -> None:
        """Until the next picture is due; events do not wait for it. Large pictures are not hurried more than others."""
        soonest = self._pace.soonest * pause / self._pace.tick
        while self._viewers:
            now = self._clock.monotonic()
            self._send_away(now)
            noted = self._hurried or self._sources.version != version
            due = began + (soonest if noted else pause)
            if now >= due:
                return
            if self._sources.version != self._told:
                await self._tell_events(self._sources.version)
                await self._hand_out()
            await self._clock.asleep(min(due - now, self._pace.look))

    def _send_away(self, now: float) -> None:
        """Those who take nothing, and everybody when the server wants to end."""
        if server_leaves():
            self.close()
        for viewer in self._viewers:
            if viewer.sending is not None and now - viewer.sending > self._pace.patience and not viewer.stalled and viewer.task is not None:
                viewer.stalled = True
                viewer.task.cancel()


def _json(data: Any) -> str:
    return json.dumps(data, allow_nan=False, separators=(",", ":"))


async def _gone(receive: Receive) -> None:
    """Until the client has gone. What it sends meanwhile is nothing to us, and a server that cannot be asked has lost it."""
    with suppress(Exception):
        while (await receive())["type"] != "http.disconnect":
            pass


def server_leaves() -> bool:
    """Whether the server of this process was told to end: it waits for streams, which never end, and tells apps nothing before.

    uvicorn and gunicorn's workers take the signal by a method of an object that says so.
    """
    for number in (signal.SIGTERM, signal.SIGINT):
        owner = getattr(signal.getsignal(number), "__self__", None)
        if getattr(owner, "should_exit", False) is True or getattr(owner, "alive", True) is False:
            return True
    return False
