"""The command: what was not looked up is not passed."""

from __future__ import annotations

import json
import threading
import zipfile
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import jsonschema
import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from somaresil.cli import main
from tests.unit.scan.kit import LOW, advisory, database, install

EVIL = "\x1b[31mred\r\nnew line\u202e"


@pytest.fixture
def site(tmp_path):
    folder = tmp_path / "site"
    install(folder, "thing", "1.0", "License-Expression: MIT", "Requires-Dist: other")
    install(folder, "other", "3.1", "License-Expression: Apache-2.0")
    return folder


@pytest.fixture
def run(site, capsys):
    def scan(*arguments):
        code = main(["scan", "--path", str(site), *map(str, arguments)])
        return code, capsys.readouterr()

    return scan


def fresh(*records):
    """Records that are new whenever this runs."""
    return [{**record, "modified": "2999-01-01T00:00:00Z"} for record in records]


def test_all_is_well_only_when_everything_was_looked_up_and_nothing_counts(run, tmp_path):
    code, told = run("--database", database(tmp_path / "db", *fresh(advisory("PYSEC-1-1", "thing", {"introduced": "0"}, {"fixed": "0.9"}))))
    assert code == 0
    assert told.out.startswith("good: 2 packages, 0 advisories that count")


def test_what_is_found_closes_the_gate_and_says_what_mends_it(run, tmp_path):
    records = fresh(
        advisory("PYSEC-1-1", "Thing", {"introduced": "0"}, {"fixed": "1.1"}, aliases=["CVE-1-1"], summary=EVIL),
        advisory("PYSEC-1-2", "other", {"introduced": "0"}, vector=LOW),
    )
    folder = database(tmp_path / "db", *records)
    code, told = run("--database", folder)
    assert code == 1
    assert "thing 1.0: PYSEC-1-1 (CVE-1-1), critical 9.8: counts" in told.out
    assert "mended in 1.1" in told.out
    assert "\x1b" not in told.out
    assert "\u202e" not in told.out
    code, told = run("--database", folder, "--fail-on", "high", "--json")
    said = json.loads(told.out)
    assert code == 1
    assert [(each["id"], each["counts"]) for each in said["findings"]] == [("PYSEC-1-1", True), ("PYSEC-1-2", False)]
    assert said["verdict"] == "found"


def test_a_waiver_opens_it_until_it_ends_and_one_for_nothing_is_told(run, tmp_path):
    folder = database(tmp_path / "db", *fresh(advisory("PYSEC-1-1", "thing", {"introduced": "0"})))
    policy = tmp_path / "policy.toml"
    entry = '[[waivers]]\nid = "{}"\nreason = "not reachable from our code"\nuntil = {}\n'
    policy.write_text(entry.format("PYSEC-1-1", "2020-01-01") + entry.format("PYSEC-9-9", "2020-01-01"), encoding="utf-8")
    code, told = run("--database", folder, "--policy", policy)
    assert code == 1
    assert told.out.count("lets nothing pass") == 2
    policy.write_text("[[waivers]]\nid = 5\n", encoding="utf-8")
    code, told = run("--database", folder, "--policy", policy)
    assert code == 2
    assert "waivers[0].id" in told.err


def test_licences_that_are_not_allowed_close_it_too(run, tmp_path):
    folder = database(tmp_path / "db", *fresh(advisory("PYSEC-1-1", "nothing", {"introduced": "0"})))
    policy = tmp_path / "policy.toml"
    policy.write_text('[licences]\nallow = ["MIT"]\n', encoding="utf-8")
    code, told = run("--database", folder, "--policy", policy)
    assert code == 1
    assert "licence: other 3.1: Apache-2.0 is not allowed" in told.out


