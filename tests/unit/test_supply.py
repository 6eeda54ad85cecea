"""What the wheel says of itself is true: what is vendored, in which version, under which licence."""

from __future__ import annotations

import hashlib
import json
import tomllib
from pathlib import Path

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

ROOT = Path(__file__).resolve().parents[2]
BILL = ROOT / "docs" / "vendored.cdx.json"
VENDORED = ROOT / "src" / "somaresil" / "dashboard" / "static" / "vendor"


@pytest.fixture(scope="module")
def bill():
    """The bill of materials that is put into the wheel."""
    return json.loads(BILL.read_text(encoding="utf-8"))


def test_the_bill_is_one_of_cyclonedx(bill):
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(BILL.read_text(encoding="utf-8")) is None
    assert bill["metadata"]["component"]["purl"] == "pkg:pypi/somaresil"


def test_it_names_each_vendored_file_as_it_is(bill):
    """By its place in the wheel, with the digest of its bytes."""
    told = {
        file["name"].rpartition("/")[2]: file["hashes"][0]["content"]
        for component in bill["components"]
        for file in component.get("components", ())
    }
    there = [path for path in VENDORED.iterdir() if path.suffix in {".js", ".css"}]
    assert told == {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in there}
    assert all((ROOT / "src" / file["name"]).is_file() for each in bill["components"] for file in each.get("components", ()))


def test_it_names_the_versions_that_the_note_of_origin_names(bill):
    origin = (VENDORED / "ORIGIN.md").read_text(encoding="utf-8")
    for component in bill["components"]:
        assert f"{component['name']} {component.get('version', '')}".strip() in origin
        assert component["licenses"][0]["license"]["id"] in origin


def test_the_wheel_takes_it_along():
    config = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert config["sbom-files"] == [str(BILL.relative_to(ROOT))]
