"""The files of the dashboard's page: what they may hold, and what they may weigh."""

from __future__ import annotations

import gzip
import hashlib
import re
from importlib import resources
from pathlib import Path

import pytest

STATIC = Path(str(resources.files("somaresil.dashboard").joinpath("static")))
FILES = sorted(path for path in STATIC.rglob("*") if path.is_file())
OWN = [path for path in FILES if path.parent.name != "vendor"]
SCRIPTS = [path for path in FILES if path.suffix == ".js"]
MOST = 40_000
"""Bytes of all scripts together, each compressed by itself as it is sent."""
MOST_PICTURE = 150_000
"""Bytes of each picture in the docs."""
MARKUP = re.compile(
    r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|srcdoc|javascript:|createContextualFragment"
)


def names(paths):
    return [str(path.relative_to(STATIC)) for path in paths]


@pytest.mark.parametrize("path", FILES, ids=names(FILES))
def test_every_file_is_text_of_a_kind_that_is_served(path):
    assert path.suffix in {".html", ".css", ".js", ".txt", ".md"}
    assert path.read_bytes().decode("utf-8")


@pytest.mark.parametrize("path", OWN, ids=names(OWN))
def test_the_page_asks_nobody_but_the_service_that_serves_it(path):
    text = path.read_text(encoding="utf-8")
    assert not re.search(r"https?:|\bwss?:", text)
    # An address that begins with a slash would leave the place where the page is mounted.
    assert not re.search(r"""(?:href|src|action|content)=["']/|(?:fetch|ask|command|EventSource)\(["'`]/|from ['"]/|url\(""", text)


@pytest.mark.parametrize("path", OWN, ids=names(OWN))
def test_the_page_makes_no_markup_and_no_code_of_text(path):
    text = path.read_text(encoding="utf-8")
    assert not MARKUP.search(text)
    assert "dangerouslySetInnerHTML" not in text
    assert not re.search(r"""\sstyle=["'`]|\son[a-z]+=["']""", text), "the policy of the page forbids styles and handlers as text"


def test_all_scripts_together_weigh_less_than_forty_kilobytes():
    weights = {str(path.relative_to(STATIC)): len(gzip.compress(path.read_bytes(), 9, mtime=0)) for path in SCRIPTS}
    assert sum(weights.values()) < MOST, weights


def test_a_script_is_sent_only_if_the_page_asks_for_it():
    page = (STATIC / "index.html").read_text(encoding="utf-8")
    used = set(re.findall(r'(?:src|href)="static/([^"]+)"', page))
    for path in SCRIPTS:
        used.update(re.findall(r"from '\./([^']+)'", path.read_text(encoding="utf-8")))
    assert used == {str(path.relative_to(STATIC)) for path in FILES if path.suffix in {".js", ".css"}}


def test_what_others_wrote_is_what_its_origin_says():
    origin = (STATIC / "vendor" / "ORIGIN.md").read_text(encoding="utf-8")
    told = dict(re.findall(r"^\| `([^`]+)` \|.*`([0-9a-f]{64})` \|$", origin, re.MULTILINE))
    vendored = [path for path in FILES if path.parent.name == "vendor" and path.suffix in {".js", ".css"}]
    assert told == {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in vendored}
    for licence in re.findall(r"`(LICENSE-[^`]+)`", origin):
        assert "ermission" in (STATIC / "vendor" / licence).read_text(encoding="utf-8")


def test_no_vendored_script_makes_markup_but_where_the_page_would_ask_for_it():
    for path in SCRIPTS:
        text = path.read_text(encoding="utf-8").replace("dangerouslySetInnerHTML", "")
        allowed = 1 if path.name == "htm-preact.module.js" else 0
        # What preact does with `dangerouslySetInnerHTML`, which the page never says, is the one place.
        assert len(re.findall(r"\.innerHTML\s*=", text)) <= allowed
        assert not re.search(r"document\.write|\beval\(|new Function", text)


def test_without_scripts_the_page_leads_to_the_plain_table():
    page = (STATIC / "index.html").read_text(encoding="utf-8")
    assert re.search(r'<noscript><meta http-equiv="refresh" content="0; url=plain"></noscript>', page)
    assert re.search(r'<noscript>.*<a href="plain">', page)


def test_pictures_in_the_docs_are_small():
    images = sorted((Path(__file__).resolve().parents[3] / "docs" / "images").glob("*.png"))
    assert images
    assert {image.name: image.stat().st_size for image in images if image.stat().st_size > MOST_PICTURE} == {}
