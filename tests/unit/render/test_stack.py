"""What runs beside a service: hardened alike in compose and Kubernetes, wired to what is there, and without a secret in any file."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import timedelta

import pytest
import yaml

from somaresil import ConfigurationError
from somaresil.render import KINDS, RenderOptions, render
from somaresil.render.images import IMAGES
from somaresil.render.prometheus import slug
from somaresil.runtime_guard import RuntimeRules
from tests.unit.slo.kit import availability

OPTIONS = RenderOptions(
    service="gate/way:1",
    environment="prod",
    slos=(availability(target=99.9),),
    retention=timedelta(days=31),
    page_to="pagerduty",
    ticket_to="webhook+bearer:https://hooks.example:8443/tickets",
    grafana_url="https://grafana.example",
)
COMPOSE = render("compose", OPTIONS)
SERVICES = yaml.safe_load(COMPOSE["compose.yaml"])["services"]
KUBERNETES = render("kubernetes", OPTIONS)
OBJECTS = [document for name, text in KUBERNETES.items() if name != "kustomization.yaml" for document in yaml.safe_load_all(text)]
each_service = pytest.mark.parametrize("service", SERVICES.values(), ids=SERVICES)


def objects(kind):
    return {each["metadata"]["name"]: each for each in OBJECTS if each["kind"] == kind}


DEPLOYMENTS = objects("Deployment")
each_deployment = pytest.mark.parametrize("name", DEPLOYMENTS)


# -- all of them --------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_options_give_the_same_files(kind):
    """To the byte, by names in order, with a line end at the end of each."""
    options = replace(OPTIONS, runtime=RuntimeRules(processes=()))
    files = render(kind, options)
    assert files == render(kind, options)
    assert list(files) == sorted(files)
    for text in files.values():
        assert text.endswith("\n")
        assert "\r" not in text
        assert not re.search(r"\b20\d\d-\d\d-\d\d[T ]\d\d:", text)


@pytest.mark.parametrize("image", IMAGES.values(), ids=IMAGES)
def test_images_are_of_one_version_and_run_as_nobody_of_note(image):
    """A tag with three numbers, never `latest`; a user that is not root."""
    assert re.fullmatch(r"[a-z/-]+:v?\d+\.\d+\.\d+", image.name)
    assert image.user > 0


def test_what_is_wrong_is_told_all_of_it_at_once():
    """Receivers with secrets in them, ports, shares, addresses."""
    with pytest.raises(ConfigurationError) as caught:
        RenderOptions(
            service="gateway",
            page_to="webhook:https://user:secret@hooks.example/",
            ticket_to="mail:me",
            port="HTTP",
            share=2.0,
            slow=0,
            targets=("here",),
            metrics_path="metrics",
            grafana_url="javascript:x",
            series={"state": "x"},
            namespace="Two Words",
        )
    assert [problem.path.removeprefix("RenderOptions.") for problem in caught.value.problems] == [
        "namespace",
        "series",
        "grafana_url",
        "targets[0]",
        "metrics_path",
        "port",
        "page_to",
        "ticket_to",
        "share",
        "slow",
    ]


@pytest.mark.parametrize(("name", "plain"), [("gate/way:1", "gate-way-1"), ("-", "service"), ("A.B", "a-b"), ("x" * 100, "x" * 63)])
def test_names_of_objects_are_names_of_kubernetes(name, plain):
    """Whatever a service is called."""
    assert slug(name) == plain


# -- Alertmanager -------------------------------------------------------------------------------------------------------------------------


def alertmanager(**options):
    return yaml.safe_load(render("alertmanager", RenderOptions(service="gateway", **options))["alertmanager.yml"])


def test_who_is_told_is_asked_for():
    """Until somebody has said it the receivers are addresses that Alertmanager refuses."""
    page, ticket = alertmanager()["receivers"]
    assert page["webhook_configs"][0]["url"] == "set --page-to"
    assert ticket["webhook_configs"][0]["url"] == "set --ticket-to"


def test_secrets_are_files():
    """Keys, tokens and the address of a Slack hook are read from files, each by the name of its receiver."""
    told = alertmanager(page_to="slack:#oncall", ticket_to="pagerduty")
    page, ticket = told["receivers"]
    assert page["slack_configs"][0]["api_url_file"] == "/etc/alertmanager/secrets/page"
    assert ticket["pagerduty_configs"][0]["routing_key_file"] == "/etc/alertmanager/secrets/ticket"
    bearer = alertmanager(page_to="webhook+bearer:https://a.example/x")["receivers"][0]["webhook_configs"][0]
    assert bearer["url"] == "https://a.example/x"
    assert bearer["http_config"]["authorization"]["credentials_file"] == "/etc/alertmanager/secrets/page"


def test_pages_go_first_and_keep_tickets_of_the_same_trouble_back():
    """By severity; a page of an objective keeps back the ticket of the same objective, group, service and environment alone."""
    told = alertmanager(page_to="pagerduty", ticket_to="pagerduty")
    assert [(route["matchers"], route["receiver"]) for route in told["route"]["routes"]] == [
        (['severity="page"'], "page"),
        (['severity="ticket"'], "ticket"),
    ]
    assert told["route"]["receiver"] == "ticket"
    first = told["inhibit_rules"][0]
    assert first["equal"] == ["service", "environment", "slo", "group"]
    assert all({"service", "environment"} <= set(rule["equal"]) for rule in told["inhibit_rules"])
    names = {
        name
        for rule in told["inhibit_rules"]
        for name in re.findall(r"[A-Z]\w+", " ".join(rule["source_matchers"] + rule["target_matchers"]))
    }
    from somaresil.render.alerts import ALERTS, OBJECTIVES

    assert names <= {*OBJECTIVES, *(alert.name for alert in ALERTS), "Group"}


# -- the collector, Loki, Jaeger ----------------------------------------------------------------------------------------------------------

# Their programs cannot be had here, nor schemas of their configurations. These are the keys that we use, as the documentation and the
# sources of the versions that are rendered have them; None stands for a value, {} for a block that may be empty.
OTLP = {"protocols": {"grpc": {"endpoint": None, "max_recv_msg_size_mib": None}, "http": {"endpoint": None, "max_request_body_size": None}}}
SENT = {
    "sending_queue": {"enabled": None, "num_consumers": None, "queue_size": None},
    "retry_on_failure": {"enabled": None, "initial_interval": None, "max_interval": None, "max_elapsed_time": None},
}
POLICY = {
    "name": None,
    "type": None,
    "status_code": {"status_codes": None},
    "latency": {"threshold_ms": None, "upper_threshold_ms": None},
    "boolean_attribute": {"key": None, "value": None, "invert_match": None},
    "string_attribute": {"key": None, "values": None, "invert_match": None},
    "ottl_condition": {"error_mode": None, "span": None, "spanevent": None},
    "probabilistic": {"sampling_percentage": None, "hash_salt": None},
}
FACTS = {
    "otel-collector": {
        "extensions": {"health_check": {"endpoint": None}},
        "receivers": {"otlp": OTLP},
        "processors": {
            "memory_limiter": {"check_interval": None, "limit_percentage": None, "spike_limit_percentage": None},
            "tail_sampling": {"decision_wait": None, "num_traces": None, "expected_new_traces_per_sec": None, "policies": [POLICY]},
            "batch": {"timeout": None, "send_batch_size": None, "send_batch_max_size": None},
        },
        "exporters": {
            "otlp/jaeger": {"endpoint": None, "tls": {"insecure": None}, **SENT},
            "otlphttp/loki": {"endpoint": None, **SENT},
            "prometheus": {
                "endpoint": None,
                "enable_open_metrics": None,
                "metric_expiration": None,
                "resource_to_telemetry_conversion": {"enabled": None},
            },
        },
        "service": {
            "extensions": None,
            "telemetry": {"metrics": {"readers": [{"pull": {"exporter": {"prometheus": {"host": None, "port": None}}}}]}},
            "pipelines": {
                pipeline: {"receivers": None, "processors": None, "exporters": None} for pipeline in ("traces", "logs", "metrics")
            },
        },
    },
    "jaeger": {
        "extensions": {
            "healthcheckv2": {"use_v2": None, "http": {"endpoint": None}},
            "jaeger_storage": {
                "backends": {
                    "traces": {"badger": {"directories": {"keys": None, "values": None}, "ephemeral": None, "ttl": {"spans": None}}}
                }
            },
            "jaeger_query": {"storage": {"traces": None}, "http": {"endpoint": None}, "grpc": {"endpoint": None}},
        },
        "receivers": {"otlp": OTLP},
        "processors": {"batch": {}},
        "exporters": {"jaeger_storage_exporter": {"trace_storage": None}},
        "service": {
            "extensions": None,
            "telemetry": {"resource": {"service.name": None}, "logs": {"level": None}},
            "pipelines": {"traces": {"receivers": None, "processors": None, "exporters": None}},
        },
    },
    "loki": {
        "auth_enabled": None,
        "server": {"http_listen_port": None, "grpc_listen_port": None, "log_level": None},
        "common": {
            "path_prefix": None,
            "replication_factor": None,
            "ring": {"kvstore": {"store": None}},
            "storage": {"filesystem": {"chunks_directory": None, "rules_directory": None}},
        },
        "schema_config": {
            "configs": [
                {"from": None, "store": None, "object_store": None, "schema": None, "index": {"prefix": None, "period": None}},
            ]
        },
        "limits_config": {
            **dict.fromkeys(
                (
                    "allow_structured_metadata",
                    "discover_log_levels",
                    "retention_period",
                    "reject_old_samples",
                    "reject_old_samples_max_age",
                    "ingestion_rate_mb",
                    "ingestion_burst_size_mb",
                    "max_label_names_per_series",
                    "max_line_size",
                    "max_line_size_truncate",
                    "max_global_streams_per_user",
                )
            ),
            "otlp_config": {"resource_attributes": {"ignore_defaults": None, "attributes_config": [{"action": None, "attributes": None}]}},
        },
        "compactor": {"working_directory": None, "retention_enabled": None, "delete_request_store": None},
        "analytics": {"reporting_enabled": None},
    },
}


def unknown(given, facts, path=""):
    """Give the paths of keys that are not in the facts."""
    if facts is None or not isinstance(given, dict | list):
        return []
    if isinstance(given, list):
        return [found for number, each in enumerate(given) for found in unknown(each, facts[0], f"{path}[{number}]")]
    found = [f"{path}.{key}".lstrip(".") for key in given if key not in facts]
    return found + [below for key, value in given.items() if key in facts for below in unknown(value, facts[key], f"{path}.{key}")]


@pytest.mark.parametrize("kind", FACTS)
def test_keys_are_those_that_the_programs_know(kind):
    """Each is in the table of facts; a planted one that is misspelt is not."""
    ((_, text),) = render(kind, OPTIONS).items()
    given = yaml.safe_load(text)
    assert unknown(given, FACTS[kind]) == []
    key = next(iter(given))
    given[f"{key}s"] = given.pop(key)
    assert unknown(given, FACTS[kind]) == [f"{key}s"]


@pytest.mark.parametrize("kind", ["otel-collector", "jaeger"])
def test_pipelines_are_made_of_what_is_defined(kind):
    """Receivers, processors, exporters and extensions by name, and nothing is defined that no pipeline uses."""
    ((_, text),) = render(kind, OPTIONS).items()
    given = yaml.safe_load(text)
    assert set(given["service"]["extensions"]) == set(given["extensions"])
    for what in ("receivers", "processors", "exporters"):
        assert {name for pipeline in given["service"]["pipelines"].values() for name in pipeline[what]} == set(given[what])


def test_traces_of_note_are_kept_whatever_the_share():
    """Those that failed, are slow, were struck or refused, and what a process has kept already; the rest by the share."""
    options = RenderOptions(service="gateway", share=0.1, slow=timedelta(milliseconds=250))
    given = yaml.safe_load(render("otel-collector", options)["otel-collector.yaml"])
    policies = {policy["name"]: policy[policy["type"]] for policy in given["processors"]["tail_sampling"]["policies"]}
    assert list(policies) == ["failed", "slow", "injected", "refused", "told-by-events", "kept-by-a-process", "share"]
    assert policies["slow"] == {"threshold_ms": 250}
    assert policies["share"] == {"sampling_percentage": 10}
    assert policies["refused"] == {"key": "somaresil.outcome", "values": ["bad", "rejected"]}
    for pipeline in given["service"]["pipelines"].values():
        assert pipeline["processors"][0] == "memory_limiter"
        assert pipeline["processors"][-1] == "batch"


def test_labels_of_lines_are_few():
    """The service and its environment; no id of a process, a trace or a guard is a label."""
    given = yaml.safe_load(render("loki", OPTIONS)["loki.yaml"])
    attributes = given["limits_config"]["otlp_config"]["resource_attributes"]
    assert attributes["ignore_defaults"] is True
    ((labels),) = [each["attributes"] for each in attributes["attributes_config"] if each["action"] == "index_label"]
    assert labels == ["service.name", "deployment.environment", "deployment.environment.name"]


# -- compose ------------------------------------------------------------------------------------------------------------------------------


@each_service
def test_nothing_in_compose_may_more_than_it_must(service):
    """Not root, no capability, nothing writable but its data, no network of the host, ports for this machine alone, bounds."""
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", service["user"])
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["networks"] == ["watch"]
    assert not {"privileged", "network_mode", "pid", "cap_add", "devices"} & set(service)
    assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ()))
    assert service["mem_limit"]
    assert service["pids_limit"]
    assert ":latest" not in service["image"]
    # The collector's image has nothing that could ask it.
    assert ("healthcheck" in service) is ("otel" not in service["image"])


@each_service
def test_what_compose_mounts_is_rendered(service):
    """Files and folders beside it, each read-only; volumes by name."""
    volumes = yaml.safe_load(COMPOSE["compose.yaml"])["volumes"]
    for mount in service["volumes"]:
        source, target, *mode = mount.split(":")
        if source in volumes:
            assert mode == []
            continue
        assert mode == ["ro"]
        assert target.startswith("/etc/")
        assert any(name == source[2:] or name.startswith(f"{source[2:]}/") for name in COMPOSE), source


def test_secrets_of_compose_are_files_that_are_not_rendered():
    """Grafana's password and the keys of receivers; each is used, and none is written."""
    document = yaml.safe_load(COMPOSE["compose.yaml"])
    assert document["secrets"] == {
        "grafana_admin": {"file": "./secrets/grafana_admin"},
        "alertmanager_page": {"file": "./secrets/page"},
        "alertmanager_ticket": {"file": "./secrets/ticket"},
    }
    used = {secret["source"] for service in SERVICES.values() for secret in service.get("secrets", ())}
    assert used == set(document["secrets"])
    assert not any(name.startswith("secrets/") for name in COMPOSE)


