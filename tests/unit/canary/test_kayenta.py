import copy
import json
import math
import random
import time

import pytest

from somaresil.canary import kayenta
from somaresil.errors import ConfigurationError

EVEN = [9.0, 10.0, 11.0, 10.0, 9.0, 12.0, 10.0, 11.0, 9.0, 10.0]


def metric(name, groups=("app",), **canary):
    """A metric as a canary config has it, with what a judge does not read."""
    return {
        "name": name,
        "query": {"type": "prometheus", "metricName": name},
        "groups": list(groups),
        "analysisConfigurations": {"canary": canary},
        "scopeName": "default",
    }


def pair(name, control, experiment, **more):
    """Both sides of a metric as Kayenta sends them."""
    values = {"control": control, "experiment": experiment}
    return {"name": name, "id": f"{name}-1", "tags": {"region": "eu"}, "values": values, "scopes": {}, "attributes": {}, **more}


def body(*metrics, pairs, weights=None):
    """A body of POST /judge."""
    return {
        "canaryConfig": {
            "name": "c",
            "configVersion": "1",
            "applications": ["app"],
            "judge": {"name": "NetflixACAJudge-v1.0", "judgeConfigurations": {}},
            "metrics": list(metrics),
            "templates": {},
            "classifier": {"groupWeights": weights or {}},
        },
        "scoreThresholds": {"pass": 95, "marginal": 75},
        "metricSetPairList": list(pairs),
    }


GOOD = body(
    metric("latency", direction="increase", nanStrategy="remove", critical=False, mustHaveData=True),
    metric(
        "errors",
        ("app", "slo"),
        direction="increase",
        nanStrategy="replace",
        critical=True,
        effectSize={"measure": "meanRatio", "allowedIncrease": 1.2, "criticalIncrease": 5},
        outliers={"strategy": "remove", "outlierFactor": 3.0},
    ),
    pairs=[pair("latency", EVEN, EVEN[::-1]), pair("errors", [0.0, "NaN", None, 1.0], [1.0, 0.0, 0.0, "NaN"])],
    weights={"app": 60, "slo": 40},
)


def wrong(changed):
    """Give the paths of what is wrong with a body."""
    with pytest.raises(ConfigurationError) as caught:
        kayenta.answer(changed)
    return [problem.path for problem in caught.value.problems]


def test_a_good_canary_passes_in_the_words_of_kayenta():
    """Every field that it reads is there."""
    said = kayenta.answer(GOOD)
    assert said["judgeName"] == "somaresil"
    assert said["score"]["score"] == 100.0
    assert said["score"]["classification"] == "Pass"
    assert [(each["name"], each["score"]) for each in said["groupScores"]] == [("app", 100.0), ("slo", 100.0)]
    first = said["results"][0]
    assert (first["name"], first["id"], first["tags"]) == ("latency", "latency-1", {"region": "eu"})
    assert (first["classification"], first["groups"], first["critical"]) == ("Pass", ["app"], False)
    assert first["experimentMetadata"]["stats"]["count"] == 10
    assert first["controlMetadata"]["stats"]["mean"] == pytest.approx(10.1)


def test_the_known_miss_fails_and_the_test_for_it_can_be_put_off():
    """Kayenta's own verdict is given by judgeConfigurations.tailTest = false."""
    missed = body(metric("m"), pairs=[pair("m", [1] * 10, [100] * 7 + [1] * 3)])
    said = kayenta.answer(missed)
    assert (said["results"][0]["classification"], said["score"]["classification"]) == ("High", "Fail")
    assert said["results"][0]["resultMetadata"]["ratio"] == pytest.approx(70.3)
    missed["canaryConfig"]["judge"]["judgeConfigurations"]["tailTest"] = False
    assert kayenta.answer(missed)["score"]["classification"] == "Pass"


@pytest.mark.parametrize(
    ("control", "experiment", "options", "expected"),
    [
        (EVEN, [20 + value for value in EVEN], {}, "High"),
        ([20 + value for value in EVEN], EVEN, {}, "Low"),
        (EVEN, [], {}, "Nodata"),
        (EVEN, [], {"mustHaveData": True}, "NodataFailMetric"),
        (EVEN, [], {"mustHaveData": True, "critical": True}, "Nodata"),
        ([], EVEN, {"nanStrategy": "replace"}, "High"),
        (EVEN, ["Infinity"] * 10, {}, "Error"),
        (EVEN, [*EVEN, 10**400], {}, "Error"),
        (EVEN, ["NaN"] * 10, {}, "Nodata"),
        ([0, 0, 0, 0], ["NaN"] * 4, {"nanStrategy": "replace"}, "Pass"),
        ([1, 2, 3, 4], [10, 20, 30, 40], {"direction": "Increase"}, "High"),
        ([1, 2, 3, 4], [10, 20, 30, 40], {"direction": "decrease"}, "Pass"),
        ([10, 20, 30, 40], [10, 20, 30, 40], {"effectSize": {"measure": "cles", "allowedIncrease": 0.7}}, "Pass"),
    ],
)
def test_classifications_have_the_names_of_kayenta(control, experiment, options, expected):
    """High, Low, Pass, Nodata, NodataFailMetric, Error."""
    said = kayenta.answer(body(metric("m", **options), pairs=[pair("m", control, experiment)]))
    assert said["results"][0]["classification"] == expected


