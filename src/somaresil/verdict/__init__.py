"""Verdicts on canaries by HTTP, in the words of the engines that move the traffic: Flagger, Argo Rollouts, Kayenta, clients of Prometheus.

Pure ASGI, no framework. There is none without an authenticator::

    app.mount("/canary", verdict_app({"gateway": judge}, resilience=resilience, auth=BearerToken(os.environ["CANARY_TOKEN"])))

It moves nothing itself, and whatever goes wrong in it is never a reason to promote, nor to roll back.
"""

from somaresil.verdict.app import VerdictApp, verdict_app
from somaresil.verdict.pod import EvidenceApp, evidence_app

__all__ = ["EvidenceApp", "VerdictApp", "evidence_app", "verdict_app"]
