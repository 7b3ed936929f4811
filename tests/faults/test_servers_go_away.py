"""Servers go away and come back while no supervisor is there: every part goes on as the process that it was."""

from __future__ import annotations

import time

import pytest
import requests
from support.client import wait_until
from support.parts import Parts
from support.tcp_proxy import TcpProxy
from support.unsupervised import Load, pids, succeeds

pytestmark = [pytest.mark.process, pytest.mark.timeout(600)]

REDIS_RESTARTS = 6
RABBITMQ_OUTAGE_S = 5


def test_redis_is_killed_and_started_again_and_again(on_redis: Parts) -> None:
    before, load = pids(on_redis), Load(on_redis)
    with load.run():
        for _ in range(REDIS_RESTARTS):
            time.sleep(2)
            on_redis.kill("broker")
            time.sleep(0.5)
            on_redis.start_broker()
            wait_until(lambda: succeeds(on_redis), timeout_s=60, what="a request is served again")
    assert pids(on_redis) == before
    assert load.statuses <= {202, 503}
    assert len(load.accepted) > REDIS_RESTARTS
    ends = {on_redis.task(task_id, wait_s=30)["status"] for task_id in load.accepted}
    assert ends == {"succeeded"}


@pytest.mark.services
def test_rabbitmq_goes_away_without_load(on_rabbitmq: Parts, rabbitmq: TcpProxy) -> None:
    before = pids(on_rabbitmq)
    assert succeeds(on_rabbitmq)
    rabbitmq.cut()
    answers, until_s = [], time.monotonic() + RABBITMQ_OUTAGE_S
    while time.monotonic() < until_s:
        answers.append(requests.get(f"{on_rabbitmq.url}/health/ready", timeout=30))
        assert pids(on_rabbitmq) == before
        time.sleep(0.3)
    assert {answer.status_code for answer in answers} <= {200, 503}, answers[-1].text
    assert answers[-1].status_code == requests.codes.unavailable
    assert answers[-1].json()["checks"]["broker"] != "ok"
    rabbitmq.mend()
    wait_until(lambda: succeeds(on_rabbitmq), timeout_s=60, what="a request is served again")
    assert pids(on_rabbitmq) == before
