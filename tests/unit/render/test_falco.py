"""The same rules for Falco: a file that reads as YAML, says what the lists say, and cannot be steered by what stands in them."""

from __future__ import annotations

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from somaresil.cli import main
from somaresil.errors import ConfigurationError
from somaresil.render.falco import falco_rules
from somaresil.runtime_guard import RuntimeRules

SCOPE = "k8s.pod.label[app] = gateway"


def rendered(**lists):
    text = falco_rules(RuntimeRules(**lists), service="gateway", scope=SCOPE)
    return text, {each.get("rule") or each.get("macro"): each for each in yaml.safe_load(text)}


def test_each_list_becomes_a_rule_and_what_has_no_list_none():
    _, found = rendered(hosts=("10.0.0.0/8", "api.example.com:443"), writes=("/var/lib/gateway",))
    assert list(found) == ["somaresil_gateway", "somaresil gateway hosts", "somaresil gateway writes"]
    assert found["somaresil_gateway"]["condition"] == f"({SCOPE})"
    hosts = found["somaresil gateway hosts"]
    assert hosts["condition"].startswith("somaresil_gateway and evt.type in (connect, sendto, sendmsg)")
    assert 'not (fd.snet in ("10.0.0.0/8"))' in hosts["condition"]
    assert 'not (fd.sip.name = "api.example.com" and fd.sport >= 443 and fd.sport <= 443)' in hosts["condition"]
    assert set(hosts) == {"rule", "desc", "condition", "output", "priority", "tags"}
    assert 'not (fd.name = "/var/lib/gateway" or fd.name startswith "/var/lib/gateway/")' in found["somaresil gateway writes"]["condition"]


def test_a_pattern_over_names_is_a_note_and_every_host_is_no_rule_that_fires():
    text, found = rendered(hosts=("*.internal", "*"))
    assert "# *.internal: Falco has no patterns over names" in text
    assert "evt.num < 0" in found["somaresil gateway hosts"]["condition"]


def test_all_four_lists_are_there_and_the_same_lists_give_the_same_text():
    lists = {"processes": ("python",), "hosts": (), "writes": ("/b", "/a"), "native": ("python", "/opt/own")}
    text, found = rendered(**lists)
    assert len(found) == 5
    assert rendered(**lists)[0] == text
    assert '"/opt/own/"' in found["somaresil gateway native"]["condition"]


@pytest.mark.parametrize("scope", ["", "always", "a = b\n- rule: x", "proc.name = 'x'", "x" * 400 + " = y"])
def test_a_scope_that_is_no_condition_is_refused(scope):
    with pytest.raises(ConfigurationError, match="one condition of Falco"):
        falco_rules(RuntimeRules(hosts=()), service="gateway", scope=scope)
    with pytest.raises(ConfigurationError, match="priority"):
        falco_rules(RuntimeRules(hosts=()), service="gateway", scope=SCOPE, priority="loud")


@given(folder=st.text(st.characters(exclude_characters="\0", exclude_categories=("Cs",)), min_size=1, max_size=40))
def test_no_folder_can_end_its_own_text(folder):
    text, found = rendered(writes=("/" + folder,))
    assert len(found) == 2
    assert len(yaml.safe_load(text)) == 2


@pytest.mark.parametrize("service", ["{", "a:{b", "0", "--", "a{b}"])
def test_a_name_that_yaml_would_read_otherwise_is_text(service):
    text = falco_rules(RuntimeRules(processes=(), hosts=("10.0.0.0/8",)), service=service, scope=SCOPE)
    _, processes, hosts = yaml.safe_load(text)
    assert processes["rule"] == f"somaresil {service} processes"
    assert hosts["desc"] == f"{service} speaks to a host that is in no list of its rules"


def test_the_command_writes_it_from_a_file_and_says_what_is_missing(tmp_path, capsys):
    file = tmp_path / "rules.toml"
    file.write_text("[runtime]\nprocesses = []\n", encoding="utf-8")
    assert main(["render", "falco", "--service", "gateway", "--runtime", str(file)]) == 0
    assert "k8s.pod.label[app.kubernetes.io/name] = gateway" in capsys.readouterr().out
    assert main(["render", "falco", "--service", "gateway"]) == 2
    assert "--runtime FILE" in capsys.readouterr().err
