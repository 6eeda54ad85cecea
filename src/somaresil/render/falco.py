"""The same lists as rules for Falco, which sees from without what a process hides from within.

The rules stand by themselves: no macro of Falco's own files is used, for those differ between versions. Names of hosts are resolved by
Falco (``fd.sip.name``); patterns over names have no form there, and stand in the file as a note.
"""

from __future__ import annotations

import json
import os
import re
from typing import TYPE_CHECKING, Final

from somaresil.config import Checker
from somaresil.runtime_guard.allowed import PYTHON

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from somaresil.chaos.network.targets import NetTarget
    from somaresil.render.options import RenderOptions
    from somaresil.runtime_guard.rules import RuntimeRules

__all__ = ["falco_rules", "files"]

_SCOPE: Final = re.compile(r"[A-Za-z0-9_.]+(\[[A-Za-z0-9_./-]+\])? (=|!=|startswith|endswith|contains|in) [A-Za-z0-9_.:/@(){}, \"-]+")
_BARE: Final = re.compile(r"[A-Za-z0-9_./@-]+")
_LAST_PORT: Final = 65_535
_INTERPRETER: Final = ("/usr/lib", "/usr/local/lib", "/lib", "/lib64", "/opt")
"""Where interpreters and their packages lie in images; Falco does not know which one runs."""


def falco_rules(rules: RuntimeRules, *, service: str, scope: str, priority: str = "WARNING") -> str:
    """A file of rules for Falco. ``scope`` says whose processes are meant: ``k8s.pod.label[app] = gateway``, ``proc.name = gunicorn``.

    ``priority`` is one of Falco's. Raises :class:`~somaresil.errors.ConfigurationError` with every problem found.
    """
    check = Checker("falco")
    check.name("service", service)
    if not isinstance(scope, str) or len(scope) > 300 or not _SCOPE.fullmatch(scope):  # noqa: PLR2004
        check.problem("scope", scope, "one condition of Falco: a field, an operator and a value", "k8s.pod.label[app] = gateway")
    allowed = ("EMERGENCY", "ALERT", "CRITICAL", "ERROR", "WARNING", "NOTICE", "INFORMATIONAL", "DEBUG")
    if priority not in allowed:
        check.problem("priority", priority, " | ".join(allowed))
    check.finish()
    name = re.sub(r"[^a-z0-9]+", "_", service.lower()).strip("_") or "service"
    lines = [f"# What {service} may do, for Falco: the lists of its RuntimeRules.", ""]
    lines += [f"- macro: somaresil_{name}", f"  condition: {_quoted(f'({scope})')}", ""]
    for text in (_processes(rules, name), _hosts(rules, name), _writes(rules, name), _native(rules, name)):
        lines += _rules(text, name, service, priority)
    return "\n".join(lines).rstrip("\n") + "\n"


def files(options: RenderOptions, check: Checker) -> dict[str, str]:
    """``somaresil.falco.yaml``; none without rules of a runtime guard."""
    if options.runtime is None:
        check.problem("runtime", None, "the rules of a runtime guard", 'read_rules("rules.toml"), on the command line --runtime FILE')
        return {}
    scope = options.scope or f"k8s.pod.label[app.kubernetes.io/name] = {options.service}"
    return {"somaresil.falco.yaml": falco_rules(options.runtime, service=options.service, scope=scope)}


def _rules(parts: tuple[str, str, str, str] | None, name: str, service: str, priority: str) -> Iterator[str]:
    if parts is None:
        return
    kind, what, condition, output = parts
    yield from (line for line in condition.splitlines() if line.startswith("#"))
    told = " and ".join(line for line in condition.splitlines() if not line.startswith("#"))
    yield f"- rule: {_quoted(f'somaresil {service} {kind}')}"
    yield f"  desc: {_quoted(f'{service} {what} that is in no list of its rules')}"
    yield f"  condition: {_quoted(f'somaresil_{name} and {told}')}"
    yield f"  output: {_quoted(f'{service} {what} that is in no list ({output} process=%proc.cmdline container=%container.id)')}"
    yield f"  priority: {priority}"
    yield f"  tags: [somaresil, {kind}]"
    yield ""


def _processes(rules: RuntimeRules, _: str) -> tuple[str, str, str, str] | None:
    if rules.processes is None:
        return None
    files = sorted(rules.programs().files)
    # The process itself has started too.
    but = f"\nnot proc.exepath in ({_list(files)})" if files else ""
    return (
        "processes",
        "starts a program",
        f"evt.type in (execve, execveat)\nproc.pid != 1{but}",
        "program=%proc.exepath parent=%proc.pname",
    )


def _hosts(rules: RuntimeRules, _: str) -> tuple[str, str, str, str] | None:
    if rules.hosts is None:
        return None
    conditions = ["evt.type in (connect, sendto, sendmsg)", "fd.typechar in (4, 6)", 'not fd.snet in ("127.0.0.0/8", "::1/128")']
    notes = []
    for target in rules.targets():
        host = _peer(target)
        if host is None:
            notes.append(f"# {target.text}: Falco has no patterns over names; add the addresses that they have")
            continue
        ports = "" if (target.low, target.high) == (0, _LAST_PORT) else f"fd.sport >= {target.low} and fd.sport <= {target.high}"
        parts = " and ".join(part for part in (host, ports) if part)
        conditions.append(f"not ({parts})" if parts else "evt.num < 0")
    return "hosts", "speaks to a host", "\n".join([*notes, *conditions]), "peer=%fd.name"


def _peer(target: NetTarget) -> str | None:
    """The condition for a host; empty: any host; None: there is none."""
    if target.network is not None:
        return f'fd.snet in ("{target.network}")'
    if target.host == "*":
        return ""
    return None if target.exact_name is None else f'fd.sip.name = "{target.exact_name}"'


def _writes(rules: RuntimeRules, _: str) -> tuple[str, str, str, str] | None:
    if rules.writes is None:
        return None
    places = [f"not {_below('fd.name', os.path.realpath(root))}" for root in sorted(rules.writes)]
    opened = "evt.type in (open, openat, openat2, creat)\nevt.is_open_write = true\nfd.typechar = 'f'\nnot fd.name startswith \"/dev/\""
    return "writes", "writes a file", "\n".join([opened, *places]), "file=%fd.name"


def _native(rules: RuntimeRules, _: str) -> tuple[str, str, str, str] | None:
    if rules.native is None:
        return None
    roots = [root for entry in rules.native for root in (_INTERPRETER if entry == PYTHON else (entry,)) if os.sep in root]
    places = [f"not {_below('fd.name', root)}" for root in sorted({*roots, "/lib", "/usr/lib"})]
    opened = 'evt.type in (open, openat, openat2)\nevt.is_open_read = true\n(fd.name endswith ".so" or fd.name contains ".so.")'
    return "native", "loads a library", "\n".join([opened, *places]), "library=%fd.name"


def _below(field: str, root: str) -> str:
    plain = root.rstrip("/")
    return f'({field} = "{_text(plain)}" or {field} startswith "{_text(plain)}/")'


def _list(items: Iterable[str]) -> str:
    return ", ".join(item if _BARE.fullmatch(item) else f'"{_text(item)}"' for item in items)


def _quoted(text: str) -> str:
    """A scalar of YAML that holds whatever name there is: a string of JSON is one of YAML 1.2 too."""
    return json.dumps(text, ensure_ascii=False)


def _text(text: str) -> str:
    return "".join(character for character in text if character.isprintable()).replace("\\", "\\\\").replace('"', '\\"')
