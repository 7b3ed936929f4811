"""Fixtures of the model reloader's tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from reloader_rig import World

from inference.models.spec import ModelSpec
from inference.rollout.desired_state import RolloutStore
from tasks.worker import model_reloader


@pytest.fixture
def desired(redis_client: redis.Redis, key_prefix: str) -> RolloutStore:
    return RolloutStore(redis_client, key_prefix)


@pytest.fixture
def world(digits: ModelSpec, desired: RolloutStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    monkeypatch.setattr(model_reloader, "POLL_INTERVAL_S", 0.01)
    world = World(digits, desired, tmp_path)
    yield world
    world.reloader.stop()
    for process in world.processes:
        process.gate.set()
    assert world.reloader.join(10)
    assert world.faults == []
