"""What other programs answer: Prometheus, Redis, pods, dashboards, OSV, Kayenta; and what other processes of ours have written."""

from __future__ import annotations

import json
import math
import struct
import tempfile
from email import message_from_string
from email.message import Message
from hashlib import blake2b
from pathlib import Path
from types import SimpleNamespace
from typing import Final
from unittest import mock

from somaresil import ConfigurationError, ManualClock
from somaresil.canary import kayenta
from somaresil.canary.ledger import Levels
from somaresil.canary.members import Trial
from somaresil.canary.store import CanaryFile
from somaresil.canary.telling import read_telling
from somaresil.dashboard import checked, merge
from somaresil.dashboard.plain import plain_page
from somaresil.integrations import _lua, _prometheus_api, _weights, _workers
from somaresil.integrations._readings import decode, encode
from somaresil.integrations.evidence import ScrapeSource
from somaresil.integrations.redisevidence import RedisEvidence
from somaresil.load.server import parse as parse_metrics
from somaresil.perf.read import FORMS, read_text
from somaresil.remote import Impossible, Remote, clean
from somaresil.scan import advisories, inventory, sources
from somaresil.scan.inventory import Package
from somaresil.scan.policy import _allowed
from somaresil.slo import records, sheet
from tests.fuzz.harness import expect, mapping_of, target, text_of, value_of

_FOLDER: Final = Path(tempfile.mkdtemp(prefix="somaresil-fuzz-"))


def _file(data: bytes, name: str = "file") -> Path:
    path = _FOLDER / name
    path.write_bytes(data)
    path.chmod(0o600)
    return path


# -- Prometheus ---------------------------------------------------------------------------------------------------------------------------


@target("integrations._prometheus_api:_asked", "integrations._prometheus_api:_answer", raises=(ValueError,))
def prometheus(data: bytes) -> None:
    """An answer to a query, and to one that failed."""
    for status in (400, 200):
        with mock.patch.object(_prometheus_api, "_fetch", lambda *_, status=status: (status, data)):
            try:
                said = _prometheus_api._asked("http://p", "/", 1.0, _prometheus_api.Authorization())
            except ValueError as refused:
                expect(len(str(refused)) < 300, "a reason that is short")
                continue
            for sample in _prometheus_api._answer(said).samples:
                expect(math.isfinite(sample.at), "a time")


@target("load.server:parse", raises=(ValueError,), weight=3)
def metrics(data: bytes) -> None:
    """A page of metrics."""
    found = parse_metrics(text_of(data))
    expect(math.isfinite(found.requests) or found.requests == math.inf, "a number of requests")


@target("integrations.evidence:ScrapeSource._of_json", "integrations.evidence:ScrapeSource._of_metrics", raises=(ValueError,), weight=3)
def scraped(data: bytes) -> None:
    """A page of a pod, as evidence and as metrics."""
    for form in ("evidence", "prometheus"):
        source = ScrapeSource("http://pod:1/x", role="candidate", form=form, clock=ManualClock())
        with mock.patch("somaresil.integrations.evidence.ask_pods", return_value={"pod": data}):
            found = source.read()
        expect(len(found.told) + len(found.absent) == 1, "told, or absent")


# -- what other processes of ours have written --------------------------------------------------------------------------------------------


@target("canary.telling:read_telling", raises=(ConfigurationError,))
def telling(data: bytes) -> None:
    """Evidence of a pod."""
    found = read_telling(value_of(data))
    expect(all(text.isprintable() for text in (found.pod, found.instance, found.version, found.checksum)), "texts that can be shown")


@target("integrations.redisevidence:RedisEvidence.read")
def redis_evidence(data: bytes) -> None:
    """The same in Redis: what is none is absent."""
    source = RedisEvidence.__new__(RedisEvidence)
    source._key = "k"
    source._client = SimpleNamespace(zrevrange=lambda *_: [b"a\xff", "b"], mget=lambda keys: [data, None][: len(keys)], zrem=lambda *_: 1)
    found = source.read()
    expect(len(found.told) + len(found.absent) == 1, "told, or absent")


@target("integrations._lua:parse_message", "integrations._lua:_seen", raises=(ValueError, TypeError, LookupError), weight=6)
def message(data: bytes) -> None:
    """A message of the channel in Redis, and the answer of a script."""
    found = _lua.parse_message(data)
    expect(isinstance(found.name, str), "a name")


@target("slo.records:read_lines")
def journal(data: bytes) -> None:
    """A journal: lines that cannot be read are counted; written again it says the same."""
    found = records.read_lines(data.split(b"\n"))
    again = records.read_lines(records.line(each) for each in (*found.hours, *found.incidents, *found.deployments))
    expect((again.hours, again.incidents, again.deployments) == (found.hours, found.incidents, found.deployments), "read back")


@target("slo.sheet:decode")
def snapshot(data: bytes) -> None:
    """A file of counts: any bytes, and any header behind a checksum that is good. What is taken is the same when it is written again."""
    head, _, counts = data.partition(b"\n")
    whole = b"".join((sheet.MAGIC, struct.pack("<I", len(head)), head, counts))
    for each in (data, whole + blake2b(whole, digest_size=sheet._DIGEST).digest()):
        try:
            found = sheet.decode(each)
        except ValueError:
            continue
        expect(sheet.decode(sheet.encode(found)) == found, "read back")


