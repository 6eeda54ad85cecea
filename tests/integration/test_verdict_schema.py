"""The verdict app asked as its own description says, rightly and wrongly: every answer is in it, and none is a defect."""

from __future__ import annotations

from collections import Counter
from contextlib import suppress

import pytest
from hypothesis.errors import Unsatisfiable

from somaresil.model.rollout import Verdict
from somaresil.mounted.auth import BearerToken
from somaresil.verdict import verdict_app
from tests.unit.verdict.kit import KNOWN, TOKEN, Judge, Stand, opinion

EXAMPLES = 20


def _aim(case):
    """Name the canary that is there: chance alone never would."""
    if "canary" in (case.path_parameters or {}):
        case.path_parameters["canary"] = "gateway"
    if isinstance(case.body, dict) and "checksum" in case.body:
        case.body.update(name="gateway", namespace="", checksum=case.body["checksum"] or "c1")


@pytest.mark.slow
@pytest.mark.parametrize("verdict", list(Verdict))
def test_requests_made_from_the_description_find_no_defect(verdict):
    """Whatever the judge says."""
    schemathesis = pytest.importorskip("schemathesis")
    from hypothesis import HealthCheck, Phase, given, seed, settings
    from schemathesis import GenerationMode
    from schemathesis.checks import not_a_server_error
    from schemathesis.specs.openapi.checks import content_type_conformance, response_schema_conformance, status_code_conformance

    stand = Stand(Judge(opinion(verdict)))
    app = verdict_app({"gateway": stand.judge}, resilience=stand.resilience, auth=BearerToken({"engine": TOKEN}))
    schema = schemathesis.openapi.from_asgi("/openapi.json", app, headers=KNOWN)
    checks = [not_a_server_error, content_type_conformance, response_schema_conformance, status_code_conformance]
    statuses: Counter[int] = Counter()
    operations = [result.ok() for result in schema.get_all_operations()]

    def ask(operation, mode):
        @seed(7)
        @settings(max_examples=EXAMPLES, deadline=None, database=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
        @given(case=operation.as_strategy(generation_mode=mode))
        def hold(case):
            if mode is GenerationMode.POSITIVE:
                _aim(case)
            answer = case.call(headers=KNOWN)
            case.validate_response(answer, checks=checks, headers=KNOWN)
            statuses[answer.status_code] += 1

        hold()

    for operation in operations:
        for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):
            with suppress(Unsatisfiable):  # there is nothing that a request without parameters could say wrongly
                ask(operation, mode)
    assert len(operations) == 12
    assert {200, 400, 409, 422} <= set(statuses)
    assert max(statuses) < 500
    assert stand.defects == []