@pytest.mark.parametrize(
    ("records", "why"),
    [
        ([], "no record of OSV"),
        ([{"id": "PYSEC-1-1", "affected": 5}], "records that cannot be read: PYSEC-1-1.json"),
        ([{**advisory("PYSEC-1-1", "nothing"), "modified": "2020-01-01T00:00:00Z"}], "days old, more than --max-age 7"),
        ([{**advisory("PYSEC-1-1", "nothing"), "modified": None}], "nobody knows how old it is"),
    ],
)
def test_a_database_that_is_empty_broken_or_old_is_not_known(run, tmp_path, records, why):
    code, told = run("--database", database(tmp_path / "db", *records))
    assert code == 2
    assert why in told.out
    assert told.out.startswith("not known")


def test_a_database_that_is_not_there_and_one_in_an_archive(run, tmp_path):
    assert run("--database", tmp_path / "nowhere")[0] == 2
    archive = tmp_path / "all.zip"
    with zipfile.ZipFile(archive, "w") as made:
        for record in fresh(advisory("PYSEC-1-1", "thing", {"introduced": "0"})):
            made.writestr(f"{record['id']}.json", json.dumps(record))
    assert run("--database", archive)[0] == 1
    archive.write_bytes(b"no archive")
    code, told = run("--database", archive)
    assert code == 2
    assert "BadZipFile" in told.out


def test_packages_that_cannot_be_told_and_an_environment_without_any_are_not_known(run, site, tmp_path):
    folder = database(tmp_path / "db", *fresh(advisory("PYSEC-1-1", "nothing")))
    (site / "odd-1.dist-info").mkdir()
    code, told = run("--database", folder)
    assert code == 2
    assert "odd-1.dist-info" in told.out
    (tmp_path / "empty").mkdir()
    assert main(["scan", "--path", str(tmp_path / "empty"), "--database", str(folder)]) == 2
    assert main(["scan", "--path", str(tmp_path / "absent"), "--database", str(folder)]) == 2


@contextmanager
def service(answers):
    """A service on loopback; ``answers`` gives status and data for path and body."""

    class Handler(BaseHTTPRequestHandler):
        def answer(self):
            length = int(self.headers.get("content-length") or 0)
            status, data = answers(self.path, json.loads(self.rfile.read(length)) if length else None)
            body = data if isinstance(data, bytes) else json.dumps(data).encode()
            self.send_response(status)
            if status in {301, 302}:
                self.send_header("location", "/elsewhere")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            return

    for method in ("GET", "POST"):
        setattr(Handler, f"do_{method}", Handler.answer)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_service_is_asked_about_every_package_page_by_page(run):
    record = advisory("PYSEC-1-1", "thing", {"introduced": "0"}, {"fixed": "2"})
    asked = []

    def answer(path, body):
        asked.append(path)
        if path == "/v1/querybatch":
            return 200, {
                "results": [
                    {"vulns": [{"id": "PYSEC-1-1"}]}
                    if "page_token" in query
                    else {"next_page_token": "more"}
                    if query["package"]["name"] == "thing"
                    else {}
                    for query in body["queries"]
                ]
            }
        return 200, record

    with service(answer) as url:
        code, told = run("--osv-url", url)
    assert code == 1
    assert "PYSEC-1-1" in told.out
    assert asked == ["/v1/querybatch", "/v1/querybatch", "/v1/vulns/PYSEC-1-1"]


@pytest.mark.parametrize(
    "answer",
    [
        lambda path, body: (500, {}),
        lambda path, body: (302, {}),
        lambda path, body: (200, b"<html>"),
        lambda path, body: (200, []),
        lambda path, body: (200, {}),
        lambda path, body: (200, {"results": []}),
        lambda path, body: (200, {"results": [{}]}),
        lambda path, body: (200, {"results": [{"vulns": 5}, {}]}),
        lambda path, body: (200, {"results": [{"vulns": [{"id": "../../x"}]}, {}]}),
        lambda path, body: (200, {"results": [{"vulns": [{}]}, {}]}),
        lambda path, body: (200, {"results": [{"next_page_token": "x"} for _ in body["queries"]]}) if body else (200, {}),
        lambda path, body: (200, {"results": [{"vulns": [{"id": "PYSEC-1-1"}]}, {}]}) if body else (404, {}),
        lambda path, body: (200, {"results": [{"vulns": [{"id": "PYSEC-1-1"}]}, {}]}) if body else (200, {"id": 7}),
    ],
)
def test_a_service_that_does_not_answer_for_each_package_is_not_known(run, answer):
    with service(answer) as url:
        code, told = run("--osv-url", url)
    assert code == 2
    assert told.out.startswith("not known")