def test_prometheus_scrapes_what_is_there():
    """The service with its labels, and each program of the stack at a port where it listens."""
    given = yaml.safe_load(COMPOSE["prometheus/prometheus.yml"])
    jobs = {job["job_name"]: job for job in given["scrape_configs"]}
    own = jobs.pop("gate-way-1")
    assert own["static_configs"] == [{"targets": ["host.docker.internal:8000"], "labels": {"service": "gate/way:1", "environment": "prod"}}]
    hosts = {target.partition(":")[0] for job in jobs.values() for each in job["static_configs"] for target in each["targets"]}
    assert hosts <= set(SERVICES)
    assert {"prometheus/rules/somaresil.alerts.rules.yaml", "prometheus/rules/up.rules.yaml"} <= set(COMPOSE)
    assert not any("test.yaml" in name for name in COMPOSE)
    where = RenderOptions(service="gateway", targets=("a:1", "b:2"), metrics_path="/m")
    own = yaml.safe_load(render("prometheus", where)["prometheus.yml"])["scrape_configs"][0]
    assert own["static_configs"][0]["targets"] == ["a:1", "b:2"]
    assert own["metrics_path"] == "/m"


# -- Kubernetes ---------------------------------------------------------------------------------------------------------------------------


@each_deployment
def test_pods_keep_to_the_restricted_profile(name):
    """What the Pod Security Standards ask of it, and more: a root that is read-only, bounds, probes, no token that is not needed."""
    pod = DEPLOYMENTS[name]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] > 0
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod)
    assert all("hostPort" not in port for port in container["ports"])
    assert {next(iter(set(volume) - {"name"})) for volume in pod["volumes"]} <= {
        "configMap",
        "emptyDir",
        "persistentVolumeClaim",
        "projected",
        "secret",
    }
    assert container["resources"]["limits"]["memory"]
    assert container["resources"]["requests"]["cpu"]
    assert {"readinessProbe", "livenessProbe"} <= set(container)
    assert pod["automountServiceAccountToken"] is (name == "prometheus")
    assert ":latest" not in container["image"]


