"""Everything the dashboard shows: of this process, of its siblings on this machine and of peers elsewhere, as one."""

from __future__ import annotations

import math
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from somaresil.config import Checker
from somaresil.dashboard import checked, merge
from somaresil.dashboard import columns as columns_of
from somaresil.dashboard.aside import Aside
from somaresil.dashboard.exchange import Exchange, check_folder
from somaresil.dashboard.peers import Peers, check_peers
from somaresil.dashboard.picture import GUARD, Local
from somaresil.dashboard.siblings import Siblings
from somaresil.forks import unwatch, watch
from somaresil.patrol import Patrol

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping, Sequence
    from pathlib import Path

    from somaresil.resilience import Resilience

__all__ = ["Sources"]

PLOTTED: Final = 60
"""Of so many guards and routes, the busiest, a picture has series; of others they are None there, and shown with the guard alone."""
_REMOTE: Final = 2.0
_COMMANDED: Final = 10.0
"""Seconds that a worker has to do what it is told."""
_ATTENTIVE: Final = 10.0
"""Seconds for which events about single calls are listened for after somebody else asked for them."""
_NEWS_EVERY: Final = 0.25
_GLANCE: Final = 0.2
_MOST_EVENTS: Final = 1_000
_PATIENT: Final = 2.0
"""The same for one that has not answered when it was asked last."""
_HELD: Final = 3.0
"""Seconds for which events of others wait for those of a worker that is slow."""
_FRESH: Final = 0.1
"""Seconds for which a picture is the same for everybody."""
_OWN_FRESH: Final = 1.0
"""The same of what peers are told: there may be many of them."""


