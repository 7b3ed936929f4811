"""Slots of shared memory: each in one hand at a time, seen by every process that has the descriptor."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from inference.models.predictor.arena import SlotArena, padded_sizes
from inference.models.spec import InputSpec

FLOAT = InputSpec(shape=(4, 6, 3), dtype="float32")
BYTES = InputSpec(shape=(2, 2, 1), dtype="uint8")


@pytest.fixture
def make() -> Iterator[Callable[..., SlotArena]]:
    arenas: list[SlotArena] = []

    def make(spec: InputSpec, slots: int, descriptor: int | None = None) -> SlotArena:
        arenas.append(SlotArena(spec, slots, descriptor))
        return arenas[-1]

    yield make
    for arena in arenas:
        if arena._file is not None:
            arena._file.close()


@pytest.mark.parametrize("spec", [FLOAT, BYTES])
def test_slots_are_images_of_the_models_shape_and_dtype(make: Callable[..., SlotArena], spec: InputSpec) -> None:
    arena = make(spec, 5)
    assert arena.slots == 5
    assert len(arena.images) >= 5
    assert arena.images.shape[1:] == spec.shape
    assert arena.images.dtype == spec.numpy_dtype
    assert arena.images.flags.writeable
    assert not arena.images.any()


def test_no_image_reaches_a_disk(make: Callable[..., SlotArena], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "none"))
    arena = make(BYTES, 2)
    assert "memfd:" in str(Path(f"/proc/self/fd/{arena.descriptor}").readlink())
    assert not os.get_inheritable(arena.descriptor)


def test_every_slot_is_handed_out_once(make: Callable[..., SlotArena]) -> None:
    arena = make(BYTES, 3)
    assert {arena.acquire(0) for _ in range(3)} == {0, 1, 2}
    assert arena.acquire(0) is None
    assert arena.acquire(0.01) is None


def test_a_released_slot_is_handed_out_again(make: Callable[..., SlotArena]) -> None:
    arena = make(BYTES, 2)
    slots = [arena.acquire(0) for _ in range(2)]
    arena.release(1)
    assert arena.acquire(0) == 1
    assert arena.acquire(0) is None
    assert sorted(slots) == [0, 1]


def test_the_reserved_slot_is_never_handed_out(make: Callable[..., SlotArena]) -> None:
    """Whoever frees the others always has it, though decoded images fill the rest."""
    arena = make(BYTES, 2)
    arena.images[arena.reserved_slot] = 9
    assert not arena.images[: arena.slots].any()
    arena.release(arena.reserved_slot)
    assert {arena.acquire(0), arena.acquire(0)} == {0, 1}
    assert arena.acquire(0) is None


def test_who_waits_for_a_slot_gets_the_one_that_is_released(make: Callable[..., SlotArena]) -> None:
    arena = make(BYTES, 1)
    slot = arena.acquire(0)
    got: list[int | None] = []
    waiting = threading.Thread(target=lambda: got.append(arena.acquire(10)))
    waiting.start()
    arena.release(slot)
    waiting.join(10)
    assert got == [0]


def test_slots_do_not_overlap(make: Callable[..., SlotArena]) -> None:
    arena = make(FLOAT, 4)
    for slot in range(4):
        arena.images[slot] = slot + 1
    assert [set(arena.images[slot].flat) for slot in range(4)] == [{1}, {2}, {3}, {4}]


def test_two_arenas_of_one_descriptor_share_their_memory(make: Callable[..., SlotArena]) -> None:
    ours = make(FLOAT, 3)
    theirs = make(FLOAT, 3, ours.descriptor)
    image = np.random.default_rng(1).random(FLOAT.shape, dtype=np.float32)
    ours.images[2] = image
    np.testing.assert_array_equal(theirs.images[2], image)
    theirs.images[0] = 7
    assert set(ours.images[0].flat) == {7}


def test_another_process_sees_an_image_and_answers_in_place(make: Callable[..., SlotArena], repository: Path) -> None:
    arena = make(BYTES, 2)
    arena.images[1] = np.arange(4, dtype=np.uint8).reshape(2, 2, 1)
    code = f"""
from inference.models.predictor.arena import SlotArena
from inference.models.spec import InputSpec
arena = SlotArena(InputSpec(shape=(2, 2, 1)), 2, {arena.descriptor})
arena.images[0] = arena.images[1] * 2
"""
    subprocess.run([sys.executable, "-c", code], pass_fds=[arena.descriptor], cwd=repository, check=True)
    assert arena.images[0].flatten().tolist() == [0, 2, 4, 6]


def test_the_memory_has_no_name_that_could_be_left_behind(
    make: Callable[..., SlotArena], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)  # read TMPDIR again
    arena = make(FLOAT, 2)
    arena.images[:] = 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("largest", "sizes"),
    [
        (1, (1,)),
        (2, (1, 2)),
        (3, (1, 2, 3)),
        (4, (1, 2, 4)),
        (5, (1, 2, 4, 5)),
        (32, (1, 2, 4, 8, 16, 32)),
        (33, (1, 2, 4, 8, 16, 32, 33)),
    ],
)
def test_batches_are_padded_to_powers_of_two_and_the_largest(largest: int, sizes: tuple[int, ...]) -> None:
    assert padded_sizes(largest) == sizes
