"""The lists of the runtime guard: what they allow, and what is refused in them."""

from __future__ import annotations

import sys

import pytest

from somaresil.errors import ConfigurationError
from somaresil.runtime_guard import RuntimeRules, read_rules
from somaresil.runtime_guard.allowed import Folders, Native, Peers, Programs
from somaresil.runtime_guard.rules import Rule


def test_every_problem_of_rules_is_told_at_once():
    with pytest.raises(ConfigurationError) as refused:
        RuntimeRules(processes="git", hosts=("api:0", "10.0.0.0/64"), writes=("data",), native=("./lib.so",), block=("process", "hosts"))
    paths = [problem.path for problem in refused.value.problems]
    assert paths == [
        "RuntimeRules.processes",
        "RuntimeRules.hosts[0]",
        "RuntimeRules.hosts[1]",
        "RuntimeRules.writes[0]",
        "RuntimeRules.native[0]",
        "RuntimeRules.block",
    ]
    assert "processes" in refused.value.problems[-1].hint


def test_rules_that_look_at_nothing_and_a_refusal_without_a_list_are_refused():
    with pytest.raises(ConfigurationError, match="a list for at least one of"):
        RuntimeRules()
    with pytest.raises(ConfigurationError, match="without processes="):
        RuntimeRules(hosts=(), block=("processes",))


def test_an_empty_list_allows_nothing_but_what_is_this_machine():
    rules = RuntimeRules(processes=(), hosts=(), writes=(), native=())
    assert not rules.programs().allow("/bin/sh", None)
    assert not rules.peers().allow("192.0.2.1", 443)
    assert rules.peers().allow("127.0.0.1", 443)
    assert rules.peers().allow("::1", None)
    assert rules.peers().allow("localhost", 80)
    assert not rules.folders().allow("/tmp/x")
    assert rules.folders().allow("/dev/null")
    assert not rules.libraries().allow("libc.so.6")


def test_a_program_is_the_file_that_runs_in_the_end(tmp_path, monkeypatch):
    real, other = tmp_path / "real", tmp_path / "elsewhere"
    for folder in (real, other):
        folder.mkdir()
        program = folder / "tool"
        program.write_text("#!/bin/sh\n", encoding="utf-8")
        program.chmod(0o755)
    (tmp_path / "link").symlink_to(real / "tool")
    monkeypatch.setenv("PATH", str(real))
    programs = Programs(["tool", "python", "absent"])
    assert programs.allow("tool", None)
    assert programs.allow(str(tmp_path / "link"), None)
    assert programs.allow(sys.executable, None)
    assert not programs.allow(str(other / "tool"), None), "the same name in another folder is another program"
    assert not programs.allow("tool", str(other)), "it is looked for where the child will look for it"
    assert programs.allow("nowhere-to-be-found", None), "what is not there does not run"


def test_hosts_are_compared_by_name_network_and_port():
    peers = Peers(RuntimeRules(hosts=("api.example.com:443", "*.internal", "10.0.0.0/8", "[2001:db8::1]:8000-8010")).targets())
    assert peers.by_name
    assert peers.allow("API.example.com.", None)
    assert peers.allow("api.example.com", 443)
    assert not peers.allow("api.example.com", 80)
    assert not peers.allow("evil-api.example.com", 443)
    assert peers.allow("db.internal", 5432)
    assert peers.allow("10.1.2.3", 1)
    assert peers.allow("::ffff:10.1.2.3", 1)
    assert peers.allow("2001:db8::1", 8005)
    assert not peers.allow("2001:db8::1", 80)
    assert not peers.allow("192.0.2.7", 443)


def test_a_folder_is_not_one_that_begins_with_the_same_letters(tmp_path):
    inside, beside = tmp_path / "data", tmp_path / "database"
    inside.mkdir()
    beside.mkdir()
    folders = Folders([str(inside)])
    assert folders.allow(str(inside))
    assert folders.allow(str(inside / "a" / "b"))
    assert not folders.allow(str(beside / "a"))
    assert Folders(["/"]).allow("/anything")


def test_native_code_is_allowed_by_folder_by_name_and_as_python_s_own(tmp_path):
    native = Native(["python", "libssl.so.*", str(tmp_path)])
    assert native.allow(f"{sys.base_prefix}/lib/python3/lib-dynload/x.so")
    assert native.allow("libssl.so.3")
    assert not native.allow("libcrypto.so.3")
    assert native.allow(str(tmp_path / "own.so"))
    assert not native.allow("/tmp-of-somebody/evil.so")


def test_rules_are_read_from_a_file_and_misspelt_ones_are_told_with_their_line(tmp_path):
    file = tmp_path / "rules.toml"
    file.write_text('[runtime]\nprocesses = ["python"]\nhosts = ["10.0.0.0/8"]\nblock = ["hosts"]\n', encoding="utf-8")
    rules = read_rules(file)
    assert (rules.processes, rules.hosts, rules.writes, rules.block) == (("python",), ("10.0.0.0/8",), None, ("hosts",))
    file.write_text("[runtime]\nhost = []\n", encoding="utf-8")
    with pytest.raises(ConfigurationError, match=r"rules\.toml:2: runtime\.host = .*hosts"):
        read_rules(file)
    with pytest.raises(ConfigurationError, match="a table"):
        read_rules({"runtime": 5})
    with pytest.raises(ConfigurationError, match="a table"):
        read_rules({})


@pytest.mark.parametrize("rule", Rule)
def test_every_rule_has_a_list_of_its_name(rule):
    assert hasattr(RuntimeRules(**{rule.value: ()}), rule.value)
