"""Code of users: what is read and never run."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Final

from somaresil.adopt.edit import AdoptionError, AlreadyThere, adopted, service_name
from somaresil.doctor import command
from somaresil.doctor.source import Source
from tests.fuzz.harness import expect, target, text_of

_PATH: Final = Path("service.py")


@target("adopt.edit:adopted", "adopt.edit:service_name", raises=(AdoptionError, AlreadyThere), weight=2)
def adopt(data: bytes) -> None:
    """A module that is changed is a module, and is not changed twice."""
    text = text_of(data)
    service_name(text)
    try:
        made = adopted(text, service="fuzz")
    except AdoptionError as refused:
        expect(str(refused), "a reason")
        return
    ast.parse(made)
    try:
        adopted(made, service="fuzz")
    except (AdoptionError, AlreadyThere):
        return
    expect(False, "a module that has it is left alone")


@target("doctor.source:Source.__init__", "doctor.command:examine", weight=2)
def doctor(data: bytes) -> None:
    """A module that is looked at; ``read_project`` puts aside what cannot be read."""
    project = command.Project()
    text = text_of(data)
    try:
        project.sources.append(Source(_PATH, text))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return
    project.starting[Path("Dockerfile")] = text
    command.examine(project)
