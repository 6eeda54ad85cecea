"""nginx as the router of the demo: its configuration, in the folder of the run, and the commands that NginxWeights needs."""

from __future__ import annotations

import os
import shutil
import socket
from contextlib import ExitStack
from typing import TYPE_CHECKING, Final

from somaresil.demo import DemoError
from somaresil.demo.processes import HOST
from somaresil.integrations.nginx import NginxWeights

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["CANDIDATE", "CONTROL", "commands", "find", "prepare", "run_command", "weights_in"]

CONTROL: Final = "control"
CANDIDATE: Final = "candidate"
"""Names of the upstreams, and what stands in ``x-served-by``."""

_CONFIGURATION: Final = """{user}
daemon off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/nginx-error.log warn;
events {{ worker_connections 1024; }}
http {{
    access_log off;
    {temporary}
    include {weights};
    upstream control {{ server {control}; }}
    upstream candidate {{ server {candidate}; }}
    server {{
        listen {host}:{port};
        location = /health {{ return 200 "ok"; }}
        location / {{
            proxy_pass http://$somaresil_upstream;
            proxy_http_version 1.1;
            proxy_buffering off;
            proxy_next_upstream off;
            add_header x-served-by $somaresil_upstream always;
        }}
    }}
    server {{
        listen {host}:{probe};
        location = /order {{ return 200 $somaresil_order; }}
    }}
}}
"""


def find() -> str:
    """The program. Raises :class:`DemoError` when it is not installed."""
    found = shutil.which("nginx") or shutil.which("/usr/sbin/nginx")
    if found is None:
        raise DemoError("--router nginx needs nginx, which is not installed: `apt-get install nginx-light`, or leave --router out")
    return found


def prepare(binary: str, folder: Path, control: str, candidate: str) -> tuple[str, str]:
    """Write the configuration, with nothing for the candidate; the addresses of nginx and of its probe."""
    with ExitStack() as taken:
        # Bound together, so that they differ; nginx binds them itself a moment later.
        port, probe = (_free(taken) for _ in range(2))
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    text = _CONFIGURATION.format(
        user="user root;" if os.geteuid() == 0 else "",
        folder=folder,
        temporary=" ".join(f"{kind}_temp_path {folder}/nginx-{kind};" for kind in kinds),
        weights=weights_in(folder),
        control=control.removeprefix("http://"),
        candidate=candidate.removeprefix("http://"),
        host=HOST,
        port=port,
        probe=probe,
    )
    (folder / "nginx.conf").write_text(text, encoding="utf-8")
    test, _ = commands(binary, folder)
    # There is nobody yet who could reload.
    NginxWeights(weights_in(folder), stable=CONTROL, candidate=CANDIDATE, test=test, reload=["true"]).start("none yet")
    return f"http://{HOST}:{port}", f"http://{HOST}:{probe}/order"


def weights_in(folder: Path) -> Path:
    """The file of weights."""
    return folder / "weights.conf"


def run_command(binary: str, folder: Path) -> list[str]:
    """Runs it in the foreground."""
    return [binary, "-c", f"{folder}/nginx.conf", "-e", f"{folder}/nginx-error.log"]


def commands(binary: str, folder: Path) -> tuple[list[str], list[str]]:
    """To test its configuration, and to reload it."""
    run = run_command(binary, folder)
    return [*run, "-t", "-q"], [*run, "-s", "reload"]


def _free(taken: ExitStack) -> int:
    one = taken.enter_context(socket.socket())
    one.bind((HOST, 0))
    port: int = one.getsockname()[1]
    return port
