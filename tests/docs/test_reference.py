"""The reference: every name that it shows is there, and every public name is shown."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest
import yaml

import somaresil

ROOT = Path(__file__).parents[2]
PAGES = sorted((ROOT / "docs" / "reference").glob("*.md"))
SHOWN = sorted({name for page in PAGES for name in re.findall(r"^::: (\S+)$", page.read_text(encoding="utf-8"), re.MULTILINE)})


def resolved(name):
    """What a dotted name stands for."""
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:length]))
        except ModuleNotFoundError:
            continue
        for part in parts[length:]:
            found = getattr(found, part)
        return found
    raise AssertionError(name)


@pytest.mark.parametrize("name", SHOWN)
def test_what_the_reference_shows_is_there(name):
    assert resolved(name) is not None


@pytest.mark.parametrize("name", sorted(set(somaresil.__all__) - {"__version__"}))
def test_every_public_name_is_shown(name):
    found = getattr(somaresil, name)
    home = f"{found.__module__}.{found.__qualname__}"
    assert any(home == shown or home.startswith(f"{shown}.") for shown in SHOWN), home


def test_the_site_is_read_without_loading_anything_from_elsewhere():
    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    assert "://" not in text
    said = yaml.safe_load(text)
    assert said["theme"]["font"] is False
    assert said["strict"] is True
