"""The predictor process of a converted model: without TensorFlow, and with no process that converts left behind."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
from support.models import load_spec
from support.waiting import until

from inference.errors import ConfigurationError
from inference.models.predictor import client
from inference.models.predictor.arena import SlotArena
from inference.models.predictor.client import PredictorProcess
from inference.models.spec import ModelSpec

pytestmark = [
    pytest.mark.process,
    pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs Linux's /proc to see what is loaded"),
]

CONVERTER = "inference.models.loading.tensorflow.conversion_process"


@pytest.fixture
def digits(repository: Path, tmp_path: Path) -> ModelSpec:
    """Model with an empty cache of its own."""
    return load_spec(repository / "models" / "digits").model_copy(update={"conversions_dir": tmp_path / "cache"})


@pytest.fixture
def arena(digits: ModelSpec) -> Iterator[SlotArena]:
    arena = SlotArena(digits.input, 4)
    arena.images[:] = np.random.default_rng(3).uniform(0, 255, arena.images.shape)
    yield arena
    assert arena._file is not None
    arena._file.close()


def predictor_of(spec: ModelSpec, arena: SlotArena, load_timeout_s: float = 120) -> PredictorProcess:
    return PredictorProcess({spec.name: (spec, arena)}, max_batch_size=4, predict_timeout_s=30, load_timeout_s=load_timeout_s)


def converters(pid: int | None) -> list[psutil.Process]:
    """Processes that convert below the predictor `pid`."""
    try:
        return [child for child in psutil.Process(pid).children() if CONVERTER in child.cmdline()]
    except psutil.NoSuchProcess:
        return []


def is_alive(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_neither_the_first_nor_a_later_start_imports_tensorflow(digits: ModelSpec, arena: SlotArena) -> None:
    reasons, answers = [], []
    for _ in range(2):
        predictor = predictor_of(digits, arena)
        try:
            assert predictor.start(lambda: False)
            assert "tensorflow" not in Path(f"/proc/{predictor.pid}/maps").read_text(encoding="utf-8")
            assert converters(predictor.pid) == []
            loaded = predictor.loaded["digits"]
            assert loaded.runtime == "LiteRT"
            reasons.append(loaded.runtime_reason)
            answers.append(predictor.predict("digits", [0, 1, 2, 3]).values)
        finally:
            predictor.stop()
    assert [reason.startswith("from the cache; measured ") for reason in reasons] == [False, True]
    np.testing.assert_array_equal(*answers)


def test_a_stop_while_it_converts_ends_the_conversion(digits: ModelSpec, arena: SlotArena) -> None:
    predictor = predictor_of(digits, arena)
    seen: list[psutil.Process] = []

    def converts() -> bool:
        seen.extend(converters(predictor.pid))
        return bool(seen)

    assert predictor.start(converts) is False
    until(lambda: not any(is_alive(child) for child in seen), "the end of the conversion")
    assert [file.name for file in (digits.conversions_dir or Path()).iterdir()] == ["lock"]


def test_the_limit_of_loading_holds_while_it_converts(
    digits: ModelSpec, arena: SlotArena, monkeypatch: pytest.MonkeyPatch
) -> None:
    predictor = predictor_of(digits, arena)
    seen: list[psutil.Process] = []

    class Clock:
        @staticmethod
        def monotonic() -> float:
            """Stands still until the conversion runs."""
            return 1e6 if seen else 0.0

    monkeypatch.setattr(client, "time", Clock)

    def watch() -> bool:
        seen.extend(converters(predictor.pid))
        return False

    with pytest.raises(ConfigurationError, match=r"loading took more than 120 s"):
        predictor.start(watch)
    until(lambda: not any(is_alive(child) for child in seen), "the end of the conversion")
