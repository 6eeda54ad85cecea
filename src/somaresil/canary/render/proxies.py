"""What stands in the configuration of nginx and of HAProxy, so that a file of weights moves the traffic."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from somaresil.canary.config import CanaryConfig
    from somaresil.canary.render.options import RenderOptions
    from somaresil.config import Checker

__all__ = ["UNITS", "check_haproxy", "check_nginx", "haproxy_file", "haproxy_rules", "nginx_file", "split_clients"]

UNITS: Final = 10_000
"""A share is told in these many parts: a hundredth of a percent is the least that both nginx and our rule for HAProxy can say."""
_UPSTREAM: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:-]{0,119}")
_VARIABLE: Final = re.compile(r"[a-z][a-z0-9_]{0,59}")
_VARIABLES: Final = re.compile(r"(?:\$[a-z][a-z0-9_]*)+")
_SALT: Final = re.compile(r"[A-Za-z0-9_.-]{0,60}")
_BACKEND: Final = re.compile(r"[A-Za-z0-9_.-]{1,120}")
_MAP: Final = re.compile(r"[A-Za-z0-9_./#-]{1,200}")
_SAMPLE: Final = re.compile(r"[a-z][a-z0-9_.]*(?:\([A-Za-z0-9_.,-]*\))?")
_EVERY_REQUEST: Final = "$request_id"


def nginx_file(config: CanaryConfig, target: RenderOptions, check: Checker) -> str:
    """A server block that routes by the file of ``NginxWeights``, with the places where it has to be told what it serves."""
    _shares(config, check)
    check_nginx(check.child("target"), target.stable, target.candidate, target.key, "", "somaresil")
    path = f"/etc/nginx/canary/{target.name}.conf"
    names = f'stable="{target.stable}", candidate="{target.candidate}"' + ("" if target.key is None else f', key="{target.key}"')
    return (
        f"# {config.name}: where http begins. The included file is written by NginxWeights, with the same names:\n"
        f'#   NginxWeights("{path}", {names}, probe="http://127.0.0.1:8081/canary")\n'
        f"include {path};\n"
        "server {\n"
        f"    listen {target.port};\n"
        "    location / {\n"
        "        proxy_pass http://$somaresil_upstream;\n"
        "    }\n"
        "}\n"
        "server {\n"
        "    listen 127.0.0.1:8081;\n"
        "    location = /canary {\n"
        "        return 200 $somaresil_order;\n"
        "    }\n"
        "}\n"
    )


def haproxy_file(config: CanaryConfig, target: RenderOptions, check: Checker) -> str:
    """The lines of a frontend that route by the map of ``HAProxyWeights``."""
    _shares(config, check)
    path = f"/etc/haproxy/canary/{target.name}.map"
    check_haproxy(check.child("target"), target.name, path, target.stable, target.candidate, target.key)
    return (
        f"# {config.name}: into the frontend. The map is written by HAProxyWeights, with the same names:\n"
        f'#   HAProxyWeights("{path}", name="{target.name}", socket="/run/haproxy/admin.sock")\n'
        + haproxy_rules(path, target.name, target.stable, target.candidate, target.key)
    )


def split_clients(units: int, stable: str, candidate: str, key: str | None, salt: str, variable: str) -> str:
    """The block of nginx that gives the candidate ``units`` of 10,000 requests. There is no 0 %: then there is only the rest."""
    rows = {0: [("*", stable)], UNITS: [("*", candidate)]}.get(units, [(f"{units / 100:.2f}%", candidate), ("*", stable)])
    # A variable next to letters of the salt would be another variable.
    lines = [f'split_clients "{key or _EVERY_REQUEST}-{salt}" ${variable}_upstream {{']
    return "\n".join([*lines, *(f"    {share} {name};" for share, name in rows), "}"]) + "\n"


def haproxy_rules(map_file: str, name: str, stable: str, candidate: str, key: str | None) -> str:
    """The lines of a frontend that route by the map: by chance, or by the hash of ``key``, a sample such as ``req.cook(user)``."""
    draw = f"rand({UNITS})" if key is None else f"{key},xxh32,mod({UNITS})"
    return (
        f"http-request set-var(txn.somaresil) str({name}),map_str_int({map_file},0)\n"
        f"use_backend {candidate} if {{ {draw},sub(txn.somaresil) lt 0 }}\n"
        f"default_backend {stable}\n"
    )


def check_nginx(check: Checker, stable: Any, candidate: Any, key: Any, salt: Any, variable: Any) -> None:
    """Note what nginx would not read as one word."""
    for name, value in (("stable", stable), ("candidate", candidate)):
        if not isinstance(value, str) or not _UPSTREAM.fullmatch(value):
            check.problem(name, value, "the name of an upstream, of A-Z a-z 0-9 _ . : -")
    if stable == candidate:
        check.problem("candidate", candidate, "another upstream than the stable one")
    if key is not None and (not isinstance(key, str) or not _VARIABLES.fullmatch(key)):
        check.problem("key", key, "variables of nginx such as $cookie_user, or None")
    if not isinstance(salt, str) or not _SALT.fullmatch(salt):
        check.problem("salt", salt, "up to 60 characters from A-Z a-z 0-9 _ . -")
    if not isinstance(variable, str) or not _VARIABLE.fullmatch(variable):
        check.problem("variable", variable, "a name of a-z 0-9 _ that begins with a letter, without $")


def check_haproxy(check: Checker, name: Any, map_file: Any, stable: Any, candidate: Any, key: Any) -> None:
    """Note what HAProxy would not read as one word."""
    for path, value in (("name", name), ("stable", stable), ("candidate", candidate)):
        if not isinstance(value, str) or not _BACKEND.fullmatch(value):
            check.problem(path, value, "1 to 120 characters from A-Z a-z 0-9 _ . -")
    if stable == candidate:
        check.problem("candidate", candidate, "another backend than the stable one")
    if not isinstance(map_file, str) or not _MAP.fullmatch(map_file):
        check.problem("map_file", map_file, "a path of A-Z a-z 0-9 _ . / -", "HAProxy reads it as one word")
    if key is not None and (not isinstance(key, str) or not _SAMPLE.fullmatch(key)):
        check.problem("key", key, "a sample of HAProxy such as req.cook(user), or None")


def _shares(config: CanaryConfig, check: Checker) -> None:
    for number, phase in enumerate(config.phases):
        units = phase.weight * UNITS
        if abs(units - round(units)) > 1e-6:  # noqa: PLR2004 - what floats lose
            check.problem(f"config.steps[{number}]", f"{phase.weight:.6%}", "hundredths of a percent, the least that this proxy can say")
