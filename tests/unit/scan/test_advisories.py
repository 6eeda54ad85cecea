"""Whom an advisory is about: ranges, versions, names, and how bad it is."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packaging.version import Version

from somaresil.scan.advisories import affects, level_of, parse_advisory
from somaresil.scan.inventory import Package, normalized
from tests.unit.scan.kit import CRITICAL, LOW, advisory


def of(version, name="thing"):
    return Package(name, version, None, "index", ())


def about(*events, name="Thing", **more):
    return parse_advisory(advisory("PYSEC-2026-1", name, *events, **more))


@pytest.mark.parametrize(
    ("events", "version", "expected"),
    [
        (({"introduced": "0"}, {"fixed": "2.0"}), "1.9", True),
        (({"introduced": "0"}, {"fixed": "2.0"}), "2.0", False),
        (({"introduced": "0"}, {"fixed": "2.0"}), "2.0rc1", True),
        (({"introduced": "0"}, {"fixed": "2.0"}), "2.0+local.1", False),
        (({"introduced": "1.5"}, {"last_affected": "1.7"}), "1.7", True),
        (({"introduced": "1.5"}, {"last_affected": "1.7"}), "1.7.1", False),
        (({"introduced": "1.5"}, {"last_affected": "1.7"}), "1.4", False),
        (({"fixed": "1.2"}, {"introduced": "2.0"}, {"introduced": "0"}, {"fixed": "2.3"}), "2.1", True),
        (({"fixed": "1.2"}, {"introduced": "2.0"}, {"introduced": "0"}, {"fixed": "2.3"}), "1.5", False),
        (({"introduced": "0"},), "999", True),
        ((), "1.0", False),
        (({"introduced": "not a version"}, {"fixed": "2.0"}), "1.0", True),
        (({"introduced": "0"}, {"fixed": "not a version"}), "1.0", True),
        (({"introduced": "0"}, {"fixed": "2.0"}), "not-a-version", True),
    ],
)
def test_a_range_is_read_as_the_specification_says_and_in_doubt_as_affected(events, version, expected):
    assert affects(about(*events), of(version)) is expected


def test_versions_that_are_listed_count_however_they_are_written():
    record = advisory("PYSEC-2026-1", "thing")
    record["affected"] = [{"package": {"name": "thing", "ecosystem": "PyPI"}, "versions": ["1.0", "1.2.0"]}]
    found = parse_advisory(record)
    assert affects(found, of("1.0.0"))
    assert affects(found, of("1.2"))
    assert not affects(found, of("1.1"))


def test_an_entry_without_versions_is_about_all_of_them_and_commits_alone_about_none():
    record = advisory("PYSEC-2026-1", "thing")
    record["affected"] = [{"package": {"name": "thing", "ecosystem": "PyPI"}}]
    assert affects(parse_advisory(record), of("1.0"))
    record["affected"] = [{"package": {"name": "thing", "ecosystem": "PyPI"}, "ranges": [{"type": "GIT", "events": [{"introduced": "0"}]}]}]
    assert not affects(parse_advisory(record), of("1.0"))


def test_names_are_compared_as_the_index_does_and_other_ecosystems_are_not_ours():
    assert affects(about({"introduced": "0"}, name="My.Cool_Thing"), of("1.0", normalized("my-cool-thing")))
    assert not affects(about({"introduced": "0"}, name="thin"), of("1.0"))
    record = advisory("GHSA-1111", "thing", {"introduced": "0"})
    record["affected"][0]["package"]["ecosystem"] = "npm"
    assert not affects(parse_advisory(record), of("1.0"))


def test_what_was_withdrawn_is_about_nobody():
    assert not affects(about({"introduced": "0"}, withdrawn="2026-01-01T00:00:00Z"), of("1.0"))


@given(
    introduced=st.from_regex(r"[0-9]{1,2}(\.[0-9]{1,2}){0,2}", fullmatch=True),
    fixed=st.from_regex(r"[0-9]{1,2}(\.[0-9]{1,2}){0,2}", fullmatch=True),
    version=st.from_regex(r"[0-9]{1,2}(\.[0-9]{1,2}){0,2}((a|b|rc)[0-9])?(\.post[0-9])?", fullmatch=True),
)
def test_a_version_is_affected_exactly_from_its_beginning_to_its_end(introduced, fixed, version):
    begin, end, own = Version(introduced), Version(fixed), Version(version)
    # What was mended before it was brought in was brought in again.
    expected = own < end if introduced == "0" else own >= begin if end < begin else begin <= own < end
    assert affects(about({"introduced": introduced}, {"fixed": fixed}), of(version)) is expected


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=8),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(
                    [
                        "id",
                        "affected",
                        "package",
                        "name",
                        "ranges",
                        "events",
                        "introduced",
                        "fixed",
                        "severity",
                        "score",
                        "type",
                        "aliases",
                        "versions",
                    ]
                ),
                inner,
                max_size=4,
            )
        ),
    )
)
def test_whatever_a_record_is_it_is_read_or_refused_with_words(data):
    try:
        found = parse_advisory(data)
    except ValueError:
        return
    for version in ("1.0", "odd"):
        affects(found, of(version))
    found.fixed_in("thing")


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({"vector": CRITICAL}, ("critical", 9.8)),
        ({"vector": LOW}, ("low", 1.8)),
        ({"vector": "CVSS:3.1/nonsense"}, (None, None)),
        ({"vector": None}, (None, None)),
        ({"vector": None, "database_specific": {"severity": "MODERATE"}}, ("medium", None)),
        ({"vector": None, "database_specific": {"severity": "WHATEVER"}}, (None, None)),
        (
            {"vector": None, "severity": [{"type": "CVSS_V4", "score": "CVSS:4.0/AV:N/AC:L/AT:N/PR:N/UI:N/VC:H/VI:H/VA:H/SC:N/SI:N/SA:N"}]},
            ("critical", 9.3),
        ),
    ],
)
def test_how_bad_it_is_comes_from_vectors_then_from_the_word_of_the_database(more, expected):
    assert level_of(advisory("PYSEC-2026-1", "thing", **more)) == expected


def test_the_versions_that_mend_it_are_told_in_their_order():
    found = about({"introduced": "0"}, {"fixed": "1.10"}, {"introduced": "2.0"}, {"fixed": "2.9"}, {"introduced": "1.0"}, {"fixed": "1.9"})
    assert found.fixed_in("thing") == ("1.9", "1.10", "2.9")
    assert found.fixed_in("other") == ()