def test_a_critical_effect_counts_for_critical_metrics_alone():
    """Kayenta sends the threshold with others too."""
    much = [10 * value for value in EVEN]
    sent = [metric(name, critical=name == "a", effectSize={"criticalIncrease": 20}) for name in "ab"]
    said = kayenta.answer(body(*sent, pairs=[pair("a", EVEN, much), pair("b", EVEN, much)]))
    assert [(each["classification"], each["critical"]) for each in said["results"]] == [("High", False), ("High", False)]


def test_what_is_sent_back_is_plain_json_without_nan():
    """Even when everything that came was NaN and infinite; an Argo condition would read NaN as text."""
    said = kayenta.answer(body(metric("a"), metric("b"), pairs=[pair("a", ["NaN"], [math.inf]), pair("b", [0], [1])]))
    assert "null" not in json.dumps(said, allow_nan=False)


def test_the_documented_fields_may_be_left_out():
    """Kayenta leaves out what has its default."""
    least = {
        "canaryConfig": {"metrics": [{"name": "m"}]},
        "scoreThresholds": {"pass": 90, "marginal": 50},
        "metricSetPairList": [{"name": "m", "values": {"control": EVEN, "experiment": EVEN}}],
    }
    assert kayenta.answer(least)["score"]["classification"] == "Pass"


def changed(change):
    """Give a good body with one thing changed."""
    other = copy.deepcopy(GOOD)
    change(other)
    return other


IN_CANARY = "canaryConfig.metrics[0].analysisConfigurations.canary"


@pytest.mark.parametrize(
    ("change", "path"),
    [
        (lambda b: b.pop("canaryConfig"), "canaryConfig"),
        (lambda b: b.pop("scoreThresholds"), "scoreThresholds"),
        (lambda b: b.pop("metricSetPairList"), "metricSetPairList"),
        (lambda b: b["canaryConfig"].update(metrics=[]), "canaryConfig.metrics"),
        (lambda b: b["canaryConfig"].update(metrics=[3]), "canaryConfig.metrics[0]"),
        (lambda b: b["canaryConfig"].update(metrics=[{}] * 1001), "canaryConfig.metrics"),
        (lambda b: b["canaryConfig"]["metrics"][0].pop("name"), "canaryConfig.metrics[0].name"),
        (lambda b: b["canaryConfig"]["metrics"][0].update(groups=[1]), "canaryConfig.metrics[0].groups[0]"),
        (lambda b: canary(b).update(critcal=True), f"{IN_CANARY}.critcal"),
        (lambda b: canary(b).update(critical="true"), f"{IN_CANARY}.critical"),
        (lambda b: canary(b).update(direction="up"), f"{IN_CANARY}.direction"),
        (lambda b: canary(b).update(direction={}), f"{IN_CANARY}.direction"),
        (lambda b: canary(b).update(nanStrategy="drop"), f"{IN_CANARY}.nanStrategy"),
        (lambda b: canary(b).update(effectSize={"measure": "x"}), f"{IN_CANARY}.effectSize.measure"),
        (lambda b: canary(b).update(effectSize={"allowedIncrease": 0.5}), f"{IN_CANARY}.effectSize.allowedIncrease"),
        (lambda b: canary(b).update(outliers={"strategy": "x"}), f"{IN_CANARY}.outliers.strategy"),
        (lambda b: canary(b).update(outliers=[]), f"{IN_CANARY}.outliers"),
        (lambda b: b["scoreThresholds"].update({"pass": 101}), "scoreThresholds.pass"),
        (lambda b: b["scoreThresholds"].update({"pass": None}), "scoreThresholds.pass"),
        (lambda b: b["scoreThresholds"].update({"marginal": "x"}), "scoreThresholds.marginal"),
        (lambda b: b["canaryConfig"]["classifier"]["groupWeights"].update(app=70), "canaryConfig.classifier.groupWeights"),
        (lambda b: b["canaryConfig"]["judge"]["judgeConfigurations"].update(tailTest=0), "canaryConfig.judge.judgeConfigurations.tailTest"),
        (lambda b: b["metricSetPairList"][0].update(name="latenci"), "metricSetPairList[0].name"),
        (lambda b: b["metricSetPairList"][0].update(id="errors-1"), "metricSetPairList[1].id"),
        (lambda b: b["metricSetPairList"][0].pop("values"), "metricSetPairList[0].values"),
        (lambda b: b["metricSetPairList"][0]["values"].pop("control"), "metricSetPairList[0].values.control"),
        (lambda b: b["metricSetPairList"][0]["values"].update(control="1"), "metricSetPairList[0].values.control"),
        (lambda b: b["metricSetPairList"][0]["values"].update(control=[1, "x"]), "metricSetPairList[0].values.control[1]"),
        (lambda b: b["metricSetPairList"][0]["values"].update(control=[True]), "metricSetPairList[0].values.control[0]"),
        (lambda b: b["metricSetPairList"][0]["values"].update(control=[1] * 10_001), "metricSetPairList[0].values.control"),
        (lambda b: b["metricSetPairList"][0].update(tags={"a": 1}), "metricSetPairList[0].tags.a"),
        (lambda b: b["metricSetPairList"][0].update(tags={str(i): "x" for i in range(51)}), "metricSetPairList[0].tags"),
        (lambda b: b.update(metricSetPairList=[{}] * 2001), "metricSetPairList"),
    ],
)
def test_what_is_wrong_is_told_with_its_path(change, path):
    """In the words of the body, and nothing is judged."""
    assert path in wrong(changed(change))


