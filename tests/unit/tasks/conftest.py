"""Fixtures of the worker's tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from pipeline_rig import FakePredictor, MakeRig, Rig, wait_until
from support.models import load_spec

from inference.models.predictor.arena import SlotArena
from inference.models.spec import ModelSpec
from inference.storage.local import LocalObjectStore
from inference.task_store.redis_store import RedisTaskStore, StorePolicy


@pytest.fixture(scope="session")
def digits(repository: Path) -> ModelSpec:
    return load_spec(repository / "models" / "digits")


@pytest.fixture
def store(redis_client: redis.Redis, key_prefix: str) -> RedisTaskStore:
    return RedisTaskStore(redis_client, StorePolicy(key_prefix=key_prefix))


@pytest.fixture
def objects(tmp_path: Path) -> LocalObjectStore:
    return LocalObjectStore(tmp_path / "objects")


@pytest.fixture
def stores(store: RedisTaskStore, objects: LocalObjectStore) -> tuple[RedisTaskStore, LocalObjectStore]:
    return store, objects


@pytest.fixture
def make_arena(digits: ModelSpec) -> Iterator[Callable[[int], SlotArena]]:
    arenas: list[SlotArena] = []

    def make(slots: int) -> SlotArena:
        arenas.append(SlotArena(digits.input, slots))
        return arenas[-1]

    yield make
    for arena in arenas:
        arena._file.close()


@pytest.fixture(scope="session")
def ended_rigs() -> Iterator[list[Rig]]:
    """Their threads end by themselves within a second; waited for once, at the end."""
    rigs: list[Rig] = []
    yield rigs
    for rig in rigs:
        for stage in rig.stages:
            assert stage.join(10), f"{stage.name} does not end"


@pytest.fixture
def make_rig(
    digits: ModelSpec,
    stores: tuple[RedisTaskStore, LocalObjectStore],
    make_arena: Callable[[int], SlotArena],
    ended_rigs: list[Rig],
    request: pytest.FixtureRequest,
) -> Iterator[MakeRig]:
    """Makes pipelines; after the test each must hold nothing, have every slot free again, and no thread may have failed."""
    rigs: list[Rig] = []
    failed_before = request.session.testsfailed

    def make(
        *, spec: ModelSpec = digits, slots: int = 10, predictor: Any = None, arena: SlotArena | None = None, **options: Any
    ) -> Rig:
        arena = arena or make_arena(slots)
        predictor = predictor or FakePredictor({spec.name: arena})
        store, objects = stores
        rig = Rig(spec=spec, store=store, objects=objects, arena=arena, predictor=predictor, **options)
        rigs.append(rig)
        return rig

    yield make
    try:
        for rig in rigs if request.session.testsfailed == failed_before else ():
            if not any(stage.stopping.is_set() for stage in rig.stages):
                wait_until(lambda rig=rig: len(rig.held) == 0, "a pipeline that holds nothing")
                wait_until(rig.every_slot_is_free, f"free slots: {rig.free_slots()} of {rig.arena.slots}")
            assert rig.faults == []
    finally:
        for rig in rigs:
            rig.predictor.gate.set()
            for stage in rig.stages:
                stage.stop()
        ended_rigs += rigs


@pytest.fixture
def rig(make_rig: MakeRig) -> Rig:
    """A running pipeline: batches of up to 4, 10 slots."""
    return make_rig().start()
