"""A workflow of GitHub Actions: a share for the candidate, time to bake, the verdict and the gate, then more of it, or all of it undone.

The repository moves the traffic: ``traffic`` is an executable of it, called with whole percent and the version. A pipeline does not wait
for ever: a step without a pass after ``looks`` looks, or after its ``longest``, is undone.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

from somaresil._version import __version__
from somaresil.canary.render.options import percents, seconds

if TYPE_CHECKING:
    from somaresil.canary.config import CanaryConfig
    from somaresil.canary.render.options import RenderOptions
    from somaresil.config import Checker

__all__ = ["CHECKOUT", "workflow"]

CHECKOUT: Final = "actions/checkout@11bd71901bbe5b1630ceea73d27597364c9af683"
"""Of version 4.2.2. A tag could be moved to another commit; this cannot."""
_LONGEST: Final = 330
"""Minutes: a job of GitHub's own machines has 360."""
_TOKEN: Final = "SOMARESIL_TOKEN"  # noqa: S105 - the name of a variable


def workflow(config: CanaryConfig, target: RenderOptions, check: Checker) -> list[dict[str, Any]]:
    """One workflow, started by hand or by another one, with the version as its input."""
    weights = percents(config, check, "the pipeline")
    if target.verdict_url is None:
        check.problem("target.verdict_url", None, "where the verdict app is mounted")
    look = float(target.interval) if isinstance(target.interval, int | float) else target.interval.total_seconds()
    every = seconds(look, check, "target.interval", "the pipeline").removesuffix("s")
    steps: list[dict[str, Any]] = []
    total = 0.0
    for number, (phase, weight) in enumerate(zip(config.phases, weights, strict=True)):
        bake = seconds(phase.bake, check, f"config.steps[{number}].bake", "the pipeline").removesuffix("s")
        wait = target.looks * look
        if phase.longest != math.inf:
            wait = max(look, phase.longest - phase.bake)
            if phase.overdue == "promote":
                hint = "nothing is promoted without a pass here"
                check.problem(f"config.steps[{number}].overdue", phase.overdue, "hold or rollback, which both undo it", hint)
        steps += _phase(weight, bake, every, math.ceil(wait))
        total += phase.bake + wait
    minutes = math.ceil(total / 60.0) + 20
    if minutes > _LONGEST:
        hint = "bake less, or let Flagger or Argo do it"
        check.problem("config.steps", f"{minutes} minutes in all", f"{_LONGEST} minutes at most", hint)
    called = {"version": {"description": "what is rolled out", "required": True, "type": "string"}}
    document: dict[str, Any] = {
        "name": f"canary {target.name}",
        "on": {
            "workflow_dispatch": {"inputs": called},
            "workflow_call": {"inputs": called, "secrets": {_TOKEN: {"required": False}}},
        },
        "permissions": {},
        "concurrency": {"group": f"canary-{target.name}", "cancel-in-progress": False},
        "jobs": {
            "canary": {
                "name": f"{target.name}: {', '.join(f'{weight} %' for weight in weights)}",
                "runs-on": "ubuntu-24.04",
                "timeout-minutes": minutes,
                "permissions": {"contents": "read"},
                "defaults": {"run": {"shell": "bash"}},
                "env": {
                    "VERSION": "${{ inputs.version }}",
                    "CANARY": config.name,
                    "TRAFFIC": f"./{target.traffic}",
                    "SLO_FILE": target.slo_file,
                    "VERDICT_URL": (target.verdict_url or "").rstrip("/"),
                },
                "steps": [
                    {"uses": CHECKOUT, "with": {"persist-credentials": False}},
                    {"name": "Install", "run": _install(target.slo_file)},
                    *steps,
                    {"name": "Undo", "if": "failure() || cancelled()", "run": '"$TRAFFIC" 0 "$VERSION"'},
                ],
            }
        },
    }
    return [document]


def _phase(weight: int, bake: str, every: str, wait: int) -> list[dict[str, Any]]:
    token = {_TOKEN: f"${{{{ secrets.{_TOKEN} }}}}"}
    ask = f'somaresil canary verdict "$CANARY" --url "$VERDICT_URL" --checksum="$VERSION" --token-env {_TOKEN}'
    monitor = "\n".join(
        [
            f"end=$((SECONDS + {bake}))",
            'while [ "$SECONDS" -lt "$end" ]; do',
            "  code=0",
            f"  {ask} || code=$?",
            "  # 1 is a proven failure; what is not known yet may still bake",
            '  if [ "$code" -eq 1 ]; then exit 1; fi',
            f"  sleep {every}",
            "done",
        ]
    )
    gate = {"PROMETHEUS_URL": "${{ vars.PROMETHEUS_URL }}"}
    return [
        {"name": f"{weight} %", "run": f'"$TRAFFIC" {weight} "$VERSION"'},
        *([{"name": f"{weight} %, bake", "env": token, "run": monitor}] if bake != "0" else []),
        {"name": f"{weight} %, verdict", "env": token, "run": f"{ask} --wait {wait} --interval {every}"},
        {
            "name": f"{weight} %, objectives",
            "env": gate,
            "run": 'somaresil gate --slo "$SLO_FILE" --prometheus "$PROMETHEUS_URL" --format github',
        },
    ]


def _install(slo_file: str) -> str:
    extra = "" if slo_file.endswith(".toml") else "[yaml]"
    return "\n".join(
        [
            'python3 -m venv "$RUNNER_TEMP/somaresil"',
            f'"$RUNNER_TEMP/somaresil/bin/pip" install "somaresil{extra}=={__version__}"',
            'echo "$RUNNER_TEMP/somaresil/bin" >> "$GITHUB_PATH"',
        ]
    )
