"""What a rendered file needs to know beside the rollout: names, addresses, secrets."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal
from urllib.parse import urlsplit

from somaresil.config import Checker

if TYPE_CHECKING:
    from datetime import timedelta

__all__ = ["FLAGGER_KINDS", "RenderOptions", "percents", "seconds"]

FLAGGER_KINDS: Final = ("Deployment", "DaemonSet", "Service")
_LABEL: Final = re.compile(r"[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?")
_LONGEST_NAME: Final = 50
"""Flagger and Argo append to it: -primary, -canary, a hash."""
_KEY: Final = re.compile(r"[-._a-zA-Z0-9]{1,120}")
_IMAGE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/:@-]{0,254}")
_URL: Final = re.compile(r"https?://[A-Za-z0-9._~:/\[\]-]{1,300}")
_PATH: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_./-]{0,199}")
_LEAST_LOOK: Final = 10.0
"""Seconds: what engines look at more often says nothing new."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RenderOptions:
    """Raises :class:`~somaresil.errors.ConfigurationError` with every problem found."""

    name: str
    """Of the objects, and of the workload and its service unless they are said: a DNS label."""
    verdict_url: str | None = None
    """Where the verdict app is mounted, as the engine reaches it."""
    namespace: str = "default"
    workload: str | None = None
    """The deployment that is rolled out; None: ``name``."""
    workload_kind: Literal["Deployment", "DaemonSet", "Service"] = "Deployment"
    service: str | None = None
    """None: ``name``."""
    port: int = 80
    provider: str | None = None
    """Of the traffic, for Flagger (``istio``, ``gatewayapi:v1``, ``nginx``); None: the one that Flagger was started with."""
    interval: float | timedelta = 30.0
    """Seconds between two looks of an engine that looks more than once in a step, at least 10."""
    looks: int = 10
    """How often Argo looks for evidence after a step has baked, before it asks a human."""
    background: bool = True
    """Whether Argo also watches for a failure all the while; not with its jobs."""
    threshold: int = 5
    """Failed checks with which Flagger rolls back. A proven failure does not wait for them."""
    burn: float | None = None
    """Burn rate of the objectives that fails a check of Flagger's; None: the verdict alone."""
    secret: str | None = None
    """The secret of Kubernetes that holds the token of the verdict app."""
    secret_key: str = "token"  # noqa: S105 - the name of a key
    image: str | None = None
    """With the command ``somaresil``, for Argo's jobs."""
    slo_file: str = "slo.toml"
    """Objectives in the repository, for the pipeline."""
    traffic: str = "deploy/traffic"
    """The executable of the repository that moves the traffic, for the pipeline: called with whole percent and the version."""
    key: str | None = None
    """Whose requests stay together, in the words of the proxy; see ``NginxWeights`` and ``docs/guides/delivery.md``."""
    stable: str = "stable"
    """The upstream or backend of the control."""
    candidate: str = "candidate"
    """That of the candidate."""

    def __post_init__(self) -> None:
        """Check everything."""
        check = Checker(f"RenderOptions({self.name!r})")
        _label(check, "name", self.name, _LONGEST_NAME)
        for name in ("namespace", "workload", "service", "secret"):
            value = getattr(self, name)
            if value is not None or name == "namespace":
                _label(check, name, value, 63)
        if self.verdict_url is not None:
            _url(check, "verdict_url", self.verdict_url)
        check.one_of("workload_kind", self.workload_kind, FLAGGER_KINDS)
        check.count("port", self.port, maximum=65_535)
        if self.provider is not None and (not isinstance(self.provider, str) or not re.fullmatch(r"[a-z0-9:]{1,40}", self.provider)):
            check.problem("provider", self.provider, "a provider of Flagger such as istio, or None")
        object.__setattr__(
            self, "interval", check.seconds("interval", self.interval, minimum=_LEAST_LOOK, exclusive=False, maximum=86_400.0)
        )
        check.count("looks", self.looks, maximum=10_000)
        check.type("background", self.background, bool, "True or False")
        check.count("threshold", self.threshold, maximum=10_000)
        if self.burn is not None:
            check.number("burn", self.burn, minimum=0.0, maximum=1e6)
        if not isinstance(self.secret_key, str) or not _KEY.fullmatch(self.secret_key):
            check.problem("secret_key", self.secret_key, "a key of a secret: A-Z a-z 0-9 - . _")
        if self.image is not None and (not isinstance(self.image, str) or not _IMAGE.fullmatch(self.image)):
            check.problem("image", self.image, "a container image, or None")
        for name in ("slo_file", "traffic"):
            given = getattr(self, name)
            if not isinstance(given, str) or not _PATH.fullmatch(given) or ".." in given:
                check.problem(name, given, "a path in the repository, of A-Z a-z 0-9 _ . / -")
        check.finish()


def percents(config: Any, check: Checker, engine: str) -> list[int]:
    """The weights as whole percent; a problem for each that is none."""
    found: list[int] = []
    for number, phase in enumerate(config.phases):
        percent = phase.weight * 100.0
        whole = round(percent)
        if abs(percent - whole) > 1e-9 or not whole:  # noqa: PLR2004 - what floats lose
            hint = "leave the step without traffic out: the engine begins with one" if not percent else ""
            check.problem(f"config.steps[{number}]", f"{percent:g} %", f"whole percent from 1 to 100, all that {engine} can say", hint)
        found.append(whole)
    return found


def seconds(value: float, check: Checker, path: str, engine: str) -> str:
    """A duration in whole seconds, as ``90s``; a problem when it is none."""
    whole = round(value)
    if abs(value - whole) > 1e-6:  # noqa: PLR2004 - what floats lose
        check.problem(path, value, f"whole seconds, all that {engine} can say")
    return f"{whole}s"


def _label(check: Checker, path: str, value: Any, longest: int) -> None:
    if not isinstance(value, str) or len(value) > longest or not _LABEL.fullmatch(value):
        check.problem(path, value, f"a DNS label of at most {longest} characters: a-z 0-9 -, with a letter or digit at both ends")


def _url(check: Checker, path: str, value: Any) -> None:
    allowed = "an address such as http://verdicts.soma:8080/canary, without query and password"
    if not isinstance(value, str) or not _URL.fullmatch(value):
        check.problem(path, value, allowed)
        return
    try:
        parts = urlsplit(value)
        wrong = not parts.hostname or parts.port == 0
    except ValueError:
        wrong = True
    if wrong:
        check.problem(path, value, allowed)
