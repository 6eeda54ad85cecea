"""What ``somaresil render`` does."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from somaresil.errors import ConfigurationError
from somaresil.render import KINDS, RenderOptions, notes, render
from somaresil.slo.rules.text import duration

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable, Mapping

__all__ = ["run"]

_WRITTEN, _DIFFERS, _REFUSED = 0, 1, 2
_MARK: Final = "# Made by: "
_COMMENTED: Final = (".yaml", ".yml")
_NOT_SAID: Final = frozenset({"command", "kind", "out", "check", "json", "list", "run", "parser"})
"""What does not change the files."""


def run(arguments: argparse.Namespace) -> int:
    """Write, compare or print; returns the exit code."""
    if arguments.list:
        print("\n".join((*KINDS, "all")))
        return _WRITTEN
    try:
        files = _rendered(arguments)
    except (ConfigurationError, ValueError) as wrong:
        print(f"somaresil render: {wrong}", file=sys.stderr)
        return _REFUSED
    if arguments.out is None:
        _print(files, as_json=arguments.json)
        return _WRITTEN
    folder = Path(arguments.out)
    try:
        if arguments.check:
            return _compare(folder, files, as_json=arguments.json)
        for name, text in files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8", newline="\n")
    except (OSError, UnicodeDecodeError) as failed:
        print(f"somaresil render: {folder}: {getattr(failed, 'strerror', None) or type(failed).__name__}", file=sys.stderr)
        return _REFUSED
    written = [str(folder / name) for name in files]
    print(json.dumps({"written": written}, indent=2) if arguments.json else "\n".join(written))
    return _WRITTEN


def _rendered(arguments: argparse.Namespace) -> dict[str, str]:
    if arguments.kind is None or arguments.service is None:
        absent = [name for name, value in (("KIND", arguments.kind), ("--service", arguments.service)) if value is None]
        raise ValueError(f"{' and '.join(absent)} must be given; --list names the kinds")
    if arguments.check and arguments.out is None:
        raise ValueError("--check needs --out: the folder to compare with")
    options = _options(arguments)
    # Of what a process may do nobody knows anything unless it is said.
    kinds = (
        tuple(kind for kind in KINDS if kind != "falco" or options.runtime is not None) if arguments.kind == "all" else (arguments.kind,)
    )
    head = f"{_MARK}{_command(arguments)}\n"
    found: dict[str, str] = {}
    for kind in kinds:
        # Several kinds have folders of their own.
        place = f"{kind}/" if arguments.kind == "all" else ""
        for name, text in render(kind, options).items():
            found[place + name] = (head if name.endswith(_COMMENTED) else "") + text
    for note in notes(options) if "prometheus-rules" in kinds else ():
        print(f"note: {note}", file=sys.stderr)
    return found


def _options(arguments: argparse.Namespace) -> RenderOptions:
    more: dict[str, Any] = {}
    if arguments.slo is not None:
        from somaresil.slofile import read_slos

        file = read_slos(arguments.slo)
        more = {"slos": tuple(file.slos), "sources": file.sources, "services": file.services}
    if arguments.runtime is not None:
        from somaresil.runtime_guard import read_rules

        more["runtime"] = read_rules(arguments.runtime)
    return RenderOptions(
        scope=arguments.scope,
        install=arguments.install,
        service=arguments.service,
        environment=arguments.environment,
        namespace=arguments.namespace,
        scrape_interval=arguments.scrape_interval,
        retention=arguments.retention,
        runbook_base=arguments.runbooks,
        grafana_url=arguments.grafana,
        targets=tuple(arguments.target),
        metrics_path=arguments.metrics_path,
        port=arguments.port,
        page_to=arguments.page_to,
        ticket_to=arguments.ticket_to,
        share=arguments.share,
        slow=arguments.slow,
        series=_pairs(arguments.label) or None,
        labels=_pairs(arguments.alert_label),
        events_per_hour=_rates(arguments.events_per_hour),
        buckets=arguments.buckets,
        cap_unreachable=arguments.cap_unreachable,
        sloth=arguments.sloth,
        **more,
    )


def _command(arguments: argparse.Namespace) -> str:
    """The command that makes the same files again."""
    words = ["python", "-m", "somaresil", "render", arguments.kind]
    parser = arguments.parser
    for name, value in sorted(vars(arguments).items()):
        if name in _NOT_SAID or value == parser.get_default(name):
            continue
        option = f"--{name.replace('_', '-')}"
        if value is True:
            words.append(option)
        elif isinstance(value, list):
            words += [word for each in value for word in (option, each)]
        elif isinstance(value, tuple):
            words += [option, ",".join(f"{bound:g}" for bound in value)]
        else:
            words += [option, duration(value) if isinstance(value, float) else str(value)]
    return shlex.join(words)


def _print(files: Mapping[str, str], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps({"files": dict(files)}, indent=2))
        return
    for name, text in files.items():
        if len(files) > 1:
            print(f"==> {name} <==")
        sys.stdout.write(text)


def _compare(folder: Path, files: Mapping[str, str], *, as_json: bool) -> int:
    """Tell what is not there, or is there and another; files that we made and would not make any more are left over."""
    found: dict[str, str] = {}
    for name, text in files.items():
        path = folder / name
        if not path.is_file():
            found[name] = "not there"
        elif path.read_bytes() != text.encode():
            found[name] = "differs"
    found |= dict.fromkeys(sorted(_made(folder) - set(files)), "left over")
    if as_json:
        print(json.dumps({"differs": found}, indent=2))
    else:
        print("\n".join(f"{folder / name}: {what}" for name, what in found.items()) or f"{folder}: as it would be written")
    return _DIFFERS if found else _WRITTEN


def _made(folder: Path) -> set[str]:
    found: set[str] = set()
    for ending in _COMMENTED:
        for path in folder.rglob(f"*{ending}"):
            with path.open("rb") as file:
                if file.read(len(_MARK)) == _MARK.encode():
                    found.add(path.relative_to(folder).as_posix())
    return found


def _pairs(given: Iterable[str]) -> dict[str, str]:
    found = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals:
            raise ValueError(f"{text!r}: expected NAME=VALUE")
        found[name] = value
    return found


def _rates(given: Iterable[str]) -> dict[str, float]:
    found = {}
    for text in given:
        name, _, rate = text.rpartition("=")
        try:
            found[name or "*"] = float(rate)
        except ValueError:
            raise ValueError(f"{text!r}: expected NUMBER or NAME=NUMBER") from None
    return found
