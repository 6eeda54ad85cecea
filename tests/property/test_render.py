"""Whatever a service is called and labelled, what is rendered for it is whole, and nothing of it gets out of its place."""

from __future__ import annotations

import re

import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from somaresil.render import KINDS, RenderOptions, render
from somaresil.runtime_guard import RuntimeRules

NAMES = st.text("abcXYZ019_.:/{}-", min_size=1, max_size=120)
LABELS = st.dictionaries(
    st.from_regex(r"[a-z_][a-z0-9_]{0,8}x", fullmatch=True).filter(lambda name: not name.startswith("__")),
    st.text(st.characters(codec="utf-8", categories=["L", "N", "P", "S"]), min_size=1, max_size=20).filter(str.isprintable),
    max_size=3,
)
RUNTIME = RuntimeRules(processes=(), hosts=("10.0.0.0/8",))
NOT_GRAFANA = [kind for kind in KINDS if not kind.startswith("grafana")]
KUBERNETES_NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,251}[a-z0-9])?")


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(service=NAMES, environment=st.none() | NAMES, labels=LABELS, series=st.none() | LABELS, kind=st.sampled_from(NOT_GRAFANA))
def test_every_file_is_read_as_it_was_meant(service, environment, labels, series, kind):
    """YAML that another reader takes; objects with names of Kubernetes; labels of alerts and objects as they were given."""
    options = RenderOptions(service=service, environment=environment, labels=labels, series=series, runtime=RUNTIME)
    for text in render(kind, options).values():
        for document in yaml.safe_load_all(text):
            assert document
            if "metadata" not in document:
                continue
            meta = document["metadata"]
            assert KUBERNETES_NAME.fullmatch(meta["name"])
            for value in meta.get("labels", {}).values():
                assert len(value) <= 63


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(service=NAMES, labels=LABELS)
def test_labels_are_text_and_no_template(service, labels):
    """Braces and quotes of a name stay where they are: every selector has the service, whole and quoted."""
    options = RenderOptions(service=service, labels=labels)
    (group,) = yaml.safe_load(render("prometheus-rules", options)["somaresil.alerts.rules.yaml"])["groups"]
    for rule in group["rules"]:
        assert f'service="{service}"' in rule["expr"]
        assert {name: text.replace('{{"{{"}}', "{{") for name, text in rule["labels"].items()} == {
            "service": service,
            **labels,
            "severity": rule["labels"]["severity"],
        }
