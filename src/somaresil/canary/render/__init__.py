"""A canary's configuration in the words of whoever moves the traffic: Flagger, Argo Rollouts, GitHub Actions, nginx, HAProxy.

    text = render("flagger", config, RenderOptions(name="gateway", verdict_url="http://verdicts.soma:8080/canary"))

Pure functions from one :class:`~somaresil.canary.config.CanaryConfig`: the same input gives the same text, to the byte, so that a change of
the file is a change of the rollout. What an engine cannot say is refused, everything at once, and never rounded.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from somaresil.canary.config import CanaryConfig
from somaresil.canary.render import argo, flagger, github, proxies
from somaresil.canary.render.options import RenderOptions
from somaresil.config import Checker, did_you_mean
from somaresil.slo.rules.text import yaml

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["KINDS", "RenderOptions", "documents", "render"]

_DOCUMENTS: Final[dict[str, Callable[[CanaryConfig, RenderOptions, Checker], list[dict[str, Any]]]]] = {
    "flagger": flagger.documents,
    "argo-web": argo.web,
    "argo-prometheus": argo.prometheus,
    "argo-job": argo.job,
    "argo-rollout": argo.rollout,
    "github-actions": github.workflow,
}
_TEXTS: Final = {"nginx": proxies.nginx_file, "haproxy": proxies.haproxy_file}
KINDS: Final = (*_DOCUMENTS, *_TEXTS)
"""What can be rendered."""


def documents(kind: str, config: CanaryConfig, target: RenderOptions) -> list[dict[str, Any]]:
    """The documents of a kind that is YAML, as mappings.

    Raises :class:`~somaresil.errors.ConfigurationError` with everything that this engine cannot say, or needs to be told.
    """
    check = _checked(kind, config, target, tuple(_DOCUMENTS))
    found = _DOCUMENTS[kind](config, target, check)
    check.finish()
    return found


def render(kind: str, config: CanaryConfig, target: RenderOptions) -> str:
    """The text of a file of this kind, one of ``KINDS``. Raises as :func:`documents` does."""
    check = _checked(kind, config, target, KINDS)
    if kind in _DOCUMENTS:
        return "---\n".join(yaml(document) for document in documents(kind, config, target))
    text = _TEXTS[kind](config, target, check)
    check.finish()
    return text


def _checked(kind: str, config: CanaryConfig, target: RenderOptions, kinds: tuple[str, ...]) -> Checker:
    check = Checker("render")
    if kind not in kinds:
        check.problem("kind", kind, " | ".join(kinds), did_you_mean(kind, kinds))
    check.type("config", config, CanaryConfig, "a CanaryConfig")
    check.type("target", target, RenderOptions, "RenderOptions")
    check.finish()
    return check
