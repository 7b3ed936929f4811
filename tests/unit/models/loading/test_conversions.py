"""The cache of converted models: each damage to it costs a conversion, never an answer."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import keras
import numpy as np
import pytest
from support.models import spec_of

from inference.errors import ConfigurationError
from inference.models.loading import conversions, dispatch, load_models
from inference.models.loading.conversions import Converted, find_choice, lite_model
from inference.models.loading.model import LITE, TENSORFLOW
from inference.models.loading.tensorflow import convert
from inference.models.spec import ModelSpec
from inference.settings import GpuSettings

SHAPE = (12, 10, 3)
SIZES = (1, 2, 4)


def save(file: Path, seed: int, *layers: keras.Layer) -> None:
    keras.utils.set_random_seed(seed)
    body = [keras.layers.Rescaling(1 / 255), *layers, keras.layers.Flatten(), keras.layers.Dense(5, activation="softmax")]
    keras.Sequential([keras.Input(SHAPE), *body]).save(file)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    save(folder / "m.keras", 5)
    save(folder / "other.keras", 6)
    save(folder / "area.keras", 7, keras.layers.Resizing(7, 5, interpolation="area"))  # LiteRT lacks it
    return folder


@pytest.fixture
def spec(models: Path, tmp_path: Path) -> ModelSpec:
    return described(models, tmp_path / "cache")


def described(models: Path, cache: Path, file: str = "m.keras", **options: Any) -> ModelSpec:
    found = spec_of(models, name="net", file=file, input={"shape": SHAPE} | options.pop("input", {}), **options)
    return found.model_copy(update={"conversions_dir": cache})


def folder_of(spec: ModelSpec) -> Path:
    assert spec.conversions_dir is not None
    return spec.conversions_dir


class Conversions:
    """Conversions that this process runs instead of one of its own, counted; of equal ones, the first result is given again."""

    _results: ClassVar[dict[Any, Converted]] = {}

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, spec: ModelSpec, batch_sizes: tuple[int, ...]) -> Converted:
        self.count += 1
        described = spec.model_copy(update={"conversions_dir": None}).model_dump_json()
        key = (described, *batch_sizes, convert._measure_rates, convert._CLEAR_GAIN)
        if key not in self._results:
            self._results[key] = convert.convert_measured(spec, batch_sizes)
        return self._results[key]


@pytest.fixture(autouse=True)
def _tensorflow_has_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let TensorFlow compute in this process, so that its number of threads cannot be set any more."""
    monkeypatch.setattr("inference.models.loading.tensorflow.devices._set_threads", lambda _: None)


@pytest.fixture
def converted(monkeypatch: pytest.MonkeyPatch) -> Conversions:
    counted = Conversions()
    monkeypatch.setattr(conversions, "_convert", counted)
    monkeypatch.setattr("inference.models.loading.tensorflow.convert._CLEAR_GAIN", 1e9)  # LiteRT, whatever is measured
    return counted


def find(spec: ModelSpec) -> tuple[str, str]:
    choice, graph = find_choice(spec, SIZES, folder_of(spec))
    assert (graph is not None) == (choice.runtime == LITE)
    return choice.runtime, choice.reason


def the_file(spec: ModelSpec, suffix: str) -> Path:
    (file,) = folder_of(spec).glob(f"*{suffix}")
    return file


def test_a_second_start_takes_the_first_ones_graph(spec: ModelSpec, converted: Conversions) -> None:
    first = find(spec)
    runtime, reason = find(spec)
    assert (first[0], runtime, converted.count) == (LITE, LITE, 1)
    assert reason.startswith("from the cache; measured ")
    choice, graph = find_choice(spec, SIZES, folder_of(spec))
    assert graph is not None
    images = np.random.default_rng(1).integers(0, 256, (3, *SHAPE), np.uint8)
    np.testing.assert_allclose(
        lite_model(spec, choice, graph).predict(images), dispatch.load_model(spec).predict(images), atol=1e-5
    )


def test_a_graph_from_the_cache_has_the_activation_of_its_description(tmp_path: Path, converted: Conversions) -> None:
    keras.utils.set_random_seed(8)
    layers = [keras.layers.Rescaling(1 / 255), keras.layers.Flatten(), keras.layers.Dense(1)]
    keras.Sequential([keras.Input(SHAPE), *layers]).save(tmp_path / "m.keras")
    images = np.random.default_rng(1).integers(0, 256, (3, *SHAPE), np.uint8)
    answers = {}
    for activation in ("sigmoid", "none", "sigmoid"):
        spec = described(tmp_path, tmp_path / "cache", output={"activation": activation})
        choice, graph = find_choice(spec, SIZES, folder_of(spec))
        assert graph is not None
        answers[activation] = lite_model(spec, choice, graph).predict(images)
    assert converted.count == 2
    second = 1 / (1 + np.exp(-answers["none"]))
    np.testing.assert_allclose(answers["sigmoid"], np.concatenate([1 - second, second], axis=1), atol=1e-6)


