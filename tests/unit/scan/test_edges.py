"""Scans where it is rare: databases that are too large or in YAML, answers cut on the way, and what is not installed."""

from __future__ import annotations

import json
import sys
import zipfile
from datetime import UTC, date, datetime, timedelta

import pytest

from somaresil import ConfigurationError
from somaresil.cli import main
from somaresil.scan import command, inventory, policy, sources
from somaresil.scan.advisories import affects, level_of, parse_advisory
from somaresil.scan.inventory import Package, paths_of, take_inventory
from somaresil.scan.policy import read_policy
from somaresil.scan.sources import Database, LookupFailedError
from tests.unit.scan.kit import advisory, database, install
from tests.unit.scan.test_command import fresh, run, service, site

__all__ = ["run", "site"]

THING = Package("thing", "1.0", None, "index", ())
RECORD = advisory("PYSEC-1-1", "thing", {"introduced": "0"})
YAML = """
id: PYSEC-1-2
modified: 2026-11-27T00:00:00Z
summary: something bad
affected:
- package: {name: thing, ecosystem: PyPI}
  ranges: [{type: ECOSYSTEM, events: [{introduced: "0"}]}]
"""


def refused(path):
    with pytest.raises(LookupFailedError) as caught:
        Database(path).look_up([THING])
    return str(caught.value)


def archive(path, **entries):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as made:
        for name, text in entries.items():
            made.writestr(name.replace("_", "."), text)
    return path


def test_records_in_yaml_are_read_as_those_in_json_and_times_in_them_are_times(tmp_path):
    (tmp_path / "a.yaml").write_text(YAML)
    (tmp_path / "b.yml").write_text(YAML.replace("-1-2", "-1-3").replace("00Z", "00"))
    (tmp_path / "README.md").write_text("not a record")
    found = Database(tmp_path).look_up([THING])
    assert [each.id for each in found.advisories["thing"]] == ["PYSEC-1-2", "PYSEC-1-3"]
    assert found.newest == datetime(2026, 11, 27, tzinfo=UTC)
    assert Database(archive(tmp_path / "all.zip", a_yaml=YAML, README_md="")).look_up([THING]).records == 1


def test_yaml_that_is_none_is_named_and_without_pyyaml_the_way_out_is_said(tmp_path, monkeypatch):
    (tmp_path / "a.yaml").write_text("id: [")
    assert "a.yaml: " in refused(tmp_path)
    monkeypatch.setitem(sys.modules, "yaml", None)
    assert "pip install 'somaresil[yaml]'" in refused(tmp_path)


@pytest.mark.parametrize(("limit", "why"), [("_MOST_RECORDS", "more than 1 records"), ("_LARGEST_RECORD", "more than 1 bytes")])
def test_a_database_that_is_larger_than_any_is_not_read_to_its_end(tmp_path, monkeypatch, limit, why):
    folder = database(tmp_path / "db", RECORD, {**RECORD, "id": "PYSEC-1-2"})
    packed = archive(tmp_path / "all.zip", a_json=json.dumps(RECORD), b_json=json.dumps(RECORD))
    monkeypatch.setattr(sources, limit, 1)
    assert why in refused(folder)
    assert why in refused(packed)


def test_an_archive_whose_data_are_damaged_is_not_known(tmp_path, run):
    packed = archive(tmp_path / "all.zip", a_json=json.dumps(fresh(RECORD)[0]))
    data = bytearray(packed.read_bytes())
    start = data.index(b"a.json") + len("a.json")
    data[start : start + 40] = b"\xff" * 40
    packed.write_bytes(data)
    code, told = run("--database", packed)
    assert code == 2
    assert told.out.startswith("not known")
    assert "a.json: Error -3" in told.out


def test_an_answer_that_is_larger_than_any_is_not_known(run, monkeypatch):
    monkeypatch.setattr(sources, "_LARGEST_ANSWER", 10)
    with service(lambda path, body: (200, {"results": [{}, {}]})) as url:
        code, told = run("--osv-url", url)
    assert code == 2
    assert "more than 10 bytes" in told.out


def test_one_advisory_is_asked_for_once_however_many_packages_it_is_about(run):
    asked = []
    record = advisory("PYSEC-1-1", "thing", {"introduced": "0"})

    def answer(path, body):
        asked.append(path)
        return (200, {"results": [{"vulns": [{"id": "PYSEC-1-1"}]}] * 2}) if body else (200, record)

    with service(answer) as url:
        run("--osv-url", url)
    assert asked.count("/v1/vulns/PYSEC-1-1") == 1


@pytest.mark.parametrize("age", ["0", "-1", "nan", "inf"])
def test_an_age_that_no_database_can_have_is_refused(run, tmp_path, age):
    code, told = run("--database", tmp_path, f"--max-age={age}")
    assert code == 2
    assert "--max-age" in told.out + told.err


