"""What is injected: each kind of fault in each realm where it can strike this stack, in three blast radii, in an order that a seed decides.

:data:`SITES` is the whole list. It has to name every kind in every realm of :data:`~somaresil.chaos.vocabulary.FAULTS`;
:func:`uncovered` says what it leaves out, and a test fails when that is anything.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from somaresil.chance import Chance
from somaresil.chaos.network.cut import MODES
from somaresil.chaos.vocabulary import FAULTS, Realm, realm_in
from somaresil.drill.topology import RADII, ROLES, candidates

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["IN_PROCESS", "RESOURCES", "SITES", "Site", "Strike", "plan_of", "uncovered"]

RESOURCES: Final = ("loop_block", "gil", "cpu", "memory", "executor", "anyio", "fds", "disk", "pool")
"""The resources that a process has; a test compares them with what ``chaos.capabilities()`` names."""

IN_PROCESS: Final = frozenset({Realm.RESOURCE, Realm.NETWORK})
"""Realms of faults that strike processes, which a simulation in one process cannot have."""

LEASE: Final = 0.9
"""Seconds for which a fault is held."""
_LEASES: Final = {"latency": 1.5, "stream_slow_start": 1.5, "stream_stall": 1.5, "stale_result": 3.0}
"""Of kinds that need longer: a delay ends with its lease, and must not end before the time limit that it is to meet; what is stale has to
be asked of the same endpoint twice."""
_SEEDS: Final = 2**31
_RATES: Final = (0.7, 1.0)


@dataclass(frozen=True, slots=True)
class Site:
    """One way to strike one service."""

    role: str
    kind: str
    target: str
    """As in a plan; ``{redis}`` stands for the port of Redis."""
    options: Mapping[str, Any] = field(default_factory=dict[str, Any])
    capability: str | None = None
    """What the platform must be able to do; None: nothing that it might not."""

    @property
    def realm(self) -> Realm:
        """Where it strikes."""
        return realm_in(FAULTS[self.kind], self.target)

    @property
    def label(self) -> str:
        """The target for people: networks by what is there, and in which way they are cut off."""
        return f"net:redis {self.options['mode']}" if self.realm is Realm.NETWORK else self.target

    @property
    def variant(self) -> tuple[str, str]:
        """What it stands for when kinds are counted: kind and realm; of resources and networks each one, and each way, by itself."""
        return self.kind, self.capability or self.realm.value


@dataclass(frozen=True, slots=True)
class Strike:
    """One fault of a drill."""

    number: int
    site: Site
    radius: str
    rate: float
    seed: int
    lease: float = LEASE

    @property
    def name(self) -> str:
        """For reports: unlike that of any other strike of the drill."""
        return f"{self.number:03d} {self.site.kind} on {self.site.role} {self.site.label} ({self.radius})"

    def plan(self, places: Mapping[str, Any], again: int = 0) -> dict[str, Any]:
        """What the control app of each instance of the role is told: the same for all, and each finds out by itself whether it is meant.

        ``again``: how often it was armed before. Each arming draws anew, for with one seed the same calls would be left alone once more.
        """
        site = self.site
        window = {
            "target": site.target.format(**places) if site.realm is Realm.NETWORK else site.target,
            "kind": site.kind,
            "start": 0,
            "duration": self.lease,
            "rate": self.rate,
            "blast_radius": self.radius,
            "candidates": list(candidates(site.role, self.radius)),
            **site.options,
        }
        return {"somaresil_plan": 1, "seed": self.seed + again, "windows": [window]}


_OPTIONS: Final[dict[tuple[str, Realm], dict[str, Any]]] = {
    ("latency", Realm.GUARD): {"delay": 1.2},
    ("latency", Realm.HTTP): {"delay": 1.2},
    ("error", Realm.GUARD): {"error": "ConnectionError"},
    ("lost_reply", Realm.GUARD): {"delay": 0.1, "error": "TimeoutError"},
    ("fake_result", Realm.GUARD): {"result": {"choices": [], "memory": "lost", "turns": -1}},
    ("rate_limit", Realm.GUARD): {"retry_after": 0.1},
    ("rate_limit", Realm.HTTP): {"retry_after": 1},
    ("stream_slow_start", Realm.STREAM): {"delay": 1.0},
    ("stream_slow_start", Realm.HTTP): {"delay": 1.0},
    ("stream_stall", Realm.STREAM): {"delay": 1.0},
    ("stream_stall", Realm.HTTP): {"delay": 1.0},
    ("stream_drip", Realm.STREAM): {"delay": 0.1},
    ("stream_drip", Realm.HTTP): {"delay": 0.02, "chunk_bytes": 64},
    ("stream_throttle", Realm.STREAM): {"items_per_second": 8},
    ("stream_throttle", Realm.HTTP): {"bytes_per_second": 2_000},
}
"""What a kind needs, or is sharper with; times are longer than the time limits that they meet."""

_UNARY: Final = ("latency", "error", "http_status", "rate_limit", "corrupt_result", "context_length")
_MODEL: Final = ("stream_unfinished", "malformed_tool_call", "empty_answer", "repeated_tokens", "wrong_model")
_STREAMS: Final = tuple(kind for kind, fault in FAULTS.items() if Realm.STREAM in fault.realms)


def _site(role: str, kind: str, target: str) -> Site:
    realm = realm_in(FAULTS[kind], target)
    return Site(role, kind, target, _OPTIONS.get((kind, realm), {}))


def _resource(role: str, name: str, target: str | None = None, **options: Any) -> Site:
    return Site(role, "resource_exhaust", f"resource:{target or name}", options, f"resource_exhaust.{name}")


def _network(mode: str, **options: Any) -> Site:
    return Site("memory", "network_partition", "net:127.0.0.1:{redis}", {"mode": mode, **options}, f"network_partition.{mode}")


SITES: Final[tuple[Site, ...]] = (
    # Where a kind is named first is where each radius strikes for certain; the other places fill a drill up.
    *(_site("gateway", kind, "worker/*") for kind in _UNARY),
    *(_site("worker", kind, "llm/*") for kind in _MODEL),
    *(_site("worker", kind, "http:/v1/task") for kind in (*_UNARY, *_MODEL)),
    *(_site("gateway", kind, "memory/*") for kind in ("lost_reply", "fake_result")),
    _site("gateway", "stale_result", "session/*"),
    _site("worker", "circuit_trip", "llm/*"),
    *(_site("gateway", kind, "stream/*") for kind in _STREAMS),
    *(_site("worker", kind, "http:/v1/tokens") for kind in _STREAMS),
    _resource("tools", "loop_block", amount=0.3),
    _resource("tools", "gil", amount=2),
    _resource("tools", "cpu", amount=0.5),
    _resource("tools", "memory", amount=32 << 20),
    _resource("tools", "executor"),
    _resource("tools", "anyio"),
    _resource("tools", "fds"),
    _resource("memory", "disk", "disk:journal", amount=32 << 20),
    _resource("memory", "pool", "pool:redis"),
    *(_network(mode, **({"loss": 0.5} if mode == "loss" else {})) for mode in MODES),
    *(_site("memory", kind, "store") for kind in ("latency", "error", "lost_reply")),
    *(_site("tools", kind, "tool.run") for kind in ("latency", "error", "corrupt_result", "fake_result")),
    *(_site("tools", kind, "http:/v1/run") for kind in ("latency", "error", "http_status", "rate_limit", "corrupt_result")),
    *(_site("memory", kind, "http:/v1/*") for kind in ("latency", "error", "http_status", "corrupt_result")),
    *(_site("gateway", kind, "http:/v1/*") for kind in ("error", "http_status", "rate_limit", "corrupt_result", "stream_cut")),
    *(_site("gateway", "circuit_trip", target) for target in ("worker/*", "memory/*")),
    *(_site("worker", kind, "tokens/*") for kind in ("stream_cut", "stream_stall", "stream_truncate")),
)
"""Every place that a drill may strike."""


def uncovered() -> list[str]:
    """What no site strikes: kinds in realms of the vocabulary, resources, and ways to cut a network off."""
    there = {site.variant for site in SITES}
    wanted = [(kind, realm.value) for kind, fault in FAULTS.items() for realm in fault.realms if realm not in IN_PROCESS]
    wanted += [("resource_exhaust", f"resource_exhaust.{name}") for name in RESOURCES]
    wanted += [("network_partition", f"network_partition.{mode}") for mode in MODES]
    known = {"resource_exhaust", "network_partition"}
    wanted += [(kind, "process") for kind, fault in FAULTS.items() if fault.realms.keys() & IN_PROCESS and kind not in known]
    return [f"{kind} on {realm}" for kind, realm in wanted if (kind, realm) not in there]


def plan_of(seed: int, faults: int, *, processes: bool = True) -> tuple[Strike, ...]:
    """So many faults, in the order that the seed says.

    Every variant comes in every radius before anything comes twice, as far as ``faults`` reaches; ``processes``: whether resources and
    networks of processes are struck. Roles without a site are a mistake of this module, and so is a role that does not exist.
    """
    chance = Chance(seed)
    sites = [site for site in SITES if processes or site.realm not in IN_PROCESS]
    first: dict[tuple[str, str], Site] = {}
    for site in sites:
        first.setdefault(site.variant, site)
    leading = [(site, radius) for site in first.values() for radius in RADII]
    leading = _shuffled(chance, "drill.leading", leading)
    rest = [(site, radius) for site in sites if site is not first[site.variant] for radius in RADII]
    order = [*leading, *_shuffled(chance, "drill.rest", rest)]
    chosen = [order[number % len(order)] for number in range(faults)]
    return tuple(
        Strike(
            number,
            site,
            radius,
            _RATES[int(chance.draw("drill.rate", site.kind, number) * len(_RATES))],
            int(chance.draw("drill.seed", site.kind, number) * _SEEDS),
            _LEASES.get(site.kind, LEASE),
        )
        for number, (site, radius) in enumerate(_shuffled(chance, "drill.order", chosen), start=1)
    )


def _shuffled(chance: Chance, rule: str, things: list[tuple[Site, str]]) -> list[tuple[Site, str]]:
    order = sorted(range(len(things)), key=lambda place: (chance.draw(rule, "order", place), place))
    return [things[place] for place in order]


if {site.role for site in SITES} - set(ROLES):
    raise AssertionError(SITES)
