"""Workflows of GitHub Actions that scan: what is installed (``somaresil scan``), an image (Trivy), a bill of materials for each release.

No action of others but the checkout, pinned to a commit; no expression in a script; no permission that a job does not need. Trivy is an
image, and runs only by its digest: a tag can be moved to another image.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from somaresil._version import __version__
from somaresil.canary.render.github import CHECKOUT
from somaresil.slo.rules.text import yaml

if TYPE_CHECKING:
    from somaresil.config import Checker
    from somaresil.render.options import RenderOptions

__all__ = ["sbom", "security_workflow", "trivy"]

_REASONS: Final = {'contents: "write"': "a release is contents", 'security-events: "write"': "findings are shown beside the code"}
_RUNS_ON: Final = "ubuntu-24.04"
_CHECKOUT: Final[dict[str, Any]] = {"uses": CHECKOUT, "with": {"persist-credentials": False}}
_UPLOAD: Final = """\
for found in *.sarif; do
  gzip --stdout "$found" | base64 --wrap=0 > found.base64
  gh api "repos/$GITHUB_REPOSITORY/code-scanning/sarifs" -f "commit_sha=$GITHUB_SHA" -f "ref=$GITHUB_REF" -F sarif=@found.base64
done"""
_PINNED: Final = """\
case "$TRIVY_IMAGE" in
  *@sha256:*) ;;
  *) echo "the variable TRIVY_IMAGE has to end in @sha256:..., the digest of the image that was looked at" >&2; exit 2 ;;
esac"""


def security_workflow(options: RenderOptions, _: Checker) -> dict[str, str]:
    """``security.yaml``: every push and every week the environment of the service is looked up; what could not be looked up fails."""
    scan = [
        'set -- --python service/bin/python --name "$SERVICE" --fail-on high --sarif found.sarif --sbom sbom.json',
        'if [ -e "$POLICY" ]; then set -- "$@" --policy "$POLICY"; fi',
        'tool/bin/somaresil scan "$@"',
    ]
    steps = [_CHECKOUT, _installed(options), {"name": "Scan", "run": "\n".join(scan)}, _uploaded()]
    return {"security.yaml": _text(_workflow(f"security of {options.service}", _often(), "scan", steps, options, uploads=True))}


def trivy(options: RenderOptions, _: Checker) -> dict[str, str]:
    """``trivy.yaml``: repository and image, by Trivy. The variables ``TRIVY_IMAGE`` and ``SERVICE_IMAGE`` say which images."""
    mounts = '--volume "$PWD:/work:ro" --volume "$PWD/out:/out" --volume trivy:/root/.cache'
    run = f'docker run --rm --read-only --tmpfs /tmp {mounts} "$TRIVY_IMAGE"'
    common = "--exit-code 1 --severity HIGH,CRITICAL --no-progress --format sarif --output /out/found.sarif"
    steps = [
        _CHECKOUT,
        {"name": "Trivy is the one that was looked at", "run": _PINNED},
        {"name": "The repository", "run": f"mkdir -p out\n{run} fs --scanners vuln,secret,misconfig {common} /work"},
        {
            "name": "The image",
            "if": "always() && vars.SERVICE_IMAGE != ''",
            "run": f'{run} image {common.replace("found", "image")} "$SERVICE_IMAGE"',
        },
        {**_uploaded(), "working-directory": "out"},
    ]
    document = _workflow(f"trivy on {options.service}", _often(), "trivy", steps, options, uploads=True)
    document["jobs"]["trivy"]["env"] |= {"TRIVY_IMAGE": "${{ vars.TRIVY_IMAGE }}", "SERVICE_IMAGE": "${{ vars.SERVICE_IMAGE }}"}
    return {"trivy.yaml": _text(document)}


def sbom(options: RenderOptions, _: Checker) -> dict[str, str]:
    """``sbom.yaml``: a bill of materials (CycloneDX) beside each release."""
    bill = 'tool/bin/somaresil scan --sbom-only --python service/bin/python --name "$SERVICE" --sbom "$SERVICE.cdx.json"'
    upload = {
        "name": "Beside the release",
        "env": {"GH_TOKEN": "${{ github.token }}", "TAG": "${{ github.event.release.tag_name }}"},
        "run": 'gh release upload "$TAG" "$SERVICE.cdx.json" --clobber',
    }
    steps = [_CHECKOUT, _installed(options), {"name": "What is in it", "run": bill}, upload]
    document = _workflow(f"bill of materials of {options.service}", {"release": {"types": ["published"]}}, "sbom", steps, options)
    document["jobs"]["sbom"]["permissions"] = {"contents": "write"}
    return {"sbom.yaml": _text(document)}


def _text(document: dict[str, Any]) -> str:
    """As YAML, with the reason beside each permission to write."""
    text = yaml(document)
    for permission, reason in _REASONS.items():
        text = text.replace(f"{permission}\n", f"{permission} # {reason}\n")
    return text


def _often() -> dict[str, Any]:
    return {"push": {"branches": ["main"]}, "pull_request": {}, "schedule": [{"cron": "17 4 * * 1"}], "workflow_dispatch": {}}


def _workflow(
    name: str, on: dict[str, Any], job: str, steps: list[dict[str, Any]], options: RenderOptions, *, uploads: bool = False
) -> dict[str, Any]:
    permissions = {"contents": "read", "security-events": "write"} if uploads else {"contents": "read"}
    return {
        "name": name,
        "on": on,
        "permissions": {},
        "concurrency": {"group": f"{job}-${{{{ github.ref }}}}", "cancel-in-progress": True},
        "jobs": {
            job: {
                "name": name,
                "runs-on": _RUNS_ON,
                "timeout-minutes": 20,
                "permissions": permissions,
                "defaults": {"run": {"shell": "bash"}},
                "env": {"SERVICE": options.service, "INSTALL": options.install, "POLICY": "security.toml"},
                "steps": steps,
            }
        },
    }


def _installed(_: RenderOptions) -> dict[str, Any]:
    lines = [
        "python3 -m venv service",
        "# Words, for a requirement may follow an option.",
        'read -r -a what <<< "$INSTALL"',
        'service/bin/pip install --quiet "${what[@]}"',
        "python3 -m venv tool",
        f'tool/bin/pip install --quiet "somaresil[scan,yaml]=={__version__}"',
    ]
    return {"name": "Install", "run": "\n".join(lines)}


def _uploaded() -> dict[str, Any]:
    return {
        "name": "Show it beside the code",
        # Whoever sends a change from elsewhere may not write there.
        "if": "always() && github.event_name != 'pull_request'",
        "env": {"GH_TOKEN": "${{ github.token }}"},
        "run": _UPLOAD,
    }