def test_what_is_not_installed_is_named_with_the_way_out(run, tmp_path, monkeypatch):
    def absent(*_, **__):
        raise ModuleNotFoundError("no", name="cyclonedx")

    monkeypatch.setattr(command, "_inventory", absent)
    code, told = run("--database", tmp_path)
    assert code == 2
    assert "cyclonedx is not installed: pip install 'somaresil[scan]'" in told.err


def test_a_file_that_cannot_be_written_is_no_success(run, tmp_path):
    code, told = run("--sbom-only", "--sbom", tmp_path / "none" / "x.json")
    assert code == 2
    assert "cannot be written" in told.err


def test_a_bill_without_all_packages_says_what_it_lacks(run, site, tmp_path):
    (site / "odd-1.dist-info").mkdir()
    code, told = run("--sbom-only", "--sbom", tmp_path / "x.json")
    assert code == 2
    assert "odd-1.dist-info" in told.err


def test_licences_stand_in_the_bill_as_what_they_are(tmp_path, capsys):
    site = tmp_path / "site"
    install(site, "known", "1.0", "License-Expression: MIT")
    install(site, "either", "1.0", "License-Expression: MIT OR Apache-2.0")
    install(site, "own", "1.0", "License: Our Own Licence")
    install(site, "silent", "1.0")
    assert main(["scan", "--path", str(site), "--sbom-only", "--sbom", str(tmp_path / "x.json")]) == 0
    said = {each["name"]: each.get("licenses") for each in json.loads((tmp_path / "x.json").read_text())["components"]}
    assert said == {
        "known": [{"license": {"id": "MIT"}}],
        "either": [{"expression": "MIT OR Apache-2.0"}],
        "own": [{"license": {"name": "Our Own Licence"}}],
        "silent": None,
    }


def test_what_is_waived_is_told_with_the_reason_everywhere(run, tmp_path):
    file, sarif = tmp_path / "policy.toml", tmp_path / "found.sarif"
    until = datetime.now(tz=UTC).date() + timedelta(days=30)
    file.write_text(f'[[waivers]]\nid = "PYSEC-1-1"\nreason = "not reachable from our code"\nuntil = {until}\n')
    code, told = run("--database", database(tmp_path / "db", *fresh(RECORD)), "--policy", file, "--sarif", sarif)
    assert code == 0
    assert f"waived until {until}: not reachable from our code" in told.out
    (result,) = json.loads(sarif.read_text())["runs"][0]["results"]
    assert result["suppressions"] == [
        {"kind": "external", "status": "accepted", "justification": f"until {until}: not reachable from our code"}
    ]


def test_a_waiver_may_end_at_a_time_of_day_and_is_for_a_package_with_a_name():
    today = date(2026, 11, 28)
    waiver = {"id": "CVE-2026-1", "reason": "not reachable from our code", "until": datetime(2026, 12, 31, 12, tzinfo=UTC)}
    (read,) = read_policy({"waivers": [waiver]}, today=today).waivers
    assert read.until == date(2026, 12, 31)
    with pytest.raises(ConfigurationError, match="the name of a package"):
        read_policy({"waivers": [{**waiver, "package": ""}]}, today=today)


def test_an_expression_with_more_brackets_than_any_is_not_allowed():
    most = policy._MOST_BRACKETS
    assert policy._allowed("(" * most + "MIT" + ")" * most, ("MIT",))
    assert not policy._allowed("(" * (most + 1) + "MIT" + ")" * (most + 1), ("MIT",))


def test_an_interpreter_that_says_something_else_is_not_believed(monkeypatch):
    monkeypatch.setattr(inventory, "_asked", lambda python: {"path": "x"})
    with pytest.raises(ValueError, match="did not say where it looks"):
        paths_of("python")


def test_another_interpreter_is_looked_into_where_it_says(run, site, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(inventory, "_asked", lambda python: [str(site)])
    assert main(["scan", "--python", "other", "--database", str(database(tmp_path / "db", *fresh(RECORD)))]) == 1
    assert "thing 1.0: PYSEC-1-1" in capsys.readouterr().out


def test_a_requirement_of_another_form_is_known_by_its_name(tmp_path):
    install(tmp_path, "thing", "1.0", "Requires-Dist: Old.Form (>=1.0,,)", "Requires-Dist: !!")
    (package,) = take_inventory([str(tmp_path)]).packages
    assert package.needs == ("old-form",)


def test_what_is_rated_in_a_way_nobody_knows_is_not_rated_and_a_limit_is_no_end():
    record = advisory("PYSEC-1-1", "thing", {"introduced": "0", "limit": "1.0"}, vector=None, severity=[{"type": "OWN", "score": "9"}])
    assert level_of(record) == (None, None)
    assert affects(parse_advisory(record), THING)
