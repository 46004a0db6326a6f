"""The dashboard and the alert rules name metrics that exist, as Prometheus reads them."""

import json
import re
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import pytest
import yaml

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