def canary(other):
    """Give the part of the first metric that a judge reads."""
    return other["canaryConfig"]["metrics"][0]["analysisConfigurations"]["canary"]


def test_everything_wrong_is_told_at_once():
    """Three mistakes in three places."""

    def change(other):
        other["scoreThresholds"]["pass"] = 101
        canary(other)["direction"] = "up"
        other["metricSetPairList"][1]["values"]["experiment"] = None

    assert len(wrong(changed(change))) == 3


@pytest.mark.parametrize("whole", [None, [], 3, "x", {}])
def test_a_body_that_is_none_is_refused(whole):
    """Whatever JSON it is."""
    assert wrong(whole)


def test_values_together_have_a_limit():
    """Eleven pairs of the largest size."""
    pairs = [pair("m", [1.0] * 10_000, [1.0] * 10_000, id=str(place)) for place in range(11)]
    assert wrong(body(metric("m"), pairs=pairs)) == ["metricSetPairList"]


def test_text_is_parsed_within_limits():
    """Too long, too deep, no JSON, no text, and numbers with a million digits."""
    assert kayenta.parse(json.dumps(GOOD).encode()) == GOOD
    hostile = [b"{", b"", b"\xff\xfe\x00", b"[" * 100_000, b"1" * 1_000_000, b" " * (kayenta.MOST_BYTES + 1)]
    for raw in hostile:
        with pytest.raises(ConfigurationError) as caught:
            kayenta.parse(raw)
        assert caught.value.problems[0].path == "body"


@pytest.mark.parametrize(("pairs", "values"), [(10, 10_000), (2000, 50), (2000, 20)])
def test_the_largest_bodies_are_judged_in_seconds(pairs, values):
    """Few long series, and as many as there may be of the length at which p-values cost the most."""
    draw = random.Random(51)
    sides = [[[draw.gauss(0, 1) for _ in range(values)] for _ in range(pairs)] for _ in "ab"]
    large = body(metric("m"), pairs=[pair("m", *both, id=str(place)) for place, both in enumerate(zip(*sides, strict=True))])
    began = time.process_time()
    kayenta.answer(large)
    assert time.process_time() - began < 20


def test_huge_mistakes_are_told_briefly_and_soon():
    """Megabytes of names, thousands of unknown keys and groups."""
    long = "x" * 1_000_000
    hostile = body(
        metric(long, (long,), direction=long, nanStrategy=long, **{f"k{place}": 1 for place in range(20_000)}),
        pairs=[pair(long, [long], [{}])] * 2000,
        weights={f"g{place}": 1 for place in range(50_000)},
    )
    began = time.process_time()
    with pytest.raises(ConfigurationError) as caught:
        kayenta.answer(hostile)
    assert len(caught.value.problems) <= 50
    assert len(str(caught.value)) < 50_000
    assert time.process_time() - began < 5
