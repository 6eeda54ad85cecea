"""What is installed: names, licences, origins, and what cannot be read."""

from __future__ import annotations

import sys

import pytest

from somaresil.scan.inventory import paths_of, take_inventory
from tests.unit.scan.kit import install


def test_packages_are_found_by_their_metadata_and_the_first_on_the_path_counts(tmp_path):
    install(
        tmp_path / "a",
        "My.Thing",
        "2.0",
        "License-Expression: MIT OR Apache-2.0",
        "Requires-Dist: other>=1",
        "Requires-Dist: win; sys_platform=='win32'",
        "Requires-Dist: extra; extra=='x'",
    )
    install(tmp_path / "b", "my-thing", "1.0")
    install(tmp_path / "b", "other", "3", "License: BSD", direct={"url": "file:///x", "dir_info": {"editable": True}})
    first, second = take_inventory([str(tmp_path / "a"), str(tmp_path / "b")]).packages
    assert (first.name, first.version, first.licence, first.origin, first.needs) == (
        "my-thing",
        "2.0",
        "MIT OR Apache-2.0",
        "index",
        ("other",),
    )
    assert (second.name, second.licence, second.origin) == ("other", "BSD", "folder")
    assert first.purl == "pkg:pypi/my-thing@2.0"


@pytest.mark.parametrize(
    ("lines", "licence"),
    [
        (("Classifier: License :: OSI Approved :: MIT License",), "MIT"),
        (
            ("Classifier: License :: OSI Approved :: MIT License", "Classifier: License :: OSI Approved :: Apache Software License"),
            "Apache-2.0 AND MIT",
        ),
        (("License: Apache 2.0",), "Apache 2.0"),
        (("License: " + "the whole text " * 20,), None),
        (("License-Expression: MIT", "License: GPL"), "MIT"),
        ((), None),
    ],
)
def test_a_licence_is_told_from_what_the_package_says(tmp_path, lines, licence):
    install(tmp_path, "thing", "1.0", *lines)
    assert take_inventory([str(tmp_path)]).packages[0].licence == licence


def test_metadata_that_cannot_be_read_are_named_and_not_left_out(tmp_path):
    install(tmp_path, "good", "1.0")
    for name, text in (("empty", ""), ("nameless", "Metadata-Version: 2.1\nVersion: 1\n"), ("odd", "Name: a b\nVersion: 1\n")):
        folder = tmp_path / f"{name}-1.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(text, encoding="utf-8")
    install(tmp_path, "broken", "1.0")
    (tmp_path / "broken-1.0.dist-info" / "direct_url.json").write_text("{", encoding="utf-8")
    found = take_inventory([str(tmp_path)])
    assert [package.name for package in found.packages] == ["good"]
    assert len(found.unreadable) == 4


def test_another_interpreter_is_asked_where_its_packages_are(tmp_path):
    assert paths_of(sys.executable)
    with pytest.raises(ValueError, match="No such file"):
        paths_of(str(tmp_path / "python"))
    with pytest.raises(ValueError, match="ended with 1"):
        paths_of("/bin/false")
