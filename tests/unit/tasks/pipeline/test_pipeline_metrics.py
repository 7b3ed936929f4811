"""Counts of a pipeline: ends, stages, batches, attempts, and tasks that it lost."""

from __future__ import annotations

import pytest
from pipeline_rig import Rig, wait_until
from support.metrics import Growth

OUTCOMES = ("succeeded", "failed", "expired", "canceled", "dead_letter")
STAGES = ("queue", "fetch", "decode", "batch_wait")


@pytest.fixture
def growth(rig: Rig) -> Growth:
    return Growth()


def outcomes(growth: Growth) -> dict[str, float]:
    """Values that have grown."""
    found = {outcome: growth.of("images_total", model="digits", outcome=outcome) for outcome in OUTCOMES}
    return {outcome: count for outcome, count in found.items() if count}


def observed(growth: Growth, stage: str) -> float:
    return growth.of("stage_duration_seconds_count", model="digits", stage=stage)


def hold(rig: Rig) -> None:
    """Image 0 runs until the gate is opened."""
    rig.predictor.gate.clear()
    rig.send(0)
    wait_until(lambda: rig.predictor.batches, "a running batch")


def test_images_that_succeed(rig: Rig, growth: Growth) -> None:
    hold(rig)
    others = rig.send(1, 2, 3)
    rig.await_decoded(3)
    rig.predictor.gate.set()
    rig.await_done(others)
    wait_until(lambda: growth.of("images_total", model="digits", outcome="succeeded") == 4, "all are counted")
    assert outcomes(growth) == {"succeeded": 4}
    assert {stage: observed(growth, stage) for stage in STAGES} == dict.fromkeys(STAGES, 4)
    assert {stage: observed(growth, stage) for stage in ("predict", "commit")} == {"predict": 2, "commit": 2}
    assert growth.of("stage_duration_seconds_sum", model="digits", stage="predict") == pytest.approx(2 * 0.0015)
    assert growth.of("batch_size_images_count", model="digits") == 2
    assert growth.of("batch_size_images_sum", model="digits") == 4
    assert growth.of("task_attempts_total", model="digits") == 4
    assert growth.of("leases_lost_total", model="digits") == 0


def test_images_that_fail_or_expire(rig: Rig, growth: Growth) -> None:
    rig.await_done(rig.send(1, data=b"broken"))
    rig.await_done(rig.send(2, deadline_s=0.001))
    assert outcomes(growth) in ({"failed": 1, "expired": 1}, {"failed": 1})  # the store may have expired it before
    assert growth.of("task_attempts_total", model="digits") == 0


def test_an_image_that_kills_its_process_counts_each_attempt(rig: Rig, growth: Growth) -> None:
    rig.predictor.crashes_on[1] = 1000
    rig.await_done(rig.send(1))
    assert outcomes(growth) == {"dead_letter": 1}
    assert growth.of("task_attempts_total", model="digits") == 3


def test_a_task_that_ends_elsewhere_is_lost(rig: Rig, growth: Growth) -> None:
    hold(rig)
    rig.store.cancel(rig.task_id(0))
    waiting = rig.send(1)
    rig.await_decoded(1)
    rig.store.cancel(rig.task_id(1))
    rig.predictor.gate.set()
    rig.await_done(waiting)
    wait_until(lambda: len(rig.held) == 0, "both are dropped")
    assert outcomes(growth) == {}
    assert growth.of("leases_lost_total", model="digits") == 2


def test_a_revoked_task_is_canceled(rig: Rig, growth: Growth) -> None:
    hold(rig)
    (inbox,) = rig.send(1)
    inbox.revoked = True
    rig.await_decoded(1)
    rig.predictor.gate.set()
    rig.await_done([inbox])
    wait_until(lambda: len(rig.held) == 0, "the end of the first")
    assert outcomes(growth) == {"succeeded": 1, "canceled": 1}
    assert growth.of("leases_lost_total", model="digits") == 0