class Sources:
    """This process and those beside it.

    ``workers`` is the folder through which the workers of this service on this machine find each other: of this user alone (mode 0700), and
    made when it is not there. ``peers`` are the addresses of dashboards of other pods, asked with ``token``: see
    :mod:`somaresil.dashboard.peers`. ``perform(command, actor)`` does one command in this process and says how that went; without it
    nothing can be done. It is called in a thread, also for siblings.

    All answers are made of what JSON has. Nothing waits for a peer, and for half a second at most for a sibling; both are asked only when
    somebody looks.

    Raises :class:`~somaresil.errors.ConfigurationError` with every problem found.
    """

    def __init__(
        self,
        resilience: Resilience,
        *,
        workers: str | Path | None = None,
        peers: Sequence[str] = (),
        token: str | None = None,
        perform: Callable[[Mapping[str, Any], str], dict[str, Any]] | None = None,
    ) -> None:
        """Nothing is started: no thread, no socket, no listener."""
        check = Checker("dashboard")
        if workers is not None:
            check_folder(check, "workers", workers)
        addresses = check_peers(check, peers, token)
        if perform is not None and not callable(perform):
            check.problem("perform", perform, "a function of a command and an actor, or None")
        check.finish()
        self._resilience = resilience
        self._perform = perform
        clock, listeners = resilience.clock, resilience.listeners
        self.local = Local(resilience)
        self._exchange = None
        if workers is not None:
            self._exchange = Exchange(workers, service=resilience.service, answer=self._answer, clock=clock, listeners=listeners)
        self._siblings = None if self._exchange is None else Siblings(self._exchange, clock, listeners)
        self._peers = Peers(addresses, token or "", clock, listeners)
        self._aside = Aside("somaresil-dashboard-picture")
        self._patrol = Patrol("somaresil-dashboard", self._round, self.local.next_sample, listeners)
        self._news = Patrol("somaresil-dashboard-news", self._hear_news, _NEWS_EVERY, listeners)
        self._running = False
        self._begin()

    def _begin(self) -> None:
        self._lock = threading.RLock()
        self._watchers = 0
        self._asked_at = -math.inf
        self._heard = 0
        self._versions: dict[str, int] = {}
        self._plotted: tuple[str, ...] = ()
        self._series: tuple[object, list[dict[str, Any]], dict[str, dict[str, Any]]] = (None, [], {})
        self._told_own: tuple[float, dict[str, Any]] = (-math.inf, {})
        self._told_upto: dict[str, tuple[int, float]] = {}
        self._last: tuple[float, int, dict[str, Any] | None] = (-math.inf, 0, None)
        self._apart = False
        """Whether this process only begins others: it has forked, and nobody calls or asks it."""

    # -- life -----------------------------------------------------------------------------------------------------------------------------

    @property
    def version(self) -> int:
        """Moves when something of note happened here, and while somebody watches also when it happened in a sibling."""
        return self.local.events.version + self._heard

    def start(self) -> None:
        """Remember from now on, and let siblings ask, in daemon threads that forked children get too."""
        with self._lock:
            if self._running:
                return
            self._running = True
        self.local.start()
        watch(self)
        self._listen()
        self._patrol.wake()

    def stop(self) -> None:
        """Remember no more, and leave the folder of workers."""
        with self._lock:
            if not self._running:
                return
            self._running = False
        unwatch(self)
        self.local.stop()
        if self._exchange is not None:
            self._exchange.stop()
        self._patrol.wake()
        self._news.wake()

    def _listen(self) -> None:
        if self._exchange is not None and self._running:
            self._exchange.start()

    def before_fork(self) -> None:
        """In the parent: what is counted now is the parent's."""
        self.local.before_fork()

    def after_fork_in_parent(self) -> None:
        """In the parent: one that only begins others, as a server that has loaded the app before it forks, is nothing to be shown."""
        if self._exchange is not None and not self._apart and self._idle():
            self._apart = True
            self._exchange.stop()

    def after_fork_in_child(self) -> None:
        """In the child: begin anew, with a socket of its own."""
        self._begin()
        self.local.after_fork()
        self._peers.after_fork()
        self._aside.after_fork()
        if self._siblings is not None:
            self._siblings.after_fork()
        if self._exchange is not None:
            self._exchange.after_fork()
            self._listen()
        self._patrol.wake()

    def _idle(self) -> bool:
        try:
            return not self._watchers and self._last[2] is None and not self.local.calls
        except Exception:  # noqa: BLE001 - nobody may be kept from forking
            return False

    def _come_forward(self) -> None:
        """Somebody looks here, or calls: it is a worker like others."""
        if self._apart:
            self._apart = False
            self._listen()

    def _round(self) -> bool:
        self.local.sample()
        if self._exchange is not None and self._running:
            self._exchange.mend()
        if self._apart and not self._idle():
            self._come_forward()
        self._look_away()
        return self._running

    @contextmanager
    def watching(self) -> Generator[None]:
        """Somebody looks: siblings are asked for news, and what happens to single calls is listened for."""
        with self._lock:
            self._watchers += 1
            self.local.events.attend(looked_at=True)
        if self._siblings is not None:
            self._news.wake()
        try:
            yield
        finally:
            with self._lock:
                self._watchers -= 1
            self._look_away()

    def _attend(self) -> None:
        """A sibling asks, for somebody who looks there."""
        self._asked_at = self._resilience.clock.monotonic()
        self._come_forward()
        if not self.local.events.attending:
            with self._lock:
                self.local.events.attend(looked_at=True)

    def _look_away(self) -> None:
        with self._lock:
            asked = self._resilience.clock.monotonic() - self._asked_at < _ATTENTIVE
            if not self._watchers and not asked:
                self.local.events.attend(looked_at=False)

    def _hear_news(self) -> bool:
        siblings = self._siblings
        if siblings is None or not self._watchers or not self._running:
            return False
        before, self._versions = self._versions, {}
        for sibling, version, _ in siblings.everyone({"ask": "version"}, checked.count, _GLANCE, patience=0.0):
            known = before.get(sibling.name)
            now = known if version is None else version
            if now is not None:
                self._versions[sibling.name] = now
            self._heard += known is not None and now != known
        return True

    # -- what siblings ask ----------------------------------------------------------------------------------------------------------------

    def _answer(self, asked: Mapping[str, Any]) -> Any:
        what, name = asked.get("ask"), asked.get("name")
        if what == "version":
            return self.local.events.version
        self._attend()
        if what == "portrait":
            return self.local.portrait()
        if what == "columns":
            names = asked.get("names")
            return columns_of.packed(
                self.local.columns([each for each in names if isinstance(each, str)] if isinstance(names, list) else [])
            )
        if what == "guard" and isinstance(name, str):
            found = self.local.guard(name)
            return None if found is None else {**found, "columns": columns_of.packed(found["columns"])}
        if what == "objective" and isinstance(name, str):
            return self.local.objective(name)
        if what == "events":
            return self.local.events.read(**_events_asked(asked))
        if what == "command" and isinstance(asked.get("command"), dict):
            return self._do(asked["command"], str(asked.get("actor"))[:200])
        raise ValueError("a question that nobody asks")

    # -- the picture ----------------------------------------------------------------------------------------------------------------------

    async def picture(self) -> dict[str, Any]:
        """What is shown of all, as in the guide on the dashboard."""
        return await self._aside.run("picture", self._picture)

    async def own(self) -> dict[str, Any]:
        """What peers are told: the portrait of this process and its siblings, without that of peers, for they would tell it back."""
        return await self._aside.run("own", self._own)

    async def guard(self, name: str) -> dict[str, Any] | None:
        """What is shown of one guard; None: there is none of this name, anywhere."""
        return await self._aside.run(("guard", name), lambda: self._guard(name))

    async def objective(self, name: str) -> dict[str, Any] | None:
        """What is shown of one objective; None: there is none of this name, anywhere."""
        return await self._aside.run(("objective", name), lambda: self._objective(name))

    async def events(self, after: int = 0, *, kind: str | None = None, about: str | None = None, most: int = 200) -> dict[str, Any]:
        """Events of this process and its siblings after the one numbered ``after``, oldest first, the newest ``most`` of them.

        ``next`` is what to ask ``after`` the next time, ``lost`` how many there were that are not here any more or not among these, and
        ``thinned`` how many about single calls were never kept.
        """
        question = {"after": after, "kind": kind, "about": about, "most": most}
        return await self._aside.run(("events", after, kind, about, most), lambda: self._events(question))

    async def command(self, command: Mapping[str, Any], actor: str) -> dict[str, Any]:
        """Do something in this process and all its siblings: ``{"done": bool, "sources": [{"name", "done", "problem", ...}]}``.

        It is done when it is done in each of them; whoever was not reached is named.
        """
        return await self._aside.run(object(), lambda: self._command(command, actor))

    def _portraits(self, *, peers: bool) -> tuple[list[dict[str, Any]], dict[str, dict[str, Any]]]:
        """The portraits of all that are there, columns included; and rows of sources that have none."""
        self._come_forward()
        names = self._plotted
        own = self.local.portrait()
        names = names or tuple(merge.busiest(own, PLOTTED))
        own["columns"] = self.local.columns(names)
        found, rows = [own], dict[str, dict[str, Any]]()
        if self._siblings is not None:
            for sibling in self._siblings.look(names):
                state = self._siblings.state(sibling)
                portrait = sibling.portrait
                if state == "missing" or portrait is None:
                    name = f"process {self._siblings.process(sibling)}"
                    if portrait is not None:
                        name = next(iter(portrait["sources"].values()))["name"]
                    why = sibling.why or "it has not answered yet"
                    rows[f"worker {sibling.name}"] = merge.absent(name, "worker", why, process=self._siblings.process(sibling))
                    continue
                shown = {**portrait, "columns": sibling.columns}
                found.append(merge.seen(shown, kind="worker", state=state, why=sibling.why, now=own["at"]))
        if peers:
            self._add_peers(found, rows, own["at"])
        return found, rows

    def _add_peers(self, found: list[dict[str, Any]], rows: dict[str, dict[str, Any]], now: float) -> None:
        self._peers.look()
        seen = {identity for portrait in found for identity in portrait["sources"]}
        for address, state, why, portrait, _ in self._peers.read():
            if portrait is None:
                rows[f"peer {address}"] = merge.absent(address, "peer", why, address=address)
            elif portrait["service"] != self._resilience.service:
                rows[f"peer {address}"] = merge.absent(address, "peer", f"it is another service ({portrait['service']})", address=address)
            elif seen.isdisjoint(portrait["sources"]):
                # Otherwise it is this pod, or one that was found under another address.
                seen.update(portrait["sources"])
                found.append(merge.seen(portrait, kind="peer", state=state, why=why, now=now, address=address))

    def _whole(self, *, peers: bool) -> dict[str, Any]:
        portraits, rows = self._portraits(peers=peers)
        # Columns are dear to add and change every five seconds.
        plain = merge.merge({**portrait, "columns": None} for portrait in portraits)
        plain["sources"] = {**plain["sources"], **rows}
        plain["columns"] = [portrait["columns"] for portrait in portraits if portrait["columns"] is not None]
        self._plotted = tuple(merge.busiest(plain, PLOTTED))
        return plain

    def _picture(self) -> dict[str, Any]:
        now, version = self._resilience.clock.monotonic(), self.version
        at, before, known = self._last
        if known is not None and version == before and 0.0 <= now - at < _FRESH:
            return known
        whole = self._whole(peers=True)
        columns = whole.pop("columns")
        # Those of others are new objects when they are others; our own are made each time.
        key = [(each["index"], bytes(each["known"]), *sorted(each["tracks"]), place and id(each)) for place, each in enumerate(columns)]
        if self._series[0] != key:
            self._series = (key, columns, columns_of.series(columns_of.merged(columns)))
        shown = merge.picture(whole, self._series[2])
        self._last = (now, version, shown)
        return shown

    def _own(self) -> dict[str, Any]:
        now = self._resilience.clock.monotonic()
        at, told = self._told_own
        if not 0.0 <= now - at < _OWN_FRESH:
            whole = self._whole(peers=False)
            columns = columns_of.merged(whole.pop("columns"))
            told = {**whole, "columns": None if columns is None else columns_of.packed(columns)}
            self._told_own = (now, told)
        return told

    # -- one thing ------------------------------------------------------------------------------------------------------------------------

    def _guard(self, name: str) -> dict[str, Any] | None:
        whole = self._whole(peers=True)
        found = [each for each in (self.local.guard(name), *self._asked("guard", name, checked.details)) if each is not None]
        portrait = whole["guards"].get(name)
        if portrait is None:
            return None
        details = merge.details(found) if found else dict(_NO_DETAILS)
        columns = [details.pop("columns"), *self._of_peers(whole["columns"], GUARD + name)]
        merged = columns_of.merged(each for each in columns if each is not None)
        window = max(0.0, whole["at"] - whole["since"])
        details.pop("guard", None)
        shown = merge.guard(name, portrait, window, columns_of.series(merged).get(GUARD + name))
        recent = self._events({"after": 0, "about": name, "most": 50})["events"]
        return {**shown, **details, "heat": columns_of.heat(merged, GUARD + name), "recent": recent}

    def _of_peers(self, columns: list[dict[str, Any]], name: str) -> list[dict[str, Any]]:
        """The columns of one guard that peers have told; those of siblings were asked for anew."""
        told = [portrait["columns"] for _, _, _, portrait, _ in self._peers.read() if portrait is not None]
        found = [each for each in columns if any(each is peer for peer in told) and name in each["tracks"]]
        return [{**each, "tracks": {name: each["tracks"][name]}} for each in found]

    def _objective(self, name: str) -> dict[str, Any] | None:
        whole = self._whole(peers=True)
        if name not in whole["objectives"]:
            return None
        found = [each for each in (self.local.objective(name), *self._asked("objective", name, checked.extras)) if each is not None]
        incidents = [each for each in whole["incidents"] if each["kind"] == "objective" and each["subject"] == name]
        return {
            **merge.objective(name, whole),
            "guards": sorted({guard for each in found for guard in each["guards"]}),
            "requests": any(each["requests"] for each in found),
            "groups": sorted({group for each in found for group in each["groups"]}),
            "incidents": incidents,
        }

    def _asked(self, what: str, name: str, check: Callable[[Any], Any]) -> list[Any]:
        if self._siblings is None:
            return []
        everyone = self._siblings.everyone({"ask": what, "name": name}, _or_none(check), _REMOTE, patience=_GLANCE)
        return [said for _, said, _ in everyone]

    # -- events ---------------------------------------------------------------------------------------------------------------------------

    def _events(self, question: Mapping[str, Any]) -> dict[str, Any]:
        asked = _events_asked(question)
        told = [self.local.events.read(**asked)]
        held: list[int] = []
        if self._siblings is not None:
            now = self._resilience.clock.monotonic()
            everyone = self._siblings.everyone({"ask": "events", **question}, checked.events, _REMOTE, patience=_GLANCE)
            before, self._told_upto = self._told_upto, {}
            for sibling, said, _ in everyone:
                if said is not None:
                    told.append(said)
                    self._told_upto[sibling.name] = (said["upto"], now)
                elif sibling.name in before and now - before[sibling.name][1] < _HELD:
                    # What it has to tell would come behind a number up to which all has been told.
                    self._told_upto[sibling.name] = before[sibling.name]
                    held.append(before[sibling.name][0])
        # Whoever answered first may since have had what the others were still asked for.
        upto = max(asked["after"], min([*held, *(each["upto"] for each in told)]))
        found = [event for each in told for event in each["events"] if event["id"] <= upto]
        events = sorted(found, key=lambda event: (event["id"], event["source"]))
        shown = events[max(0, len(events) - asked["most"]) :]
        lost = sum(each["lost"] for each in told) + (len(events) - len(shown) if asked["after"] else 0)
        return {"events": shown, "next": upto, "lost": lost, "thinned": sum(each["thinned"] for each in told)}

    # -- commands -------------------------------------------------------------------------------------------------------------------------

    def _command(self, command: Mapping[str, Any], actor: str) -> dict[str, Any]:
        everyone: list[tuple[Any, Any, str]] = []
        asked = threading.Event()

        def ask() -> None:
            try:
                if self._siblings is not None:
                    question = {"ask": "command", "command": dict(command), "actor": actor}
                    everyone.extend(self._siblings.everyone(question, checked.answered, _COMMANDED, patience=_PATIENT))
            finally:
                asked.set()

        if self._siblings is not None:
            # At the same time as here: a kill switch that waits for itself is none.
            threading.Thread(target=ask, name="somaresil-workers-command", daemon=True).start()
        done = [{"name": self.local.name, **self._do(command, actor)}]
        if self._siblings is not None:
            asked.wait(_COMMANDED + 1.0)
            done += [{"name": self._name_of(sibling), **_said(said, problem)} for sibling, said, problem in everyone]
        return {"done": all(each["done"] for each in done), "sources": done}

    def _do(self, command: Mapping[str, Any], actor: str) -> dict[str, Any]:
        if self._perform is None:
            return {"done": False, "problem": "nothing can be done here"}
        try:
            return _said(self._perform(command, actor), "")
        except Exception as refused:  # noqa: BLE001 - the others do it
            self._resilience.listeners.defect("a command of the dashboard", refused, self._resilience.clock.time(), "it was told so")
            return {"done": False, "problem": f"{type(refused).__qualname__}: {refused}"[:300]}

    def _name_of(self, sibling: Any) -> str:
        portrait = sibling.portrait
        if portrait is not None:
            return str(next(iter(portrait["sources"].values()))["name"])
        return "a worker" if self._siblings is None else f"process {self._siblings.process(sibling)}"


_NO_DETAILS: Final[dict[str, Any]] = {
    "options": [],
    "stages": [],
    "changed": [],
    "findings": [],
    "timeline": [],
    "tally": None,
    "rejections": {},
    "columns": None,
}


def _events_asked(asked: Mapping[str, Any]) -> dict[str, Any]:
    after, most = asked.get("after"), asked.get("most")
    return {
        "after": after if isinstance(after, int) and after > 0 else 0,
        "kind": asked["kind"] if isinstance(asked.get("kind"), str) else None,
        "about": asked["about"] if isinstance(asked.get("about"), str) else None,
        "most": max(0, min(_MOST_EVENTS, most)) if isinstance(most, int) else 200,
    }


def _said(said: Any, problem: str) -> dict[str, Any]:
    if not isinstance(said, dict):
        return {"done": not problem, "problem": problem}
    return {**said, "done": bool(said.get("done", True)), "problem": str(said.get("problem") or "")}


def _or_none(check: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda value: None if value is None else check(value)