@each_deployment
def test_what_pods_refer_to_is_rendered(name):
    """Accounts, ConfigMaps, claims; the service and the policy select the pods of this deployment; secrets are named and not rendered."""
    deployment = DEPLOYMENTS[name]
    pod, labels = deployment["spec"]["template"]["spec"], deployment["spec"]["template"]["metadata"]["labels"]
    assert pod["serviceAccountName"] in objects("ServiceAccount")
    mounted = {mount["name"] for mount in pod["containers"][0]["volumeMounts"]}
    for volume in pod["volumes"]:
        assert volume["name"] in mounted
        sources = [volume, *volume.get("projected", {}).get("sources", ())]
        for source in sources:
            if "configMap" in source:
                assert source["configMap"]["name"] in objects("ConfigMap")
            if "persistentVolumeClaim" in source:
                assert source["persistentVolumeClaim"]["claimName"] in objects("PersistentVolumeClaim")
    for selector in (
        deployment["spec"]["selector"]["matchLabels"],
        objects("Service")[name]["spec"]["selector"],
        objects("NetworkPolicy")[name]["spec"]["podSelector"]["matchLabels"],
    ):
        assert selector.items() <= labels.items()
    assert objects("Secret") == {}


@each_deployment
def test_policies_let_in_what_others_are_let_out_to(name):
    """Whoever is asked has a port there, and says yes to whom asks; every pod has both directions closed otherwise."""
    policies = objects("NetworkPolicy")
    spec = policies[name]["spec"]
    assert spec["policyTypes"] == ["Ingress", "Egress"]
    ports = {port["port"] for port in objects("Service")[name]["spec"]["ports"]}
    container = {port["containerPort"] for port in DEPLOYMENTS[name]["spec"]["template"]["spec"]["containers"][0]["ports"]}
    assert ports == container
    for rule in spec["egress"]:
        for to in rule.get("to", ()):
            asked = to["podSelector"]["matchLabels"]["app.kubernetes.io/name"]
            if "namespaceSelector" in to:
                assert asked == "gate-way-1"
                continue
            wanted = {port["port"] for port in rule["ports"]}
            let_in = {
                port["port"]
                for each in policies[asked]["spec"]["ingress"]
                for whose in each["from"]
                if whose.get("podSelector", {}).get("matchLabels", {}).get("app.kubernetes.io/name") == name
                for port in each["ports"]
            }
            assert wanted <= let_in
    for rule in spec["ingress"]:
        assert {port["port"] for port in rule["ports"]} <= container


