"""Predictor processes of one worker, one for each device: all of them start, or none."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
from support.fake_process import FakeProcess
from support.models import load_spec

from inference.domain import ModelRef
from inference.errors import ConfigurationError
from inference.models.loading import load_model
from inference.models.predictor.arena import SlotArena
from inference.models.predictor.device_predictors import DevicePredictors
from inference.models.spec import ModelSpec
from inference.settings import GpuSettings

ROOT = Path(__file__).parents[4]


class TestStarting:
    """All of the processes, or none of those that were down."""

    @pytest.fixture
    def processes(self) -> list[FakeProcess]:
        return [FakeProcess({name: ModelRef(name, "1", "sha256:0")}) for name in ("a", "b", "c")]

    @pytest.fixture
    def predictors(self, processes: list[FakeProcess]) -> DevicePredictors:
        predictors = DevicePredictors({}, max_batch_size=2, predict_timeout_s=30, load_timeout_s=120, gpu=GpuSettings())
        predictors._processes = list(processes)  # type: ignore[arg-type]
        return predictors

    def test_each_is_started(self, predictors: DevicePredictors, processes: list[FakeProcess]) -> None:
        assert predictors.start(lambda: False)
        assert set(predictors.loaded) == {"a", "b", "c"}
        assert [process.starts for process in processes] == [1, 1, 1]

    @pytest.mark.parametrize("number", [0, 1, 2])
    def test_where_one_cannot_load_its_models_none_is_left(
        self, predictors: DevicePredictors, processes: list[FakeProcess], number: int
    ) -> None:
        processes[number].fails = "no such model"
        with pytest.raises(ConfigurationError, match="no such model"):
            predictors.start(lambda: False)
        assert [process.is_running for process in processes] == [False, False, False]
        processes[number].fails = ""
        assert predictors.start(lambda: False)
        assert set(predictors.loaded) == {"a", "b", "c"}

    def test_where_it_should_stop_meanwhile_none_is_left(
        self, predictors: DevicePredictors, processes: list[FakeProcess]
    ) -> None:
        assert not predictors.start(lambda: processes[0].is_running)
        assert [process.is_running for process in processes] == [False, False, False]

    def test_those_that_ran_before_go_on(self, predictors: DevicePredictors, processes: list[FakeProcess]) -> None:
        """One died, and does not come up again: the others' models are served."""
        assert predictors.start(lambda: False)
        processes[2].is_running = False
        processes[2].fails = "the file has gone"
        with pytest.raises(ConfigurationError, match="the file has gone"):
            predictors.start(lambda: False)
        assert [process.is_running for process in processes] == [True, True, False]


@pytest.mark.process
class TestPredictors:
    """One process for each device. Where there is no GPU they all run on the CPU, and say so."""

    @pytest.fixture(scope="class")
    def models(self) -> Iterator[dict[str, tuple[ModelSpec, SlotArena]]]:
        digits = load_spec(ROOT / "models" / "digits")
        devices = {"a": "cpu", "b": "gpu", "c": "cpu", "d": None, "e": "gpu:0"}
        specs = {name: digits.model_copy(update={"name": name, "device": device}) for name, device in devices.items()}
        arenas = {name: SlotArena(spec.input, 2) for name, spec in specs.items()}
        for number, arena in enumerate(arenas.values()):
            arena.images[:] = np.random.default_rng(number).uniform(0, 255, arena.images.shape)
        yield {name: (specs[name], arenas[name]) for name in specs}
        for arena in arenas.values():
            assert arena._file is not None
            arena._file.close()

    def test_models_of_one_device_share_a_process(self, models: dict[str, tuple[ModelSpec, SlotArena]], tmp_path: Path) -> None:
        predictors = DevicePredictors(
            models, max_batch_size=2, predict_timeout_s=30, load_timeout_s=120, gpu=GpuSettings(lock_dir=tmp_path)
        )
        with ExitStack() as stack:
            stack.callback(predictors.stop)
            assert predictors.start(lambda: False)
            assert set(predictors.loaded) == set(models)
            answers = {name: predictors.predict(name, [0, 1]).values for name in models}
            processes = {name: process.pid for name, process in predictors._by_model.items()}
        assert processes["a"] == processes["c"] != processes["b"] == processes["d"] == processes["e"]
        for name, (spec, arena) in models.items():
            np.testing.assert_allclose(answers[name], load_model(spec).predict(arena.images[:2]), atol=1e-5)