DAMAGES: dict[str, Callable[[ModelSpec], object]] = {
    "torn graph": lambda spec: os.truncate(the_file(spec, ".tflite"), 1000),
    "empty graph": lambda spec: os.truncate(the_file(spec, ".tflite"), 0),
    "other graph": lambda spec: the_file(spec, ".tflite").write_bytes(b"x" * 5000),
    "no graph": lambda spec: the_file(spec, ".tflite").unlink(),
    "torn record": lambda spec: os.truncate(the_file(spec, ".json"), 20),
    "empty record": lambda spec: os.truncate(the_file(spec, ".json"), 0),
    "record of another form": lambda spec: the_file(spec, ".json").write_text('{"runtime": "LiteRT"}', encoding="utf-8"),
    "record that is a list": lambda spec: the_file(spec, ".json").write_text("[1]", encoding="utf-8"),
    "record that is no text": lambda spec: the_file(spec, ".json").write_bytes(b"\xff\xfe"),
    "no record": lambda spec: the_file(spec, ".json").unlink(),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_entry_is_made_again(spec: ModelSpec, converted: Conversions, damage: Callable[[ModelSpec], object]) -> None:
    find(spec)
    damage(spec)
    assert not find(spec)[1].startswith("from the cache")
    assert converted.count == 2
    assert find(spec)[1].startswith("from the cache")


def test_a_graph_that_litert_cannot_read_is_made_again(
    spec: ModelSpec, converted: Conversions, caplog: pytest.LogCaptureFixture
) -> None:
    """An entry whose digest is right: written by a version of LiteRT with the same number, say."""
    find(spec)
    graph = the_file(spec, ".tflite")
    graph.write_bytes(b"no graph")
    record = json.loads(the_file(spec, ".json").read_text(encoding="utf-8"))
    record["graph_sha256"] = conversions.file_sha256(graph)
    the_file(spec, ".json").write_text(json.dumps(record), encoding="utf-8")
    find(spec)
    assert converted.count == 2
    assert "net: its entry in the cache of converted models cannot be used" in caplog.text


OTHERS: dict[str, Callable[[pytest.MonkeyPatch], None]] = {
    "version": lambda patch: patch.setattr(conversions, "_version", lambda package: f"{package} 99"),
    "version of the service": lambda patch: patch.setattr(conversions, "__version__", "0.0.1"),
    "CPU": lambda patch: patch.setattr(conversions, "_cpu", lambda: ["another CPU"]),
    "number of threads": lambda patch: patch.setattr(conversions, "usable_cores", lambda: 1),
}


@pytest.mark.parametrize("change", OTHERS.values(), ids=OTHERS)
def test_an_entry_of_another_is_not_taken(
    spec: ModelSpec, converted: Conversions, monkeypatch: pytest.MonkeyPatch, change: Callable[[pytest.MonkeyPatch], None]
) -> None:
    find(spec)
    change(monkeypatch)
    find(spec)
    assert converted.count == 2


def test_other_batch_sizes_are_measured_again(spec: ModelSpec, converted: Conversions) -> None:
    find_choice(spec, (1, 2), folder_of(spec))
    find_choice(spec, (1, 2, 4), folder_of(spec))
    assert converted.count == 2


def test_descriptions_share_an_entry_if_their_graphs_are_the_same(spec: ModelSpec, models: Path, converted: Conversions) -> None:
    find(spec)
    find(described(models, folder_of(spec), labels=list("abcde"), threshold=0.5, version="2"))
    of_pixels = {"raw": "pixels", "resize": "stretch", "crop_fraction": 0.9, "interpolation": "bilinear"}
    find(described(models, folder_of(spec), input=of_pixels))
    assert converted.count == 1
    find(described(models, folder_of(spec), input={"dtype": "float32"}))
    find(described(models, folder_of(spec), file="other.keras"))
    assert converted.count == 3


def test_labels_are_checked_with_a_cached_graph_too(spec: ModelSpec, models: Path, converted: Conversions) -> None:
    find(spec)
    wrong = described(models, folder_of(spec), labels=["a", "b"])
    with pytest.raises(ConfigurationError, match=r"there are 2 labels, and the model in m\.keras has 5 classes"):
        load_models([wrong], SIZES, GpuSettings(), {})
    assert converted.count == 1


def test_a_model_that_litert_lacks_is_not_converted_again(models: Path, tmp_path: Path, converted: Conversions) -> None:
    spec = described(models, tmp_path, file="area.keras")
    for _ in range(2):
        (model,) = load_models([spec], SIZES, GpuSettings(), {}).values()
        assert model.runtime == TENSORFLOW
        assert model.predict(np.zeros((3, *SHAPE), np.uint8)).shape == (3, 5)
    assert model.reason == "from the cache; LiteRT lacks an operation of this model"
    assert converted.count == 1


def test_the_faster_library_runs_the_model(spec: ModelSpec, converted: Conversions, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("inference.models.loading.tensorflow.convert._CLEAR_GAIN", 1.1)
    monkeypatch.setattr("inference.models.loading.tensorflow.convert._measure_rates", lambda *_: {LITE: 100.0, TENSORFLOW: 250.0})
    for _ in range(2):
        (model,) = load_models([spec], SIZES, GpuSettings(), {}).values()
        assert model.runtime == TENSORFLOW
    assert model.reason == "from the cache; measured 2.5 times LiteRT's rate"
    assert not list(folder_of(spec).glob("*.tflite"))


def test_both_libraries_rates_are_measured(spec: ModelSpec) -> None:
    choice = convert.convert_measured(spec, SIZES).choice
    other = TENSORFLOW if choice.runtime == LITE else LITE
    assert choice.reason.startswith("measured ")
    assert choice.reason.endswith(f" times {other}'s rate")


def test_a_cache_that_cannot_be_written_is_done_without(
    spec: ModelSpec, converted: Conversions, caplog: pytest.LogCaptureFixture
) -> None:
    """A file in the place of its folder, since root may write to any folder."""
    folder_of(spec).write_text("a file", encoding="utf-8")
    for _ in range(2):
        (model,) = load_models([spec], SIZES, GpuSettings(), {}).values()
        assert model.runtime == LITE
    assert converted.count == 2
    assert "net: the converted model is not kept" in caplog.text


def test_a_full_disk_keeps_nothing(spec: ModelSpec, converted: Conversions, caplog: pytest.LogCaptureFixture) -> None:
    full = spec.model_copy(update={"min_free_bytes": 2**62})
    assert find(full)[0] == LITE
    assert [file.name for file in folder_of(spec).iterdir()] == ["lock"]
    assert "uploads.min_free_disk_mb" in caplog.text


def test_four_entries_of_one_name_are_kept(spec: ModelSpec, models: Path, converted: Conversions) -> None:
    find(spec.model_copy(update={"name": "another"}))
    for size in range(2, 8):
        find_choice(described(models, folder_of(spec), file="other.keras"), (1, size), folder_of(spec))
    names = [json.loads(record.read_text(encoding="utf-8"))["model"] for record in folder_of(spec).glob("*.json")]
    assert sorted(names) == ["another", "net", "net", "net", "net"]
    assert len(list(folder_of(spec).glob("*.tflite"))) == 5


def test_what_an_interrupted_write_left_is_deleted(spec: ModelSpec, converted: Conversions) -> None:
    folder_of(spec).mkdir()
    for name in ("1234.tflite", ".1234.tflite.part"):
        (folder_of(spec) / name).write_bytes(b"half of a graph")
    find(spec)
    assert sorted(file.suffix for file in folder_of(spec).iterdir()) == ["", ".json", ".tflite"]
    assert find(spec)[1].startswith("from the cache")


def test_of_several_that_start_at_once_one_converts(spec: ModelSpec, converted: Conversions) -> None:
    found: list[tuple[str, str]] = []
    starts = [threading.Thread(target=lambda: found.append(find(spec))) for _ in range(4)]
    for start in starts:
        start.start()
    for start in starts:
        start.join()
    assert [runtime for runtime, _ in found] == [LITE] * 4
    assert sum(reason.startswith("from the cache") for _, reason in found) == 3
    assert converted.count == 1


@pytest.mark.process
class TestTheProcessThatConverts:
    def test_it_converts_and_a_later_load_imports_no_tensorflow(self, spec: ModelSpec) -> None:
        assert not find(spec)[1].startswith("from the cache")
        code = (
            "import pickle, sys\n"
            "from inference.models.loading import load_models\n"
            "from inference.settings import GpuSettings\n"
            "spec = pickle.load(sys.stdin.buffer)\n"
            f"(model,) = load_models([spec], {SIZES}, GpuSettings(), {{}}).values()\n"
            "print(model.reason, *sorted({'tensorflow', 'keras', 'PIL'} & set(sys.modules)))"
        )
        done = subprocess.run([sys.executable, "-c", code], input=pickle.dumps(spec), capture_output=True, check=False)
        assert done.returncode == 0, done.stderr
        assert done.stdout.decode().strip().endswith(" rate")
        assert done.stdout.decode().startswith("from the cache; measured ")

    def test_a_wrong_model_is_refused_with_its_reason(self, tmp_path: Path) -> None:
        (tmp_path / "m.keras").write_bytes(b"no model")
        wrong = described(tmp_path, tmp_path / "cache")
        with pytest.raises(ConfigurationError, match=r"^net: m\.keras is not a Keras 3 file"):
            find(wrong)
        assert [file.name for file in folder_of(wrong).iterdir()] == ["lock"]

    def test_if_it_dies_the_model_is_loaded_without_it(
        self, spec: ModelSpec, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        monkeypatch.setattr(conversions, "_MODULE", "no.such.module")
        (model,) = load_models([spec], SIZES, GpuSettings(), {}).values()
        assert model.predict(np.zeros((3, *SHAPE), np.uint8)).shape == (3, 5)
        assert (model.runtime, model.reason) == (TENSORFLOW, "the conversion failed")
        assert "the process that converts the model died; it is loaded without a conversion" in caplog.text
