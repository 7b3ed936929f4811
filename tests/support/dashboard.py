"""The Grafana dashboard, and the expressions of dashboard and rules."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from support.prometheus import CONFIGURATION

FILE = Path(__file__).parents[2] / "deploy/monitoring/grafana/dashboards/inference.json"
#: Name of a recorded series.
_RECORDED = r"\b[a-z]+:\w+:\w+"
#: Values that Grafana puts in the place of its variables.
_VARIABLES = {"$model": ".*", "$__rate_interval": "1m"}


def load() -> dict[str, Any]:
    document: dict[str, Any] = json.loads(FILE.read_text(encoding="utf-8"))
    return document


def targets() -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Each query with its panel."""
    for panel in load()["panels"]:
        for target in panel.get("targets", []):
            yield panel, target


def filled(expression: str) -> str:
    """An expression with values in the place of Grafana's variables."""
    for variable, value in _VARIABLES.items():
        expression = expression.replace(variable, value)
    assert "$" not in expression, expression
    return expression


def queries() -> list[str]:
    """Each query of the dashboard, once."""
    return sorted({filled(target["expr"]) for _, target in targets()})


def rules(kind: str) -> list[dict[str, Any]]:
    """All rules of a kind, `alert` or `record`."""
    documents = [yaml.safe_load(file.read_text(encoding="utf-8")) for file in sorted((CONFIGURATION / "rules").glob("*.yml"))]
    return [rule for document in documents for group in document["groups"] for rule in group["rules"] if kind in rule]


def expressions() -> list[str]:
    """Each expression of the dashboard and of the rules."""
    return [*queries(), *(rule["expr"] for kind in ("record", "alert") for rule in rules(kind))]


def selectors(expression: str) -> Iterator[tuple[str, dict[str, str]]]:
    """Names of the service's metrics in an expression, each with the labels and values that are selected."""
    without_recorded = re.sub(_RECORDED, "recorded", expression)
    for found in re.finditer(r"\b((?:inference|process)_\w+)(?:\{([^}]*)\})?", without_recorded):
        yield found[1], dict(re.findall(r'(\w+)\s*(?:=~|!~|!=|=)\s*"([^"]*)"', found[2] or ""))


def recorded(expression: str) -> set[str]:
    """Names of recorded series in an expression."""
    return set(re.findall(_RECORDED, expression))
