"""Real workers by KEDA's rule, to none and back, on a real Redis: no task is lost."""

from __future__ import annotations

import dataclasses
import uuid
from pathlib import Path

import pytest
import redis
import yaml
from support.model_cache import CACHE_VARIABLE
from support.service import ROOT

from bench.autoscaler import Rule
from bench.autoscaling import by_rule, run
from bench.scaled_service import started

pytestmark = [pytest.mark.process, pytest.mark.services, pytest.mark.timeout(600)]

MANIFEST = ROOT / "deploy/kubernetes/components/keda/scaler/scaled-object.yaml"
#: Tasks of each second: more than one worker is to have, and one alone.
BURST, SINGLE = (30, 30), (1,)
_REDIS_DATABASE = 11


def test_workers_come_and_go_and_no_task_is_lost(services_env: dict[str, str], tmp_path: Path) -> None:
    rule = Rule.of(yaml.safe_load(MANIFEST.read_text(encoding="utf-8"))).faster(100)
    rule = dataclasses.replace(rule, targets=(20, 10), max_workers=2)
    folder = tmp_path / f"digits-{uuid.uuid4().hex[:12]}"
    folder.mkdir()
    url = services_env["REDIS_URL"].rpartition("/")[0] + f"/{_REDIS_DATABASE}"
    try:
        with started(folder, wait_s=0.02, variables=CACHE_VARIABLE, redis_url=url) as service:
            first = run(service, by_rule(rule, service), BURST)
            both = run(service, by_rule(rule, service), SINGLE)
    finally:
        with redis.Redis.from_url(url) as client:
            for key in client.scan_iter(f"*{folder.name}*", count=1000):
                client.delete(key)

    assert (len(first.records), first.refused, first.lost) == (sum(BURST), 0, 0)
    assert (len(both.records), both.refused, both.lost) == (1, 0, 0)
    assert first.peak == 2
    assert (first.workers[-1][1], both.workers[-1][1]) == (0, 0)
    assert (first.starts_from_zero, both.starts_from_zero) == (1, 2)
    assert len(both.worker_s) > len(first.worker_s)
    assert sum(first.worker_s) < first.peak * first.duration_s  # the seconds of a fixed number
