"""What of the engines' objects is used, as strict schemas: a field that is not named here is a mistake.

The names and kinds of fields are facts of Flagger's CRDs (v1beta1) and of Argo Rollouts' (v1alpha1).
"""

from __future__ import annotations

import jsonschema

TEXT = {"type": "string", "minLength": 1}
LABEL = {"type": "string", "pattern": "^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$"}
DURATION = {"type": "string", "pattern": "^[0-9]+(m|s)$"}
PERCENT = {"type": "integer", "minimum": 1, "maximum": 100}
COUNT = {"type": "integer", "minimum": 0}
HTTP = {"type": "string", "pattern": "^https?://[^ ]+$"}
FLAG = {"type": "boolean"}


def one(required: str = "", **properties: object) -> dict:
    """An object of exactly these properties."""
    return {"type": "object", "additionalProperties": False, "required": required.split(), "properties": properties}


def many(items: object, least: int = 1) -> dict:
    return {"type": "array", "minItems": least, "items": items}


def thing(version: str, kind: str, spec: dict) -> dict:
    metadata = one("name namespace", name=LABEL, namespace=LABEL)
    return one("apiVersion kind metadata spec", apiVersion={"const": version}, kind={"const": kind}, metadata=metadata, spec=spec)


HOOKS = (
    "confirm-rollout",
    "pre-rollout",
    "rollout",
    "confirm-traffic-increase",
    "confirm-promotion",
    "post-rollout",
    "rollback",
    "event",
)
WEBHOOK = one("name url type", name=TEXT, url=HTTP, type={"enum": HOOKS}, timeout=DURATION, retries=COUNT, metadata={"type": "object"})
RANGE = one(min={"type": "number"}, max={"type": "number"})
METRIC = one("name templateRef thresholdRange", name=TEXT, templateRef=one("name", name=LABEL), thresholdRange=RANGE, interval=DURATION)
ANALYSIS = one(
    "interval threshold stepWeights",
    interval=DURATION,
    threshold={"type": "integer", "minimum": 1},
    stepWeights=many(PERCENT),
    metrics=many(METRIC),
    webhooks=many(WEBHOOK),
)
TARGET = one(
    "apiVersion kind name", apiVersion={"enum": ["apps/v1", "v1"]}, kind={"enum": ["Deployment", "DaemonSet", "Service"]}, name=LABEL
)
CANARY = one("targetRef service analysis", provider=TEXT, targetRef=TARGET, service=one("port", name=LABEL, port=COUNT), analysis=ANALYSIS)
PROVIDER = one("type address", type={"const": "prometheus"}, address=HTTP, secretRef=one("name", name=LABEL))

HEADERS = many(one("key value", key=TEXT, value=TEXT))
WEB = one("url", url=HTTP, method={"enum": ["GET"]}, timeoutSeconds=COUNT, jsonPath=TEXT, headers=HEADERS)
PROMETHEUS = one("address query", address=HTTP, query=TEXT, headers=HEADERS)
SECRET = one("secretKeyRef", secretKeyRef=one("name key", name=LABEL, key=TEXT))
CONTAINER = one(
    "name image command",
    name=LABEL,
    image=TEXT,
    command=many(TEXT),
    env=many(one("name valueFrom", name=TEXT, valueFrom=SECRET)),
    securityContext=one(
        allowPrivilegeEscalation=FLAG, readOnlyRootFilesystem=FLAG, runAsNonRoot=FLAG, capabilities=one("drop", drop=many(TEXT))
    ),
)
POD = one("restartPolicy containers", restartPolicy={"const": "Never"}, automountServiceAccountToken=FLAG, containers=many(CONTAINER))
JOB = one("spec", spec=one("template", backoffLimit=COUNT, activeDeadlineSeconds=COUNT, template=one("spec", spec=POD)))
MEASURED = one(
    "name provider",
    name=TEXT,
    interval=DURATION,
    count=COUNT,
    failureLimit=COUNT,
    inconclusiveLimit=COUNT,
    consecutiveErrorLimit=COUNT,
    consecutiveSuccessLimit=COUNT,
    successCondition=TEXT,
    failureCondition=TEXT,
    provider={**one(web=WEB, prometheus=PROMETHEUS, job=JOB), "minProperties": 1, "maxProperties": 1},
)
HASHED = one("podTemplateHashValue", podTemplateHashValue={"enum": ["Latest", "Stable"]})
USED = one(
    "templates",
    templates=many(one("templateName", templateName=LABEL)),
    args=many(one("name valueFrom", name=TEXT, valueFrom=HASHED)),
)
BACKGROUND = {**USED, "properties": {**USED["properties"], "startingStep": COUNT}}
STEP = {
    **one(setWeight=PERCENT, pause=one("duration", duration=DURATION), analysis=USED),
    "minProperties": 1,
    "maxProperties": 1,
}
STRATEGY = one("steps", canaryService=LABEL, stableService=LABEL, analysis=BACKGROUND, steps=many(STEP))
WORKLOAD = one("apiVersion kind name", apiVersion={"const": "apps/v1"}, kind={"const": "Deployment"}, name=LABEL)

SCHEMAS = {
    "Canary": thing("flagger.app/v1beta1", "Canary", CANARY),
    "MetricTemplate": thing("flagger.app/v1beta1", "MetricTemplate", one("provider query", provider=PROVIDER, query=TEXT)),
    "AnalysisTemplate": thing(
        "argoproj.io/v1alpha1",
        "AnalysisTemplate",
        one("metrics", args=many(one("name", name=TEXT, valueFrom=SECRET)), metrics=many(MEASURED)),
    ),
    "Rollout": thing(
        "argoproj.io/v1alpha1", "Rollout", one("workloadRef strategy", workloadRef=WORKLOAD, strategy=one("canary", canary=STRATEGY))
    ),
}


def wrong(document: dict) -> list[str]:
    """What the engine would not take of it."""
    schema = SCHEMAS.get(document.get("kind", ""))
    if schema is None:
        return [f"no such kind: {document.get('kind')}"]
    return [f"{'/'.join(map(str, each.path))}: {each.message}" for each in jsonschema.Draft202012Validator(schema).iter_errors(document)]