@target("integrations._workers:_parse", "integrations._readings:decode", raises=(ValueError, OSError), weight=3)
def worker(data: bytes) -> None:
    """Metrics of another worker."""
    found = _workers._parse(_file(data), "gateway")
    _workers._lives(found, 1.7e9)
    sorted([found, found], key=lambda file: (file.started, file.name))
    expect(decode(json.loads(json.dumps(encode(found.reading)))).rows == found.reading.rows, "read back")


@target("integrations._weights:written", raises=(_weights.Kept,), weight=6)
def order(data: bytes) -> None:
    """A file of weights: what is taken is the same when it is written again."""
    for text in (text_of(data), _weights._HEAD + text_of(data)):
        try:
            found = _weights.written(text)
        except _weights.Kept:
            continue
        expect(_weights.written(found.line()) == found, "read back")


@target("canary.store:CanaryFile.read", "canary.store:CanaryFile.peers", raises=(ValueError, OSError), weight=2)
def state(data: bytes) -> None:
    """The file of a canary, and those of other processes beside it."""
    path = _file(data, "canary.json")
    _file(data, "canary.json.7-0badc0de")
    store = CanaryFile(path)
    store.peers()
    store.read()


@target("canary.members:Trial.read", raises=(ConfigurationError, LookupError, TypeError, ValueError, AttributeError, OverflowError))
def trial(data: bytes) -> None:
    """What a judge had seen before it was started again."""
    Trial.read(mapping_of(data), ("up",), Levels(), 1.7e9, 100.0)


@target("canary.kayenta:parse", "canary.kayenta:answer", raises=(ConfigurationError,), weight=2)
def judged(data: bytes) -> None:
    """A request for a judgement: the answer is JSON without NaN."""
    json.dumps(kayenta.answer(kayenta.parse(data)), allow_nan=False)


@target(
    "dashboard.checked:portrait",
    "dashboard.checked:columns",
    "dashboard.merge:together",
    "dashboard.merge:picture",
    raises=(checked.Strange,),
)
def portrait(data: bytes) -> None:
    """What another process looks like: what is taken can be added up, shown, and written."""
    found = checked.portrait(value_of(data))
    both = merge.merge((found, found))
    shown = merge.picture(both)
    json.dumps(shown, allow_nan=False)
    plain_page(shown)


@target("dashboard.checked:events", "dashboard.checked:details", "dashboard.checked:extras", "dashboard.checked:answered", weight=3)
def told(data: bytes) -> None:
    """What another process says of events, guards, objectives and commands."""
    value = value_of(data)
    for check in (checked.events, checked.details, checked.extras, checked.answered):
        try:
            json.dumps(check(value), default=list)
        except checked.Strange:
            continue


@target("remote:Remote._read", raises=(Impossible,), weight=6)
def remote(data: bytes) -> None:
    """An answer of one of our apps."""
    headers = Message()
    headers["content-type"] = "application/json; charset=utf-8"
    asking = Remote.__new__(Remote)
    asking._what, asking._token, asking._largest, asking._url = "dashboard", "", 10_000_000, "http://x"
    for status in (200, 409, 503):
        try:
            asking._read(status, headers, data)
        except Impossible as refused:
            expect(clean(str(refused)).isprintable(), "what a terminal can show")


# -- measurements, advisories, packages ---------------------------------------------------------------------------------------------------


@target("perf.read:read_text", "perf.read.node:parse_json", raises=(ConfigurationError,), weight=3)
def results(data: bytes) -> None:
    """Results of a benchmark or a load, in each form."""
    text = text_of(data)
    for form in (None, *FORMS):
        try:
            found = read_text(text, "out", form)
        except ConfigurationError as wrong:
            expect(all(problem.path.startswith(("out", "form")) for problem in wrong.problems), "where it is from")
        else:
            expect(all(math.isfinite(value) for result in found for series in result.series for value in series.values), "numbers")


@target("scan.advisories:parse_advisory", "scan.advisories:affects", "scan.sources:_load", raises=(ValueError, RecursionError), weight=2)
def advisory(data: bytes) -> None:
    """A record of OSV, about a package."""
    found = advisories.parse_advisory(sources._load("a.json", data))
    for version in ("1.0", "none at all"):
        advisories.affects(found, Package("demo", version, None, "index", (), ""))
    found.fixed_in("demo")
    sources._about(found)


@target("scan.policy:_allowed", weight=6)
def licence(data: bytes) -> None:
    """A licence that a package says it has: in doubt it is not allowed."""
    text = text_of(data)
    expect(_allowed(text, ()) is False, "nothing is allowed when nothing is")
    _allowed(text, ("MIT", "Apache-2.0"))


@target("scan.inventory:_package", "scan.inventory:_needs", "scan.inventory:_origin", weight=2)
def package(data: bytes) -> None:
    """What the metadata of a package say; one whose metadata cannot be read is told as such."""
    text = text_of(data)
    metadata = message_from_string(text)
    made = SimpleNamespace(metadata=metadata, requires=metadata.get_all("Requires-Dist"), read_text=lambda _: metadata.get("Direct-Url"))
    found = inventory._package(made)  # type: ignore[arg-type]
    if found is not None:
        expect(all(name == inventory.normalized(name) for name in (found.name, *found.needs)), "one spelling")
        expect(found.origin in {"vcs", "archive", "folder", "index"}, "where it is from")
        expect("\n" not in found.purl, "an address of one line")
