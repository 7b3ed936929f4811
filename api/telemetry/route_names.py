"""Names of routes in metrics, log lines and traces: the paths of the description of the API."""

from __future__ import annotations

from functools import cache


@cache
def route_name(rule: str) -> str:
    """Return the path of a rule of Flask as OpenAPI writes it: `/tasks/{task_id}` for `/tasks/<task_id>`."""
    return rule.replace("<", "{").replace(">", "}")
