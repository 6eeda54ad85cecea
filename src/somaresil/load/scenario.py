"""A scenario: where to, what, how much, for how long, and what it is judged by; as a file in TOML (or YAML).

::

    name = "conversation"
    target = "http://127.0.0.1:8000"
    preset = "baseline"                 # or users and [[stages]] of your own
    think = 1.0                         # seconds from one request of a user to the next: 100 users are 100 arrivals a second

    [[requests]]
    name = "message"
    weight = 3
    method = "POST"
    path = "/v1/session/message"
    headers = { x-request-id = "{id}" }
    json = { session = "{session}", text = "question {n}" }

    [[requests]]
    name = "events"
    kind = "sse"
    path = "/v1/llm/invoke/stream?prompt=hello"
    end = "done"

    [thresholds]
    p95 = 2.0
    error_rate = 0.001
    events.ttft_p95 = 0.5               # of one request

    [slo]
    file = "slo.toml"
    names = ["api_availability"]

    [server]
    metrics = "http://127.0.0.1:8000/metrics"

    [chaos]
    url = "http://127.0.0.1:8000/_soma/chaos"
    token_env = "SOMARESIL_CHAOS_TOKEN"
    windows = [{ target = "llm.*", kind = "latency", start = 60, duration = 60, delay = 0.5 }]

Nothing that a file names is imported or called. A target that is not on loopback must be allowed by whoever runs it.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from somaresil.chaos.plan import ChaosPlan
from somaresil.config import Checker, did_you_mean
from somaresil.errors import ConfigurationError
from somaresil.load.arrivals import ARRIVALS, LONGEST, MOST_RATE, Stage
from somaresil.load.http import Target
from somaresil.load.orders import Request, Upload
from somaresil.load.presets import PRESETS
from somaresil.load.thresholds import Threshold, threshold_of
from somaresil.settings.entries import duration_of
from somaresil.settings.files import document_of

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable

    from somaresil.settings.files import Document
    from somaresil.slo.objective import SLO

__all__ = ["ChaosPart", "Scenario", "ServerPart", "is_loopback", "read_scenario"]

MOST_IN_FLIGHT: Final = 20_000
_TOP: Final = (
    "name", "target", "seed", "arrival", "preset", "users", "think", "stages", "max_in_flight", "timeout", "sessions", "requests",
    "thresholds", "slo", "server", "chaos",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class ServerPart:
    """Where the service tells what it has counted itself."""

    metrics: str
    """The address of its metrics in the text form of Prometheus."""
    slos: tuple[str, ...] = ()
    """Objectives that are judged by what the service has counted."""


@dataclass(frozen=True, slots=True)
class ChaosPart:
    """Experiments that run meanwhile."""

    url: str
    """The control app of the service."""
    plan: ChaosPlan
    token_env: str = "SOMARESIL_CHAOS_TOKEN"  # noqa: S105 - the name of the variable


@dataclass(frozen=True, slots=True)
class Scenario:
    """A load and its judgement.

    Raises :class:`~somaresil.errors.ConfigurationError` with every problem found.
    """

    name: str
    target: str
    requests: tuple[Request, ...]
    stages: tuple[Stage, ...]
    _: KW_ONLY
    arrival: str = "poisson"
    seed: int = 0
    max_in_flight: int = 1_000
    """Requests at the same time; an arrival beyond that is dropped, and counted."""
    sessions: int = 50
    """How many values ``{session}`` has."""
    thresholds: tuple[Threshold, ...] = ()
    slos: tuple[SLO, ...] = ()
    server: ServerPart | None = None
    chaos: ChaosPart | None = None

    def __post_init__(self) -> None:
        """Check everything."""
        check = Checker("scenario")
        check.name("name", self.name)
        try:
            Target.of(self.target)
        except ValueError as wrong:
            # Not shown: it may be one with a password in it.
            check.problem("target", "an address", str(wrong))
        check.one_of("arrival", self.arrival, ARRIVALS)
        check.count("seed", self.seed, minimum=0, maximum=2**63 - 1)
        check.count("max_in_flight", self.max_in_flight, maximum=MOST_IN_FLIGHT)
        check.count("sessions", self.sessions, maximum=1_000_000)
        if not self.requests:
            check.problem("requests", "none", "at least one")
        elif not sum(request.weight for request in self.requests) > 0.0:
            check.problem("requests", "weights of 0", "at least one that is more")
        names = [request.name for request in self.requests]
        for name in {name for name in names if names.count(name) > 1}:
            check.problem("requests", name, "each name once")
        if not self.stages:
            check.problem("stages", "none", "at least one")
        elif not sum(stage.area for stage in self.stages) >= 1.0:
            check.problem("stages", "no arrivals", "a rate at which at least one request is made")
        for threshold in self.thresholds:
            if threshold.request is not None and threshold.request not in names:
                check.problem("thresholds", threshold.request, "the name of a request", did_you_mean(threshold.request, names))
            asked = [request for request in self.requests if threshold.request in {None, request.name}]
            if asked and threshold.about_streams and all(request.kind == "http" for request in asked):
                check.problem("thresholds", threshold.limit, "a limit that fits", "none of its requests is a stream")
        check.finish()

    @property
    def seconds(self) -> float:
        """How long arrivals come."""
        return sum(stage.seconds for stage in self.stages)

    @property
    def peak(self) -> float:
        """The highest rate of arrivals a second."""
        return max(max(stage.rate, stage.end_rate) for stage in self.stages)

    def compressed(self, times: float) -> Scenario:
        """The same rates in a time that is so many times shorter, experiments too."""
        check = Checker()
        check.number("compress", times, minimum=1.0, maximum=100_000.0)
        check.finish()
        stages = tuple(replace(stage, seconds=stage.seconds / times) for stage in self.stages)
        chaos = self.chaos
        if chaos is not None:
            windows = [replace(window, start=window.start / times, duration=window.duration / times) for window in chaos.plan.windows]
            chaos = replace(chaos, plan=ChaosPlan(windows, seed=chaos.plan.seed))
        return replace(self, stages=stages, chaos=chaos)

    def scaled(self, factor: float) -> Scenario:
        """So many times as many arrivals in the same time."""
        check = Checker()
        check.number("scale", factor, minimum=0.0, maximum=1_000.0, exclusive=True)
        check.finish()
        stages = tuple(
            replace(stage, rate=stage.rate * factor, to=None if stage.to is None else stage.to * factor) for stage in self.stages
        )
        return replace(self, stages=stages)

    def at(self, rate: float, seconds: float) -> Scenario:
        """The same requests at one rate for so long, without experiments: a probe."""
        return replace(self, stages=(Stage(seconds, rate),), chaos=None)

    def check_hosts(self, allowed: Iterable[str] = ()) -> None:
        """Raise :class:`~somaresil.errors.ConfigurationError` for a host that is not loopback and not among ``allowed``."""
        check = Checker("scenario")
        named = set(allowed)
        addresses = {"target": self.target}
        if self.server is not None:
            addresses["server.metrics"] = self.server.metrics
        if self.chaos is not None:
            addresses["chaos.url"] = self.chaos.url
        for where, address in addresses.items():
            host = urlsplit(address).hostname or ""
            if not is_loopback(host) and host not in named:
                check.problem(where, host, "loopback", f"load is an attack where it is not expected; --allow-host {host} allows it")
        check.finish()


def is_loopback(host: str) -> bool:
    """Whether a host is this machine, by its name or address; nothing is looked up."""
    if host.lower() in {"localhost", "localhost."}:
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def read_scenario(source: str | os.PathLike[str] | Mapping[str, Any], *, target: str | None = None, preset: str | None = None) -> Scenario:
    """Read a file by its ending, or take a mapping; ``target`` and ``preset`` take the place of what it says.

    Raises :class:`~somaresil.errors.ConfigurationError` with every problem found, each with its file and line.
    """
    check = Checker()
    document = document_of(source, check)
    check.finish()
    if document is None:
        raise ConfigurationError(())
    folder = Path() if isinstance(source, Mapping) else Path(source).parent
    data = dict(document.data)
    if target is not None:
        data["target"] = target
    if preset is not None:
        data["preset"] = preset
        for name in ("stages", "users"):
            data.pop(name, None)
    return _Reader(document, data, folder).scenario()


class _Reader:
    """Builds a scenario, and collects what is wrong."""

    def __init__(self, document: Document, data: Mapping[str, Any], folder: Path) -> None:
        self._document = document
        self._data = data
        self._folder = folder
        self._check = Checker()

    def scenario(self) -> Scenario:
        """All of it, or every problem."""
        data = self._data
        self._known(data, _TOP, ())
        timeout = self._seconds(data.get("timeout", 30.0), ("timeout",))
        requests = self._requests(data.get("requests", ()), timeout)
        stages = self._stages()
        thresholds = self._thresholds(data.get("thresholds", {}), [request.name for request in requests])
        slos = self._slos(data.get("slo"))
        server, chaos = self._server(data.get("server")), self._chaos(data.get("chaos"))
        given = {name: data[name] for name in ("arrival", "seed", "max_in_flight", "sessions") if name in data}
        self._check.finish()
        made: Scenario | None = None
        try:
            made = Scenario(
                data.get("name", "load"),
                data.get("target", ""),
                tuple(requests),
                stages,
                thresholds=tuple(thresholds),
                slos=slos,
                server=server,
                chaos=chaos,
                **given,
            )
        except ConfigurationError as wrong:
            self._told(wrong, ())
        self._check.finish()
        if made is None:
            raise ConfigurationError(())
        return made

    # -- parts ----------------------------------------------------------------------------------------------------------------------------

    def _stages(self) -> tuple[Stage, ...]:
        data = self._data
        think = self._seconds(data.get("think", 1.0), ("think",))
        if think is not None and think <= 0.0:
            self._problem(("think",), think, "seconds > 0")
            think = None
        users = data.get("users")
        if users is not None and (isinstance(users, bool) or not isinstance(users, int | float) or not 0 < users <= MOST_RATE):
            self._problem(("users",), users, f"a number > 0 and <= {MOST_RATE:g}")
            return ()
        ways = [name for name in ("preset", "stages") if name in data]
        if len(ways) != 1:
            self._problem(("stages",), " and ".join(ways) or "none", "preset or stages")
            return ()
        if "preset" in data:
            preset = PRESETS.get(data["preset"]) if isinstance(data["preset"], str) else None
            if preset is None:
                self._problem(("preset",), data["preset"], " | ".join(PRESETS), did_you_mean(data["preset"], PRESETS))
                return ()
            return preset.stages(preset.users if users is None else users, think) if think else ()
        listed = data["stages"]
        if not isinstance(listed, list | tuple):
            self._problem(("stages",), listed, "a list of tables")
            return ()
        return tuple(stage for place, each in enumerate(listed) if (stage := self._stage(each, place, think)) is not None)

    def _stage(self, given: Any, place: int, think: float | None) -> Stage | None:
        path = ("stages", str(place))
        if not isinstance(given, Mapping):
            self._problem(path, given, "a table")
            return None
        self._known(given, ("name", "seconds", "rate", "to", "users", "to_users"), path)
        seconds = self._seconds(given.get("seconds"), (*path, "seconds"), maximum=LONGEST)
        if ("users" in given) == ("rate" in given):
            self._problem(path, "both or none", "either rate or users")
            return None
        rate: Any = given.get("rate")
        to: Any = given.get("to")
        if "users" in given:
            try:
                rate = given["users"] / (think or 1.0)
                to = given["to_users"] / (think or 1.0) if "to_users" in given else to
            except TypeError:
                self._problem(path, given["users"], "a number of users")
                return None
        if seconds is None:
            return None
        try:
            return Stage(seconds, rate, to, given.get("name", ""))
        except ConfigurationError as wrong:
            self._told(wrong, path)
        return None

    def _requests(self, listed: Any, timeout: float | None) -> list[Request]:
        if not isinstance(listed, list | tuple):
            self._problem(("requests",), listed, "a list of tables")
            return []
        found: list[Request] = []
        names = tuple(each.name for each in fields(Request) if each.name != "_")
        for place, given in enumerate(listed):
            path = ("requests", str(place))
            if not isinstance(given, Mapping):
                self._problem(path, given, "a table")
                continue
            self._known(given, names, path)
            options = {name: value for name, value in given.items() if name in names}
            options.setdefault("timeout", timeout or 30.0)
            if isinstance(options["timeout"], str):
                options["timeout"] = self._seconds(options["timeout"], (*path, "timeout"))
            for name in ("messages", "expect"):
                if isinstance(options.get(name), list):
                    options[name] = tuple(options[name])
            missing = [name for name in ("name", "path") if name not in options]
            for name in missing:
                self._problem((*path, name), None, "a text", "it is missing")
            if missing:
                continue
            try:
                if isinstance(options.get("upload"), Mapping):
                    upload = options["upload"]
                    self._known(upload, ("size", "field", "filename", "content_type"), (*path, "upload"))
                    options["upload"] = Upload(**{str(name): value for name, value in upload.items()})
                found.append(Request(**options))
            except ConfigurationError as wrong:
                self._told(wrong, path)
            except TypeError:
                self._problem((*path, "upload"), options.get("upload"), "a table with a size")
        return found

    def _thresholds(self, given: Any, names: list[str]) -> list[Threshold]:
        if not isinstance(given, Mapping):
            self._problem(("thresholds",), given, "a table of limits")
            return []
        found: list[Threshold | None] = []
        for name, value in given.items():
            if not isinstance(value, Mapping):
                found.append(self._threshold(str(name), value, None, ("thresholds", str(name))))
            elif name not in names:
                self._problem(("thresholds", str(name)), name, "the name of a request", did_you_mean(name, names))
            else:
                found += [
                    self._threshold(str(limit), each, str(name), ("thresholds", str(name), str(limit))) for limit, each in value.items()
                ]
        return [threshold for threshold in found if threshold is not None]

    def _threshold(self, limit: str, value: Any, request: str | None, path: tuple[str, ...]) -> Threshold | None:
        inner = Checker()
        if isinstance(value, str) and (duration := duration_of(value)) is not None:
            value = duration.total_seconds()
        made = threshold_of(limit, value, request, inner)
        for problem in inner.problems:
            self._problem(path, problem.value, problem.allowed, problem.hint)
        return made

    def _slos(self, given: Any) -> tuple[SLO, ...]:
        if given is None:
            return ()
        if not isinstance(given, Mapping) or not isinstance(given.get("file"), str):
            self._problem(("slo",), given, "a table with a file, and the names of objectives in it")
            return ()
        self._known(given, ("file", "names"), ("slo",))
        from somaresil.slofile import read_slos

        try:
            found = {slo.name: slo for slo in read_slos(self._folder / given["file"]).slos}
        except ConfigurationError as wrong:
            for problem in wrong.problems:
                self._check.problem(problem.path, problem.value, problem.allowed, problem.hint)
            return ()
        names = given.get("names", list(found))
        for name in names:
            if name not in found:
                self._problem(("slo", "names"), name, "the name of an objective in that file", did_you_mean(name, found))
        return tuple(found[name] for name in names if name in found)

    def _server(self, given: Any) -> ServerPart | None:
        if given is None:
            return None
        if not isinstance(given, Mapping) or not _is_url(given.get("metrics")):
            self._problem(("server", "metrics"), "what was given", "http:// or https:// and where the metrics are")
            return None
        self._known(given, ("metrics", "slos"), ("server",))
        slos = given.get("slos", ())
        if not isinstance(slos, list | tuple) or not all(isinstance(name, str) for name in slos):
            self._problem(("server", "slos"), slos, "a list of names")
            return None
        return ServerPart(given["metrics"], tuple(slos))

    def _chaos(self, given: Any) -> ChaosPart | None:
        if given is None:
            return None
        if not isinstance(given, Mapping) or not _is_url(given.get("url")):
            self._problem(("chaos", "url"), "what was given", "http:// or https:// and where the control app is")
            return None
        self._known(given, ("url", "token_env", "seed", "windows"), ("chaos",))
        try:
            plan = ChaosPlan.from_dict({"somaresil_plan": 1, "seed": given.get("seed", 0), "windows": given.get("windows", [])})
        except ConfigurationError as wrong:
            for problem in wrong.problems:
                self._problem(("chaos",), problem.value, problem.allowed, problem.hint or problem.path)
            return None
        if not plan.windows:
            self._problem(("chaos", "windows"), "none", "at least one")
        token = given.get("token_env", "SOMARESIL_CHAOS_TOKEN")
        if not isinstance(token, str) or not token.isidentifier():
            self._problem(("chaos", "token_env"), "what was given", "the name of an environment variable", "not the token itself")
            return None
        return ChaosPart(given["url"], plan, token)

    # -- problems -------------------------------------------------------------------------------------------------------------------------

    def _seconds(self, value: Any, path: tuple[str, ...], maximum: float | None = None) -> float | None:
        if isinstance(value, str):
            value = duration_of(value) or value
        inner = Checker()
        found = inner.seconds(path[-1], value, maximum=maximum)
        for problem in inner.problems:
            self._problem(path, problem.value, problem.allowed, 'or a text such as "30s", "10m", "4h"')
        return None if inner.problems else float(found)

    def _known(self, given: Mapping[str, Any], known: tuple[str, ...], path: tuple[str, ...]) -> None:
        for name in given:
            if name not in known:
                self._problem((*path, str(name)), name, ", ".join(known), did_you_mean(name, known))

    def _told(self, wrong: ConfigurationError, path: tuple[str, ...]) -> None:
        for problem in wrong.problems:
            inner = tuple(part for part in problem.path.removeprefix("scenario.").split(".") if part)
            self._problem((*path, *inner), problem.value, problem.allowed, problem.hint)

    def _problem(self, path: tuple[str, ...], value: object, allowed: str, hint: str = "") -> None:
        self._check.problem(self._document.where(path, ".".join(path)), value, allowed, hint)


def _is_url(value: object) -> bool:
    if not isinstance(value, str):
        return False
    try:
        Target.of(value)
    except ValueError:
        return False
    return True