@pytest.mark.parametrize("url", ["http://api.osv.dev", "ftp://x", "https://user:secret@host", "nothing"])
def test_an_address_whose_answer_could_be_emptied_on_the_way_is_refused(run, url):
    code, told = run("--osv-url", url)
    assert code == 2
    assert "expected https://" in told.out


def test_the_bill_is_valid_says_who_needs_whom_and_is_the_same_twice(run, tmp_path, monkeypatch):
    monkeypatch.delenv("SOURCE_DATE_EPOCH", raising=False)
    first, second = tmp_path / "1.json", tmp_path / "2.json"
    code, told = run("--sbom-only", "--sbom", first)
    assert code == 0
    assert "nothing was looked up" in told.out
    run("--sbom-only", "--sbom", second)
    text = first.read_text(encoding="utf-8")
    assert text == second.read_text(encoding="utf-8")
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    said = json.loads(text)
    assert [each["purl"] for each in said["components"]] == ["pkg:pypi/other@3.1", "pkg:pypi/thing@1.0"]
    needs = {each["ref"]: each.get("dependsOn") for each in said["dependencies"]}
    assert needs["pkg:pypi/thing@1.0"] == ["pkg:pypi/other@3.1"]
    assert needs["environment:environment"] == ["pkg:pypi/thing@1.0"]
    assert "timestamp" not in said["metadata"]
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1764000000")
    run("--sbom-only", "--sbom", second)
    assert json.loads(second.read_text(encoding="utf-8"))["metadata"]["timestamp"] == "2025-11-24T16:00:00+00:00"
    assert run("--sbom-only")[0] == 2


def test_sarif_says_what_counts_what_is_waived_and_that_a_lookup_failed(run, tmp_path):
    file = tmp_path / "found.sarif"
    folder = database(
        tmp_path / "db",
        *fresh(
            advisory("PYSEC-1-1", "thing", {"introduced": "0"}, {"fixed": "2"}),
            advisory("PYSEC-1-2", "other", {"introduced": "0"}, vector=LOW),
        ),
    )
    run("--database", folder, "--sarif", file)
    said = json.loads(file.read_text(encoding="utf-8"))
    jsonschema.validate(said, SARIF)
    (once,) = said["runs"]
    assert [(each["ruleId"], each["level"]) for each in once["results"]] == [("PYSEC-1-1", "error"), ("PYSEC-1-2", "note")]
    assert once["tool"]["driver"]["rules"][0]["properties"]["security-severity"] == "9.8"
    assert once["invocations"][0]["executionSuccessful"] is True
    run("--database", tmp_path / "nowhere", "--sarif", file)
    assert json.loads(file.read_text(encoding="utf-8"))["runs"][0]["invocations"][0]["executionSuccessful"] is False


SARIF = {
    "type": "object",
    "required": ["version", "runs"],
    "properties": {
        "version": {"const": "2.1.0"},
        "runs": {
            "type": "array",
            "items": {
                "required": ["tool", "results", "invocations"],
                "properties": {
                    "results": {
                        "items": {
                            "required": ["ruleId", "level", "message", "locations", "partialFingerprints"],
                            "properties": {
                                "level": {"enum": ["none", "note", "warning", "error"]},
                                "ruleIndex": {"type": "integer", "minimum": 0},
                            },
                        }
                    },
                    "invocations": {"items": {"required": ["executionSuccessful"]}},
                },
            },
        },
    },
}
"""What sites need of the format; the whole schema is not to be had without the network."""
