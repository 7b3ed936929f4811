"""A real Prometheus scrapes a running service: alerts fire, and every expression of rules and dashboard has an answer."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from support import dashboard
from support.client import wait_until
from support.prometheus import Prometheus, prometheus
from support.service import ROOT, Service

pytestmark = pytest.mark.process

DIGIT = ROOT / "samples" / "digit_7.png"
#: Expressions that a healthy service on its embedded default has no answer to: alerts that fire, keys, certificates.
_EMPTY = re.compile(r"^ALERTS|owner_open_tasks|certificate_not_after|> 0$")
#: Alerts that a slow machine, a small disk, or what other tests have left, may raise.
_OF_OTHERS = {"InferenceLatencyBudgetBurning", "InferenceDiskFull", "InferenceDeadLetters"}
_OF_A_WORKER = {"InferenceTargetDown", "InferenceJobAbsent", "InferenceNoWorkerForModel"}
_TIMEOUT_S = 60


@pytest.fixture(scope="module")
def scraping(service: Service, repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """Prometheus, which has seen the service classify images."""
    ports = yaml.safe_load(service.config.read_text(encoding="utf-8"))["monitoring"]
    targets = {
        "inference-api": f"127.0.0.1:{service.port}",
        "inference-worker": f"127.0.0.1:{ports['worker_port']}",
        "inference-relay": f"127.0.0.1:{ports['relay_port']}",
    }
    with prometheus(repository, tmp_path_factory.mktemp("prometheus"), targets) as running:

        def counts_images() -> bool:
            service.post(DIGIT, model="digits")
            return bool(running.query('rate(inference_deliveries_total{outcome="delivered"}[1m]) > 0'))

        wait_until(counts_images, timeout_s=_TIMEOUT_S, what="Prometheus has counted results")
        yield running


def test_each_part_is_scraped(scraping: Prometheus) -> None:
    up = {sample["metric"]["job"]: sample["value"][1] for sample in scraping.query("up")}

    assert up == {"inference-api": "1", "inference-worker": "1", "inference-relay": "1"}


def test_each_expression_has_an_answer(scraping: Prometheus) -> None:
    """Expressions of alerts need no sample: one says that something is wrong."""
    recorded = [rule["expr"] for rule in dashboard.rules("record")]
    for rule in dashboard.rules("alert"):
        scraping.query(rule["expr"])

    expressions = [expression for expression in [*dashboard.queries(), *recorded] if not _EMPTY.search(expression)]

    def unanswered() -> list[str]:
        return [expression for expression in expressions if not scraping.query(expression)]

    with contextlib.suppress(AssertionError):  # the list says more
        wait_until(lambda: not unanswered(), timeout_s=_TIMEOUT_S, what="all answers")
    assert unanswered() == []


def test_labels_that_queries_group_by_are_there(scraping: Prometheus) -> None:
    for query in dashboard.queries():
        grouping = {label.strip() for labels in re.findall(r"\bby \(([^)]*)\)", query) for label in labels.split(",")}
        if query.startswith("histogram_quantile"):
            grouping.discard("le")
        for sample in scraping.query(query):
            assert grouping <= sample["metric"].keys(), query


def test_no_alert_fires_for_a_healthy_service(scraping: Prometheus) -> None:
    groups = scraping.get("rules")["groups"]
    rules = [rule for group in groups for rule in group["rules"]]

    assert len(rules) == len(dashboard.rules("record")) + len(dashboard.rules("alert"))
    wait_until(
        lambda: all(rule["health"] == "ok" for group in scraping.get("rules")["groups"] for rule in group["rules"]),
        timeout_s=_TIMEOUT_S,
        what="every rule was evaluated without an error",
    )
    assert scraping.alerts() - _OF_OTHERS == set()


def test_alerts_are_raised_while_the_worker_stands_still(service: Service, scraping: Prometheus) -> None:
    (worker,) = service.processes("worker")
    worker.suspend()
    try:
        # without a task, no worker is no reason for an alert
        service.submit(DIGIT, model="digits")
        wait_until(lambda: scraping.alerts() >= _OF_A_WORKER, timeout_s=_TIMEOUT_S, what="the alerts are raised")
    finally:
        worker.resume()
    wait_until(lambda: not scraping.alerts() & _OF_A_WORKER, timeout_s=_TIMEOUT_S, what="all is well again")
