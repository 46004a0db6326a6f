"""The dashboard and the alert rules name metrics that exist, as Prometheus reads them."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import pytest
import yaml
from compose_spec import PyCompose

from tests.deployment import DEPLOY
from tests.test_deployment import check, program

_METRIC = re.compile(r"\b(orthanc_graphql|process)_(\w+)")
_SUFFIXES = ("_bucket", "_sum", "_count")

PROCESS = {"cpu_seconds_total", "resident_memory_bytes", "open_fds", "max_fds"}
"""Of the Prometheus client, on Linux."""

RULES = DEPLOY / "prometheus-alerts.yml"


def documented() -> dict[str, set[str]]:
    """The names and labels of docs/monitoring.md, which are those that `/metrics` has."""
    text = DEPLOY.parent.joinpath("docs", "monitoring.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \| \w+ \| ([\w, ]*) ?\|", text, re.MULTILINE)
    return {name: set(re.findall(r"\w+", labels)) for name, labels in rows}


def rules() -> list[Mapping[str, Any]]:
    groups = cast("Any", yaml.safe_load(RULES.read_text(encoding="utf-8")))["groups"]
    return [rule for group in groups for rule in group["rules"]]


def dashboard() -> Mapping[str, Any]:
    text = (DEPLOY / "grafana-dashboard.json").read_text(encoding="utf-8")
    return cast("Mapping[str, Any]", json.loads(text))


def targets() -> Iterator[Mapping[str, str]]:
    for panel in dashboard()["panels"]:
        yield from panel.get("targets", [])


def expressions() -> list[str]:
    return [target["expr"] for target in targets()] + [rule["expr"] for rule in rules()]


def metrics_in(expression: str) -> set[str]:
    names = set()
    for prefix, name in _METRIC.findall(expression):
        if prefix == "process":
            assert name in PROCESS, name
            continue
        base = name
        for suffix in _SUFFIXES:
            base = base.removesuffix(suffix)
        names.add(base if base in documented() else name)
    return names


@pytest.mark.parametrize("expression", expressions())
def test_an_expression_names_metrics_and_labels_that_exist(expression: str) -> None:
    names = metrics_in(expression)
    assert names <= documented().keys()
    known = {"job", "instance", "le"}.union(*(documented()[name] for name in names))
    for labels in re.findall(r"\bby \(([^)]*)\)", expression):
        assert set(re.findall(r"\w+", labels)) <= known
    for label in re.findall(r"[{,]\s*(\w+)\s*=~?", expression):
        assert label in known


def test_every_metric_is_on_the_dashboard() -> None:
    shown = set[str]().union(*(metrics_in(target["expr"]) for target in targets()))
    assert documented().keys() - shown == {"build_info"}


def test_every_alert_says_what_to_do() -> None:
    for rule in rules():
        assert re.fullmatch(r"OrthancGraphql[A-Z]\w+", rule["alert"])
        assert rule["labels"]["severity"] in {"warning", "critical"}
        assert set(rule["annotations"]) == {"summary", "action"}


def test_the_panels_have_places_of_their_own() -> None:
    panels = dashboard()["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken
        taken |= cells
    for target in targets():
        labels = re.findall(r"\{\{(\w+)\}\}", target["legendFormat"])
        assert all(label in target["expr"] or label == "instance" for label in labels)


def test_prometheus_reads_the_rules() -> None:
    said = check(program("promtool"), "check", "rules", RULES)
    assert f"SUCCESS: {len(rules())} rules found" in said


def test_prometheus_reads_the_expressions_of_the_dashboard(tmp_path: Path) -> None:
    promtool = program("promtool")
    interval = {"$__rate_interval": "5m", "$__range": "6h"}
    recorded = []
    for number, target in enumerate(targets()):
        expression = target["expr"]
        for name, value in interval.items():
            expression = expression.replace(name, value)
        recorded.append({"record": f"dashboard:{number}", "expr": expression})
    path = tmp_path / "rules.yml"
    path.write_text(json.dumps({"groups": [{"name": "all", "rules": recorded}]}), encoding="utf-8")
    done = subprocess.run(  # noqa: S603  # a program of this machine
        [promtool, "check", "rules", str(path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


P = "orthanc_graphql_"
SERIES = {
    # Value every 30 s, in the notation of promtool.
    f'{P}feed_is_following{{instance="a"}}': "1x20 0x20 0x20",
    f'{P}feed_is_following{{instance="b"}}': "0x20 0x20 1x20",
    f'{P}comparison_last_success_timestamp_seconds{{instance="a"}}': "0x300",
    f'{P}comparison_last_success_timestamp_seconds{{instance="b"}}': "60x300",
    f'{P}audit_records_waiting{{instance="a"}}': "0x20 2000x20 0x20",
    f'{P}graphql_errors_total{{instance="a", code="INTERNAL_ERROR"}}': "0x20 0+1x40",
    f'{P}graphql_errors_total{{instance="a", code="INVALID_INPUT"}}': "0+9x60",
    f'{P}frame_queue_length{{instance="a"}}': "0x20 60x20 0x20",
    f'{P}frame_queue_limit{{instance="a"}}': "64x60",
    f'{P}event_loop_lag_seconds_bucket{{instance="a", le="0.1"}}': "0+4x60",
    f'{P}event_loop_lag_seconds_bucket{{instance="a", le="0.5"}}': "0+100x60",
    f'{P}event_loop_lag_seconds_bucket{{instance="a", le="+Inf"}}': "0+100x60",
    f'{P}jobs_total{{instance="a", kind="SEND", state="SUCCEEDED"}}': "0+1x60",
    f'{P}jobs_total{{instance="a", kind="SEND", state="FAILED"}}': "0x30 1x30",
}
JOB = {"job": "orthanc-graphql"}
FIRING: dict[str, tuple[str, str, dict[str, str]]] = {
    "NobodyFollows": ("5m", "15m", JOB),
    "NotCompared": ("1h", "2h2m", JOB),
    "AuditWaits": ("5m", "15m", JOB | {"instance": "a"}),
    "InternalErrors": ("9m", "20m", {"instance": "a"}),
    "FrameQueueFull": ("5m", "15m", JOB | {"instance": "a"}),
    "EventLoopLags": ("1m", "20m", {"instance": "a"}),
    "JobsFail": ("10m", "20m", JOB | {"kind": "SEND"}),
}
"""When an alert must be silent, and when it must fire with which labels."""


def test_alerts_fire_when_they_should(tmp_path: Path) -> None:
    promtool = program("promtool")
    # The texts have values in them: rules without them are compared.
    plain = [{key: rule[key] for key in rule if key != "annotations"} for rule in rules()]
    severities = {rule["alert"]: rule["labels"] for rule in plain}
    wanted: list[dict[str, object]] = []
    for name, (silent_at, firing_at, labels) in FIRING.items():
        alert = f"OrthancGraphql{name}"
        firing = [{"exp_labels": severities[alert] | labels}]
        wanted.append({"alertname": alert, "eval_time": silent_at, "exp_alerts": []})
        wanted.append({"alertname": alert, "eval_time": firing_at, "exp_alerts": firing})
    rules_path, tests_path = tmp_path / "rules.json", tmp_path / "tests.json"
    rules_path.write_text(
        json.dumps({"groups": [{"name": "all", "rules": plain}]}), encoding="utf-8"
    )
    series = [
        {"series": name.replace("{", '{job="orthanc-graphql", '), "values": values}
        for name, values in SERIES.items()
    ]
    test = {"interval": "30s", "input_series": series, "alert_rule_test": wanted}
    content = {"rule_files": [str(rules_path)], "evaluation_interval": "30s", "tests": [test]}
    tests_path.write_text(json.dumps(content), encoding="utf-8")
    check(promtool, "test", "rules", tests_path)


MONITORING = DEPLOY / "monitoring"


def loaded(path: Path) -> dict[str, Any]:
    return cast("dict[str, Any]", yaml.safe_load(path.read_text(encoding="utf-8")))


def test_prometheus_and_grafana_fit_beside_the_containers() -> None:
    base, overlay = loaded(DEPLOY.parent / "compose.yaml"), loaded(MONITORING / "compose.yaml")
    merged = {
        **base,
        "networks": base["networks"] | overlay["networks"],
        "volumes": base["volumes"] | overlay["volumes"],
        "services": base["services"]
        | {name: service for name, service in overlay["services"].items() if name != "server"},
    }
    compose = PyCompose.from_json(json.dumps(merged))
    compose.validate()
    compose.validate_networks()
    compose.validate_volumes()
    for name in ("prometheus", "grafana"):
        service = overlay["services"][name]
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert re.fullmatch(r"[\w/]+:v?\d+\.\d+\.\d+", service["image"])
        assert all(port.startswith("127.0.0.1:") for port in service["ports"])
        mounted = [volume.split(":")[0] for volume in service["volumes"]]
        files = [DEPLOY.parent / one for one in mounted if one.startswith("./")]
        assert len(files) == len(mounted) - 1
        assert [file for file in files if not file.is_file()] == []
    # What is there before is changed by metrics alone.
    assert overlay["services"]["server"].keys() == {"environment", "networks"}


def test_prometheus_asks_the_port_of_the_server(tmp_path: Path) -> None:
    server = loaded(MONITORING / "compose.yaml")["services"]["server"]
    [job] = loaded(MONITORING / "prometheus.yml")["scrape_configs"]
    port = server["environment"]["METRICS_PORT"]
    assert job["static_configs"] == [{"targets": [f"server:{port}"]}]
    assert {expression for expression in expressions() if 'job="' in expression} != set()
    assert job["job_name"] == "orthanc-graphql"
    promtool = program("promtool")
    shutil.copy(MONITORING / "prometheus.yml", tmp_path)
    shutil.copy(RULES, tmp_path / "alerts.yml")
    check(promtool, "check", "config", tmp_path / "prometheus.yml")


def test_grafana_finds_prometheus_and_the_dashboard() -> None:
    grafana = loaded(MONITORING / "compose.yaml")["services"]["grafana"]
    [source] = loaded(MONITORING / "grafana-datasource.yml")["datasources"]
    assert (source["type"], source["url"]) == ("prometheus", "http://prometheus:9090")
    [provider] = loaded(MONITORING / "grafana-dashboards.yml")["providers"]
    folder = provider["options"]["path"]
    [shown] = [one.split(":")[1] for one in grafana["volumes"] if "dashboard.json" in one]
    assert shown.startswith(f"{folder}/")
    assert grafana["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"] == shown
    assert dashboard()["templating"]["list"][0]["query"] == source["type"]
