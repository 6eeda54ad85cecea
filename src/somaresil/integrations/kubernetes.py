"""Flagger and Argo Rollouts as routers: they ramp by themselves, and here they are begun, stopped, sped up and asked.

    router = ArgoRollout("gateway", namespace="soma")

Needs ``pip install "somaresil[kubernetes]"``. The account needs the verbs ``get`` and ``patch`` on the object (Argo: on its ``status``
too), and on the deployment when ``image`` is said. No method waits longer than ``patience`` for an answer of the API server.
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any, Final

from somaresil.canary.router import RouterError, RouterStatus
from somaresil.config import Checker, to_seconds

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import timedelta

__all__ = ["ArgoRollout", "FlaggerCanary"]

_LABEL: Final = re.compile(r"[a-z0-9](?:[-a-z0-9.]{0,251}[a-z0-9])?")
_IMAGE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/:@-]{0,254}")
_VERSION: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_LONGEST: Final = 300
_MERGE, _JSON = "merge", "json"


class FlaggerCanary:
    """A ``Canary`` of Flagger.

    ===================  ==================================================================================================
    ``start``            with ``image``: gives the deployment the image of the version; without, somebody else does. Takes back
                         what ``suspend`` and ``promote`` have left behind
    ``suspend``          ``spec.suspend``: Flagger looks at nothing, the weights stay
    ``promote``          ``spec.skipAnalysis``: Flagger promotes without asking anybody. It stays set until ``start``
    ``abort``            Flagger has no order for that: it rolls back when the hook ``rollback`` says so, at its next look. So this
                         raises until it has, and when there is no such hook
    ``set_weight``       is refused: Flagger moves the weights
    ===================  ==================================================================================================

    ``client`` is one of lightkube's; by default one by the kubeconfig or the service account of the pod is made at first use. ``image``
    is an image with ``{version}`` in it, of the container ``container`` (by default ``name``). Raises
    :class:`~somaresil.errors.ConfigurationError` with every problem found. Methods raise :class:`~somaresil.canary.router.RouterError`.
    """

    steps: bool = False

    def __init__(
        self,
        name: str,
        *,
        namespace: str = "default",
        image: str | None = None,
        container: str | None = None,
        patience: float | timedelta = 10.0,
        client: Any = None,
    ) -> None:
        _check(Checker("FlaggerCanary"), name, namespace, image, container, patience)
        self._cluster = _Cluster(client, namespace, to_seconds(patience))
        self._canary = _Object("Canary", "flagger.app", "v1beta1", "canaries", name)
        self._image, self._container = image, container or name

    def start(self, version: str) -> None:
        """Let Flagger see this version."""
        image = _image_of(self._image, version)
        spec = _at(self._cluster.get(self._canary), "spec")
        # First the orders of before: a promotion without analysis must not meet the new version.
        self._cluster.patch(self._canary, {"spec": {"suspend": False, "skipAnalysis": False}})
        if image is not None:
            target = _at(spec, "targetRef")
            if target.get("kind") not in {"Deployment", "DaemonSet"}:
                raise RouterError(f"{self._canary}: its target is a {target.get('kind')}, and has no image: deploy {version} yourself")
            plural = f"{target['kind'].lower()}s"
            self._cluster.set_image(_Object(target["kind"], "apps", "v1", plural, str(target.get("name"))), self._container, image)

    def set_weight(self, share: float) -> None:
        """Is refused."""
        raise RouterError(f"{self._canary}: Flagger moves the weights itself, {share:.2%} cannot be set: say stepWeights there")

    def suspend(self) -> None:
        """Stay with this share."""
        self._cluster.patch(self._canary, {"spec": {"suspend": True}})

    def resume(self) -> None:
        """Go on."""
        self._cluster.patch(self._canary, {"spec": {"suspend": False}})

    def promote(self) -> None:
        """Have Flagger promote without its analysis."""
        self._cluster.patch(self._canary, {"spec": {"suspend": False, "skipAnalysis": True}})

    def abort(self, reason: str) -> None:
        """See that Flagger rolls back. Raises until it has: call it again."""
        found = self._cluster.get(self._canary)
        phase = self._status_of(found).phase
        if phase in {"Failed", "Initialized", "Initializing"}:
            return
        if phase in {"Succeeded", "Promoting", "Finalising"}:
            raise RouterError(f"{self._canary}: it is {phase}, so the new version is the primary one: deploy the former version")
        hooks: Any = _at(found, "spec", "analysis").get("webhooks") or []
        if not any(isinstance(hook, dict) and hook.get("type") == "rollback" for hook in hooks):
            raise RouterError(f"{self._canary}: Flagger rolls back on its own or by a webhook of type rollback, and there is none: add it")
        if _at(found, "spec").get("suspend") or _at(found, "spec").get("skipAnalysis"):
            self._cluster.patch(self._canary, {"spec": {"suspend": False, "skipAnalysis": False}})
        raise RouterError(f"{self._canary}: it is {phase} still; its webhook rollback is asked at the next look ({_brief(reason)})")

    def status(self) -> RouterStatus:
        """What Flagger says. Of one that has succeeded the candidate is the primary version, so it has everything."""
        return self._status_of(self._cluster.get(self._canary))

    def _status_of(self, found: dict[str, Any]) -> RouterStatus:
        status = _at(found, "status")
        phase = _text(status.get("phase")) or "Unknown"
        conditions: Any = status.get("conditions")
        told = [_text(each.get("message")) for each in conditions if isinstance(each, dict)] if isinstance(conditions, list) else []
        failed = status.get("failedChecks")
        message = " ".join([*(f"{failed} failed checks." for _ in [0] if failed), *filter(None, told)])
        weight = 1.0 if phase == "Succeeded" else _share(status.get("canaryWeight"))
        return RouterStatus(phase, weight, _text(status.get("lastAppliedSpec")), _at(found, "spec").get("suspend") is True, _brief(message))


class ArgoRollout:
    """A ``Rollout`` of Argo.

    ===================  ==================================================================================================
    ``start``            with ``image``: gives its workload the image of the version; without, somebody else does. One that was
                         aborted is tried again
    ``suspend``          ``spec.paused``
    ``resume``           takes that back, and goes on after an inconclusive analysis; a pause that is a step goes on by itself
    ``promote``          ``status.promoteFull``: what is left of the steps and the analysis is skipped
    ``abort``            ``status.abort``: all traffic to the stable version
    ``set_weight``       is refused: the steps move the weights
    ===================  ==================================================================================================

    The arguments are those of :class:`FlaggerCanary`.
    """

    steps: bool = False

    def __init__(
        self,
        name: str,
        *,
        namespace: str = "default",
        image: str | None = None,
        container: str | None = None,
        patience: float | timedelta = 10.0,
        client: Any = None,
    ) -> None:
        _check(Checker("ArgoRollout"), name, namespace, image, container, patience)
        self._cluster = _Cluster(client, namespace, to_seconds(patience))
        self._rollout = _Object("Rollout", "argoproj.io", "v1alpha1", "rollouts", name)
        self._image, self._container = image, container or name

    def start(self, version: str) -> None:
        """Let Argo see this version."""
        image = _image_of(self._image, version)
        found = self._cluster.get(self._rollout)
        spec = _at(found, "spec")
        if image is not None:
            workload = _at(spec, "workloadRef")
            place = self._rollout
            if workload:
                if workload.get("kind") != "Deployment":
                    raise RouterError(f"{self._rollout}: its workload is a {workload.get('kind')}: deploy {version} yourself")
                place = _Object("Deployment", "apps", "v1", "deployments", str(workload.get("name")))
            self._cluster.set_image(place, self._container, image)
        if _at(found, "status").get("abort"):
            self._cluster.patch(self._rollout, {"status": {"abort": False}}, status=True)
        if spec.get("paused"):
            self.resume()

    def set_weight(self, share: float) -> None:
        """Is refused."""
        raise RouterError(f"{self._rollout}: its steps move the weights, {share:.2%} cannot be set: say setWeight there")

    def suspend(self) -> None:
        """Stay with this share."""
        self._cluster.patch(self._rollout, {"spec": {"paused": True}})

    def resume(self) -> None:
        """Go on."""
        found = self._cluster.patch(self._rollout, {"spec": {"paused": False}})
        if "InconclusiveAnalysisRun" in _pauses(found):
            self._cluster.patch(self._rollout, {"status": {"pauseConditions": None}}, status=True)

    def promote(self) -> None:
        """Skip what is left."""
        status = _at(self._cluster.get(self._rollout), "status")
        if status.get("abort"):
            raise RouterError(f"{self._rollout}: it was aborted: start() it again")
        self._cluster.patch(self._rollout, {"spec": {"paused": False}})
        if not _complete(status):
            self._cluster.patch(self._rollout, {"status": {"promoteFull": True}}, status=True)

    def abort(self, reason: str) -> None:
        """All traffic to the stable version, at once."""
        status = _at(self._cluster.get(self._rollout), "status")
        if _complete(status):
            raise RouterError(f"{self._rollout}: it is complete, so there is no other version ({_brief(reason)}): deploy the former one")
        if not status.get("abort"):
            self._cluster.patch(self._rollout, {"status": {"abort": True}}, status=True)

    def status(self) -> RouterStatus:
        """What Argo says; the weight None when it does not say, or has not seen the last change of the object yet."""
        found = self._cluster.get(self._rollout)
        status, generation = _at(found, "status"), _at(found, "metadata").get("generation")
        if generation is not None and str(generation) != str(status.get("observedGeneration")):
            return RouterStatus("Progressing", None, message="Argo has not seen the last change yet")
        paused = _at(found, "spec").get("paused") is True or bool(_pauses(found))
        message = ", ".join(filter(None, [_text(status.get("message")), *_pauses(found)]))
        phase = _text(status.get("phase")) or "Unknown"
        return RouterStatus(phase, _argo_weight(found, status), _text(status.get("currentPodHash")), paused, _brief(message))


class _Object:
    """Where something is in the API."""

    def __init__(self, kind: str, group: str, version: str, plural: str, name: str) -> None:
        self.kind, self.group, self.version, self.plural, self.name = kind, group, version, plural, name

    def __str__(self) -> str:
        """As kubectl writes it."""
        return f"{self.plural}.{self.group}/{self.name}"


class _Cluster:
    """The few things that are done with an API server. lightkube is imported when the first of them is."""

    def __init__(self, client: Any, namespace: str, patience: float) -> None:
        self._client = client
        self._namespace, self._patience = namespace, patience

    def get(self, place: _Object) -> dict[str, Any]:
        """The object as it is."""
        return self._do("get", place, lambda client, resource: client.get(resource, place.name, namespace=self._namespace))

    def patch(self, place: _Object, body: Any, *, status: bool = False, kind: str = _MERGE) -> dict[str, Any]:
        """Change the object, or its status, and give it as it is then."""

        def change(client: Any, resource: Any) -> Any:
            from lightkube.types import PatchType

            called = resource.Status if status else resource
            how = PatchType.MERGE if kind == _MERGE else PatchType.JSON
            return client.patch(called, place.name, body, namespace=self._namespace, patch_type=how)

        return self._do("patch", place, change)

    def set_image(self, place: _Object, container: str, image: str) -> None:
        """Give a container another image, and no other container, whoever changes the object meanwhile."""
        containers: Any = _at(self.get(place), "spec", "template", "spec").get("containers")
        names = [each.get("name") for each in containers if isinstance(each, dict)] if isinstance(containers, list) else []
        if container not in names:
            raise RouterError(f"{place} has no container {container!r}, but {', '.join(map(str, names)) or 'none'}: say container=")
        path = f"/spec/template/spec/containers/{names.index(container)}"
        test = {"op": "test", "path": f"{path}/name", "value": container}
        self.patch(place, [test, {"op": "replace", "path": f"{path}/image", "value": image}], kind=_JSON)

    def _do(self, verb: str, place: _Object, order: Callable[[Any, Any], Any]) -> dict[str, Any]:
        try:
            from lightkube import Client
            from lightkube.generic_resource import create_namespaced_resource
        except ImportError as absent:
            raise RouterError(f'lightkube is needed to speak to Kubernetes: pip install "somaresil[kubernetes]" ({absent})') from absent
        resource = create_namespaced_resource(place.group, place.version, place.kind, place.plural)
        try:
            if self._client is None:
                timeout: Any = self._patience
                self._client = Client(timeout=timeout)
            found = order(self._client, resource)
            return _plain(found)
        except Exception as failed:
            # Refusals have an answer, whichever HTTP library lightkube uses and whatever form the answer has.
            if hasattr(failed, "response"):
                raise RouterError(self._why(verb, place, failed)) from failed
            raise RouterError(
                f"{place}: the API server gave no answer to {verb}: {_brief(f'{type(failed).__name__}: {failed}')}"
            ) from failed

    def _why(self, verb: str, place: _Object, refused: Any) -> str:
        code = getattr(refused.response, "status_code", 0)
        told = _brief(str(getattr(getattr(refused, "status", None), "message", None) or refused))
        hints = {
            401: "who is this? its credentials are not taken",
            403: f"its role needs the verb {verb} on {place.plural}.{place.group} and {place.plural}/status in {self._namespace}",
            404: f"not there in {self._namespace}; is the engine installed, is the name right?",
            409: "somebody else changed it at the same moment: try again",
        }
        return f"{place}: {verb} was refused, {code}: {hints.get(code, 'see what the API server says')} ({told})"


def _plain(found: Any) -> dict[str, Any]:
    plain = found.to_dict() if hasattr(found, "to_dict") else found
    if not isinstance(plain, dict):
        raise TypeError(f"expected an object, not {type(plain).__name__}")
    return plain


def _at(found: Any, *path: str) -> dict[str, Any]:
    """The mapping there, or an empty one: what others write need not be complete."""
    for name in path:
        found = found.get(name) if isinstance(found, dict) else None
    return found if isinstance(found, dict) else {}


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _share(percent: Any) -> float | None:
    if isinstance(percent, bool) or not isinstance(percent, int | float) or not math.isfinite(percent):
        return None
    return percent / 100.0 if 0.0 <= percent <= 100.0 else None  # noqa: PLR2004 - percent


def _pauses(found: dict[str, Any]) -> list[str]:
    conditions: Any = _at(found, "status").get("pauseConditions")
    return [_text(each.get("reason")) for each in conditions if isinstance(each, dict)] if isinstance(conditions, list) else []


def _complete(status: dict[str, Any]) -> bool:
    """Whether the version that was rolled out is the stable one."""
    return bool(status.get("stableRS")) and status.get("stableRS") == status.get("currentPodHash")


def _argo_weight(found: dict[str, Any], status: dict[str, Any]) -> float | None:
    if _complete(status):
        return 1.0
    weights = _at(status, "canary", "weights", "canary")
    if "weight" in weights:
        return _share(weights["weight"])
    if status.get("abort"):
        return 0.0
    # Without a traffic router Argo counts pods and tells no weight; it is that of the last step that sets one.
    steps, index = _at(found, "spec", "strategy", "canary").get("steps"), status.get("currentStepIndex")
    if not isinstance(steps, list) or not isinstance(index, int):
        return None
    set_so_far = [step["setWeight"] for step in steps[: index + 1] if isinstance(step, dict) and "setWeight" in step]
    return _share(set_so_far[-1]) if set_so_far else 0.0


def _image_of(image: str | None, version: str) -> str | None:
    if not isinstance(version, str) or (image is not None and not _VERSION.fullmatch(version)):
        raise RouterError(f"{_brief(repr(version))} is no version that an image can have: expected A-Z a-z 0-9 _ . -")
    return None if image is None else image.replace("{version}", version)


def _brief(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _LONGEST else line[: _LONGEST - 1] + "\N{HORIZONTAL ELLIPSIS}"


def _check(check: Checker, name: Any, namespace: Any, image: Any, container: Any, patience: Any) -> None:
    for path, value in (("name", name), ("namespace", namespace), ("container", container)):
        if (value is not None or path != "container") and (not isinstance(value, str) or not _LABEL.fullmatch(value)):
            check.problem(path, value, "a DNS name: a-z 0-9 - ., with a letter or digit at both ends")
    if image is not None and (
        not isinstance(image, str) or image.count("{version}") != 1 or not _IMAGE.fullmatch(image.replace("{version}", "v"))
    ):
        check.problem("image", image, "an image with {version} in it, such as registry/gateway:{version}, or None")
    check.seconds("patience", patience, minimum=0.1, exclusive=False, maximum=300.0)
    check.finish()
