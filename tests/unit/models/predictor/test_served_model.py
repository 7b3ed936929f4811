"""A batch that runs in several sizes is answered as one that does not."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from support.models import load_spec

from inference.models.loading import load_model
from inference.models.predictor.arena import SlotArena, padded_sizes
from inference.models.predictor.batch_plan import plan_batches
from inference.models.predictor.process import ServedModel
from inference.models.predictor.protocol import LoadModel

LARGEST = 8
COSTS = {
    "split": {1: 9.0, 2: 4.0, 4: 5.0, 8: 99.0},
    "one by one": {1: 1.0, 2: 90.0, 4: 90.0, 8: 90.0},
    "padded": {1: 90.0, 2: 90.0, 4: 90.0, 8: 1.0},
}


@pytest.fixture(scope="module")
def arena(repository: Path) -> Iterator[SlotArena]:
    spec = load_spec(repository / "models" / "digits")
    arena = SlotArena(spec.input, LARGEST)
    arena.images[:] = np.random.default_rng(8).uniform(0, 255, arena.images.shape)
    yield arena
    assert arena._file is not None
    arena._file.close()


@pytest.fixture(scope="module")
def model(repository: Path, arena: SlotArena) -> ServedModel:
    spec = load_spec(repository / "models" / "digits")
    return ServedModel(LoadModel(spec, arena.descriptor, arena.slots), padded_sizes(LARGEST), load_model(spec))


@pytest.mark.parametrize("cost_ms", COSTS.values(), ids=COSTS)
def test_the_plan_does_not_show_in_the_answers(
    model: ServedModel, arena: SlotArena, monkeypatch: pytest.MonkeyPatch, cost_ms: dict[int, float]
) -> None:
    expected = model._model.predict(arena.images)
    monkeypatch.setattr(model, "_plans", plan_batches(cost_ms, LARGEST))
    for count in range(1, LARGEST + 1):
        slots = tuple(np.random.default_rng(count).permutation(LARGEST)[:count].tolist())
        predictions = model.predict(slots)
        assert predictions.shape == (count, 10)
        np.testing.assert_allclose(predictions, expected[list(slots)], atol=1e-5)


def test_it_says_what_runs_it_and_how_long_one_image_takes(model: ServedModel) -> None:
    loaded = model.loaded()
    assert (loaded.model, loaded.output_size, loaded.runtime) == ("digits", 10, "LiteRT")
    assert loaded.predict_ms > 0