def test_receivers_decide_where_alertmanager_may_go():
    """To the ports of their addresses."""
    egress = objects("NetworkPolicy")["alertmanager"]["spec"]["egress"][-1]
    assert [port["port"] for port in egress["ports"]] == [443, 8443]


def test_a_changed_configuration_is_a_new_pod():
    """Its digest is an annotation of the pod, and of nothing that has not changed."""

    def digests(options):
        found = {}
        for text in render("kubernetes", options).values():
            for each in yaml.safe_load_all(text):
                if each["kind"] == "Deployment":
                    found[each["metadata"]["name"]] = each["spec"]["template"]["metadata"]["annotations"]["somaresil/configuration"]
        return found

    one, other = digests(RenderOptions(service="gateway")), digests(RenderOptions(service="gateway", share=0.5))
    assert {name for name in one if one[name] != other[name]} == {"otel-collector"}


def test_everything_is_in_the_kustomization():
    """Each file, once."""
    assert yaml.safe_load(KUBERNETES["kustomization.yaml"])["resources"] == sorted(set(KUBERNETES) - {"kustomization.yaml"})


def test_prometheus_may_read_pods_and_nothing_else():
    """And needs not even that where it is told the addresses."""
    (role,) = objects("ClusterRole").values()
    assert role["rules"] == [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list", "watch"]}]
    told = render("kubernetes", RenderOptions(service="gateway", targets=("a:1",)))["prometheus.yaml"]
    assert {each["kind"] for each in yaml.safe_load_all(told)} == {
        "ConfigMap",
        "Deployment",
        "NetworkPolicy",
        "PersistentVolumeClaim",
        "Service",
        "ServiceAccount",
    }
    assert "automountServiceAccountToken: true" not in told


def test_either_pods_or_services_are_monitored():
    """Both would count everything twice; the rules are the same."""
    pods, services = render("podmonitor", OPTIONS), render("servicemonitor", OPTIONS)
    assert set(pods) == {"podmonitor.yaml", "prometheusrule.yaml"}
    assert set(services) == {"servicemonitor.yaml", "prometheusrule.yaml"}
    assert pods["prometheusrule.yaml"] == services["prometheusrule.yaml"]
    (endpoint,) = yaml.safe_load(pods["podmonitor.yaml"])["spec"]["podMetricsEndpoints"]
    assert endpoint["relabelings"][0] == {"action": "replace", "targetLabel": "service", "replacement": "gate/way:1"}
    names = [group["name"] for group in yaml.safe_load(pods["prometheusrule.yaml"])["spec"]["groups"]]
    assert len(names) == len(set(names))
