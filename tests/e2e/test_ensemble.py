"""Three pipelines of one ensemble write to one topic, and an aggregator finds all that they say of each request."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml
from support.aggregator import Aggregator
from support.client import wait_until
from support.digits import Digit, distinct_digits
from support.fake_clock import FakeClock
from support.full_stack import CONFIG
from support.parts import READY_TIMEOUT_S
from support.service import Service
from support.tenant import Tenant

pytestmark = [pytest.mark.process, pytest.mark.services, pytest.mark.timeout(600)]

PIPELINES = ("pipeline-a", "pipeline-b", "pipeline-c")
REQUESTS = 60
TIME_LIMIT_S = 60


@pytest.fixture(scope="module")
def topic_owner(services_env: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tenant]:
    """The aggregator joins a topic that is there: kafka-python's groups may miss one that is made later."""
    tenant = Tenant(services_env, tmp_path_factory.mktemp("topic"))
    tenant.make_topic()
    yield tenant
    tenant.leave_sinks()


@pytest.fixture(scope="module")
def pipelines(
    services_env: dict[str, str], topic_owner: Tenant, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[list[Service]]:
    """Three services that share nothing but the servers and the topic."""
    with ExitStack() as ending:
        services = []
        for pipeline in PIPELINES:
            folder = tmp_path_factory.mktemp(pipeline)
            tenant = Tenant(services_env, folder)
            ending.callback(tenant.leave)
            variables = tenant.variables | {
                "INFERENCE_PIPELINE_ID": pipeline,
                "INFERENCE_KAFKA__TOPIC": topic_owner.name,
            }
            service = Service(folder, {}, config=ensemble_config(folder), variables=variables)
            ending.callback(service.end)
            service.start(wait=False)
            services.append(service)
        for service in services:
            service.wait_ready(READY_TIMEOUT_S)
        yield services


def ensemble_config(folder: Path) -> Path:
    """configurations/full.yaml as a member of an ensemble, which sends its results to Kafka."""
    settings = yaml.safe_load(CONFIG.read_text(encoding="utf-8"))
    del settings["sinks"], settings["sample_image"]
    config = folder / "ensemble.yaml"
    config.write_text(yaml.safe_dump(settings | {"ensemble": True}), encoding="utf-8")
    return config


def test_the_aggregator_misses_none(pipelines: list[Service], topic_owner: Tenant) -> None:
    digits = {f"request-{number}": digit for number, digit in enumerate(distinct_digits(REQUESTS))}
    clock = FakeClock()
    aggregator = Aggregator(
        topic_owner.env["KAFKA_BOOTSTRAP"],
        topic_owner.name,
        min_messages=len(PIPELINES),
        time_limit_s=TIME_LIMIT_S,
        clock=clock,
    )
    with aggregator, ThreadPoolExecutor(12) as callers:
        asked = [(service, *each) for each in digits.items() for service in pipelines]
        list(callers.map(lambda each: ask(*each), asked))
        wait_until(lambda: len(aggregator.groups) >= REQUESTS, timeout_s=90, what="every request has its group")
        complete = list(aggregator.groups)

        # One that a pipeline never got: its group is given out when its time is up.
        for service in pipelines[:2]:
            ask(service, "incomplete", distinct_digits(1)[0])
        wait_until(lambda: aggregator.waiting("incomplete") == 2, timeout_s=60, what="both answers are there")
        clock.advance(TIME_LIMIT_S + 1)
        wait_until(lambda: len(aggregator.groups) > REQUESTS, timeout_s=60, what="the incomplete group is given out")

    assert sorted(request_id for request_id, _ in complete) == sorted(digits)
    for request_id, messages in complete:
        assert pipeline_ids(messages) == list(PIPELINES)
        assert all(digits[request_id].is_answer(message["prediction"]) for message in messages)
    ((request_id, messages),) = aggregator.groups[REQUESTS:]
    assert (request_id, pipeline_ids(messages)) == ("incomplete", list(PIPELINES[:2]))


def ask(service: Service, request_id: str, digit: Digit) -> None:
    response = service.post(digit.png, request_id=request_id)
    assert response.status_code == requests.codes.ok, response.text


def pipeline_ids(messages: list[dict[str, Any]]) -> list[str]:
    return sorted(message["pipeline_id"] for message in messages)
