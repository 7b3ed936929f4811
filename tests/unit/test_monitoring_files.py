"""deploy/monitoring: Prometheus accepts it, each alert is tested, and its runbook is there."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.dashboard import rules
from support.prometheus import CONFIGURATION, run_promtool

RULE_FILES = sorted((CONFIGURATION / "rules").glob("*.yml"))
RULE_TESTS = sorted((CONFIGURATION / "tests").glob("*.yml"))


ALERTS = sorted({rule["alert"] for rule in rules("alert")})


@pytest.mark.parametrize("name", ["prometheus.yml", "local.yml"])
def test_prometheus_accepts_the_configuration(repository: Path, tmp_path: Path, name: str) -> None:
    key = tmp_path / "prometheus-key"
    key.write_text("rk_key\n", encoding="utf-8")
    text = (CONFIGURATION / name).read_text(encoding="utf-8")
    for file in ("rules", "tests"):
        (tmp_path / file).symlink_to(CONFIGURATION / file)
    (tmp_path / name).write_text(text.replace("/run/secrets/prometheus-key", str(key)), encoding="utf-8")

    done = run_promtool(repository, "check", "config", tmp_path / name)

    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(RULE_FILES)} rule files found" in done.stdout


def test_prometheus_accepts_the_rules(repository: Path) -> None:
    done = run_promtool(repository, "check", "rules", "--lint-fatal", *RULE_FILES)

    assert done.returncode == 0, done.stdout + done.stderr


def test_rules_for_prometheus_operator_are_made_as_documented(repository: Path) -> None:
    page = (repository / "docs/monitoring.md").read_text(encoding="utf-8")
    (code,) = (block for block in re.findall(r"```sh\n(.+?)```", page, re.DOTALL) if "PrometheusRule" in block)
    script, _, end = code.partition(" | kubectl ")
    done = subprocess.run(["bash", "-ec", script], cwd=repository, capture_output=True, text=True, check=True)

    made = list(yaml.safe_load_all(done.stdout))
    assert end == "apply -f -\n"
    assert {(one["kind"], one["metadata"]["name"]) for one in made} == {
        ("PrometheusRule", f"inference-{file.stem}") for file in RULE_FILES
    }
    groups = [group for file in RULE_FILES for group in yaml.safe_load(file.read_text(encoding="utf-8"))["groups"]]
    assert sorted(str(group) for one in made for group in one["spec"]["groups"]) == sorted(map(str, groups))


@pytest.mark.parametrize("file", RULE_TESTS, ids=lambda file: file.stem)
def test_alerts_fire_when_they_should(repository: Path, file: Path) -> None:
    done = run_promtool(repository, "test", "rules", file)

    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("alert", ALERTS)
def test_each_alert_is_tested_where_it_fires_and_where_it_does_not(alert: str) -> None:
    cases = [case for file in RULE_TESTS for case in yaml.safe_load(file.read_text(encoding="utf-8"))["tests"]]
    expected = [
        alert in str(query["exp_samples"])
        for case in cases
        for query in case.get("promql_expr_test", [])
        if _may_select(query["expr"], alert)
    ] + [bool(query["exp_alerts"]) for case in cases for query in case.get("alert_rule_test", []) if query["alertname"] == alert]

    assert set(expected) == {True, False}


def _may_select(expression: str, alert: str) -> bool:
    found = re.search(r'alertname(=~?)"([^"]+)"', expression)
    if found is None:  # of a recorded series
        return False
    operator, pattern = found.groups()
    return re.fullmatch(pattern if operator == "=~" else re.escape(pattern), alert) is not None


@pytest.mark.parametrize("rule", rules("alert"), ids=lambda rule: f"{rule['alert']}-{rule['labels']['severity']}")
def test_an_alert_says_what_to_do(repository: Path, rule: dict[str, Any]) -> None:
    page, _, anchor = rule["annotations"]["runbook_url"].partition("#")
    headings = re.findall(r"^## (\w+)$", (repository / page).read_text(encoding="utf-8"), re.MULTILINE)

    assert rule["labels"].keys() == {"severity"}
    assert rule["labels"]["severity"] in {"critical", "warning"}
    assert rule["annotations"].keys() == {"summary", "description", "runbook_url"}
    assert anchor == rule["alert"].lower()
    assert rule["alert"] in headings


def test_no_runbook_is_left_of_an_alert_that_is_gone(repository: Path) -> None:
    page = (repository / "docs/runbooks.md").read_text(encoding="utf-8")

    assert sorted(re.findall(r"^## (Inference\w+)$", page, re.MULTILINE)) == ALERTS
