"""deploy/monitoring: the dashboard is what Grafana reads, and asks for metrics and labels that are documented."""

from __future__ import annotations

import re
from collections import Counter
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import yaml
from support import dashboard
from support.prometheus import run_promtool

from inference.metrics.registry import DURATION_BUCKETS

ROOT = Path(__file__).parents[2]
#: Labels that Prometheus adds to each series, or that belong to a histogram.
_ADDED_LABELS = {"job", "instance", "le"}
_HISTOGRAM = re.compile(r"_(bucket|sum|count)$")
_PANEL_TYPES = {"row", "timeseries", "stat", "table"}


def documented() -> dict[str, set[str]]:
    """Labels of each metric in docs/metrics.md, by its name; of a histogram, by the names of its series."""
    text = (ROOT / "docs/metrics.md").read_text(encoding="utf-8")
    found: dict[str, set[str]] = {}
    for name, kind, labels in re.findall(r"^\| `(\w+)` \| (\w+) \| ([^|]*)\|", text, re.MULTILINE):
        suffixes = ("_bucket", "_sum", "_count") if kind == "histogram" else ("",)
        found |= {f"{name}{suffix}": set(re.findall(r"`(\w+)`", labels)) for suffix in suffixes}
    return found


METRICS = documented()
EXPRESSIONS = dashboard.expressions()


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_metrics_and_labels_of_an_expression_are_documented(expression: str) -> None:
    recorded = {rule["record"] for rule in dashboard.rules("record")}

    assert dashboard.recorded(expression) <= recorded
    for name, labels in dashboard.selectors(expression):
        assert name in METRICS
        assert labels.keys() <= METRICS[name] | _ADDED_LABELS
    for grouping in re.findall(r"\bby \(([^)]*)\)", expression):
        named = {label.strip() for label in grouping.split(",")}
        known = set().union(*(METRICS[name] for name, _ in dashboard.selectors(expression)), _ADDED_LABELS)
        assert named <= known


def test_each_metric_of_the_service_is_used() -> None:
    used = {_HISTOGRAM.sub("", name) for expression in EXPRESSIONS for name, _ in dashboard.selectors(expression)}
    families = {_HISTOGRAM.sub("", name) for name in METRICS}

    assert families - used == {"process_virtual_memory_bytes"}


def test_limits_of_durations_are_bounds_of_buckets() -> None:
    limits = {labels["le"] for expression in EXPRESSIONS for _, labels in dashboard.selectors(expression) if "le" in labels}

    assert limits
    assert {float(limit) for limit in limits} <= set(DURATION_BUCKETS)


def test_recorded_series_are_used() -> None:
    used = set().union(*map(dashboard.recorded, EXPRESSIONS))

    assert {rule["record"] for rule in dashboard.rules("record")} <= used


def test_prometheus_can_parse_each_query(repository: Path, tmp_path: Path) -> None:
    rules = [{"record": f"query:{number}", "expr": query} for number, query in enumerate(dashboard.queries())]
    file = tmp_path / "queries.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "queries", "rules": rules}]}), encoding="utf-8")

    done = run_promtool(repository, "check", "rules", file)

    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(rules)} rules found" in done.stdout


# ---- what Grafana reads ----


def test_dashboard_has_the_fields_that_grafana_needs() -> None:
    document = dashboard.load()

    assert document["uid"] == "inference-service"
    assert document["schemaVersion"] >= 39
    assert {panel["type"] for panel in document["panels"]} == _PANEL_TYPES
    for panel in document["panels"]:
        assert panel["title"]
        assert ("targets" in panel) == (panel["type"] != "row")
        if panel["type"] != "row":
            assert panel["fieldConfig"].keys() == {"defaults", "overrides"}
            assert panel["options"]


def test_ids_of_panels_and_queries_are_unique() -> None:
    document = dashboard.load()

    assert max(Counter(panel["id"] for panel in document["panels"]).values()) == 1
    for panel in document["panels"]:
        references = [target["refId"] for target in panel.get("targets", [])]
        assert len(set(references)) == len(references)


def test_panels_do_not_overlap() -> None:
    places = [panel["gridPos"] for panel in dashboard.load()["panels"]]

    assert all(place["x"] >= 0 and place["x"] + place["w"] <= 24 for place in places)
    assert [pair for pair in combinations(places, 2) if _overlap(*pair)] == []


def _overlap(one: dict[str, int], other: dict[str, int]) -> bool:
    return (
        one["x"] < other["x"] + other["w"]
        and other["x"] < one["x"] + one["w"]
        and one["y"] < other["y"] + other["h"]
        and other["y"] < one["y"] + one["h"]
    )


def test_each_query_asks_the_chosen_data_source() -> None:
    variables = {variable["name"]: variable for variable in dashboard.load()["templating"]["list"]}
    sources = [source for panel, target in dashboard.targets() for source in (panel["datasource"], target["datasource"])]

    assert variables["datasource"]["type"] == "datasource"
    assert variables["datasource"]["query"] == "prometheus"
    assert all(
        source == {"type": "prometheus", "uid": "${datasource}"} for source in [*sources, variables["model"]["datasource"]]
    )
    used = set(re.findall(r"\$\{?([a-z]\w*)", str([target["expr"] for _, target in dashboard.targets()])))
    assert used == variables.keys() - {"datasource"}


def test_legends_name_labels_of_their_query() -> None:
    for panel, target in dashboard.targets():
        named = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
        expression: str = target["expr"]
        kept = {label.strip() for labels in re.findall(r"\bby \(([^)]*)\)", expression) for label in labels.split(",")}
        kept |= _labels_of_recorded(expression)
        if "by (" not in expression and "sum(" not in expression:
            kept |= {"job", "instance"}
        assert named <= kept, f"{panel['title']}: {target['legendFormat']}"


def _labels_of_recorded(expression: str) -> set[str]:
    levels: dict[str, set[str]] = {"inference": set()}
    return set().union(*(levels.get(name.partition(":")[0], {name.partition(":")[0]}) for name in dashboard.recorded(expression)))


def test_grafana_takes_the_interval_of_the_scrapes() -> None:
    def read(file: str) -> dict[str, Any]:
        document: dict[str, Any] = yaml.safe_load((ROOT / "deploy/monitoring" / file).read_text(encoding="utf-8"))
        return document

    (source,) = read("grafana/provisioning/datasources/prometheus.yml")["datasources"]
    intervals = {read(f"prometheus/{name}")["global"]["scrape_interval"] for name in ("prometheus.yml", "local.yml")}

    assert {source["jsonData"]["timeInterval"]} == intervals
