"""Device that a model runs on: by description, on TensorFlow's logical devices where there is no GPU."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from support.models import spec_of

from inference.errors import ConfigurationError
from inference.models.loading import CPU, Device, load_model
from inference.models.loading.tensorflow.devices import open_devices
from inference.models.predictor.device_lock import GpuLock, gpu_lock
from inference.models.spec import ModelSpec
from inference.runtime.cpu import usable_cores
from inference.settings import GpuSettings

ROOT = Path(__file__).parents[4]
KERAS_2 = ROOT / "tests" / "fixtures" / "keras2"
IMAGE = {"shape": [12, 10, 3], "dtype": "uint8"}


class FakeTensorflowConfig:
    """`tf.config` of a host with so many GPUs; knows what was asked of it."""

    def __init__(self, gpus: int) -> None:
        self._gpus = [f"gpu {number}" for number in range(gpus)]
        self.visible: list[str] | None = None
        self.growth: dict[str, bool] = {}
        self.limits_mb: dict[str, float] = {}
        self.experimental = self
        self.threading = self
        #: between and inside operations
        self.threads: dict[str, int] = {}

    def list_physical_devices(self, kind: str) -> list[str]:
        assert kind == "GPU"
        return self._gpus

    def set_visible_devices(self, devices: list[str], kind: str) -> None:
        assert kind == "GPU"
        self.visible = devices

    def set_inter_op_parallelism_threads(self, count: int) -> None:
        self.threads["between"] = count

    def set_intra_op_parallelism_threads(self, count: int) -> None:
        self.threads["inside"] = count

    def set_memory_growth(self, device: str, enable: bool) -> None:
        self.growth[device] = enable

    def set_logical_device_configuration(self, device: str, configurations: list[Any]) -> None:
        (configuration,) = configurations
        self.limits_mb[device] = configuration.memory_limit


@pytest.fixture
def locks(tmp_path: Path) -> dict[int, GpuLock]:
    return {index: gpu_lock(index, tmp_path) for index in range(4)}


class TestChoosing:
    @pytest.mark.parametrize(
        ("wanted", "gpus", "names", "visible"),
        [
            ([None], 0, ["/CPU:0"], []),
            (["cpu"], 0, ["/CPU:0"], []),
            (["cpu"], 2, ["/CPU:0"], []),
            ([None], 2, ["/GPU:0"], ["gpu 0"]),
            (["gpu"], 2, ["/GPU:0"], ["gpu 0"]),
            (["gpu:1"], 2, ["/GPU:0"], ["gpu 1"]),
            (["gpu:3", "cpu", "gpu:1"], 4, ["/GPU:1", "/CPU:0", "/GPU:0"], ["gpu 1", "gpu 3"]),
            ([None, "gpu:0"], 1, ["/GPU:0", "/GPU:0"], ["gpu 0"]),
        ],
    )
    def test_a_device_is_that_of_the_description_and_other_gpus_are_hidden(
        self, locks: dict[int, GpuLock], wanted: list[str | None], gpus: int, names: list[str], visible: list[str]
    ) -> None:
        config = FakeTensorflowConfig(gpus)
        devices = open_devices(wanted, GpuSettings(), locks, config=config)
        assert [devices[device].name for device in wanted] == names
        assert [devices[device].is_gpu for device in wanted] == ["GPU" in name for name in names]
        assert config.visible == visible

    @pytest.mark.parametrize("device", ["gpu", "gpu:1"])
    def test_without_any_gpu_it_is_the_cpu_with_a_warning(
        self, locks: dict[int, GpuLock], device: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        with caplog.at_level(logging.WARNING):
            assert open_devices([device], GpuSettings(), locks, config=FakeTensorflowConfig(0)) == {device: CPU}
        assert caplog.messages == [f"device {device}: TensorFlow finds no GPU here; the model runs on the CPU"]

    @pytest.mark.parametrize("device", [None, "cpu"])
    def test_who_asked_for_no_gpu_is_not_warned(
        self, locks: dict[int, GpuLock], device: str | None, caplog: pytest.LogCaptureFixture
    ) -> None:
        open_devices([device], GpuSettings(), locks, config=FakeTensorflowConfig(0))
        assert caplog.messages == []

    def test_a_gpu_that_is_none_of_those_here_is_refused(self, locks: dict[int, GpuLock]) -> None:
        with pytest.raises(ConfigurationError, match="device gpu:2: TensorFlow finds 2 GPUs here, counted from 0"):
            open_devices(["gpu:2"], GpuSettings(), locks, config=FakeTensorflowConfig(2))

    @pytest.mark.parametrize(
        ("options", "growth", "limits_mb"),
        [
            ({}, {"gpu 1": True}, {}),
            ({"memory_growth": False}, {"gpu 1": False}, {}),
            ({"memory_limit_mb": 4096}, {}, {"gpu 1": 4096}),
        ],
    )
    def test_memory_grows_or_has_a_limit(
        self, locks: dict[int, GpuLock], options: dict[str, Any], growth: dict[str, bool], limits_mb: dict[str, float]
    ) -> None:
        config = FakeTensorflowConfig(2)
        open_devices(["gpu:1"], GpuSettings(**options), locks, config=config)
        assert (config.growth, config.limits_mb) == (growth, limits_mb)

    def test_this_host_is_one_too(self) -> None:
        """The real `tf.config`, whatever it has."""
        code = (
            "from inference.models.loading.tensorflow.devices import open_devices\n"
            "from inference.models.predictor.device_lock import gpu_lock\n"
            "from inference.settings import GpuSettings\n"
            "print(open_devices(['cpu'], GpuSettings(), {})['cpu'].name)"
        )
        assert run(code) == "/CPU:0"


def run(code: str, *arguments: str) -> str:
    """Run code in a process of its own: TensorFlow's devices are set once."""
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(command, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode().strip()


PLACED = """
import gc, json, sys
from pathlib import Path
from inference.models.loading import Device, load_model
import numpy as np, tensorflow as tf
sys.path.insert(0, "tests")
from support.models import spec_of

(cpu,) = tf.config.list_physical_devices("CPU")
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 3)
options = json.loads(sys.argv[1])
model = load_model(spec_of(Path(options.pop("folder")), name="net", litert=False, **options), Device("/CPU:2"))
answers, eager = [], type(tf.constant(0))
numpy_of = eager.numpy
eager.numpy = lambda tensor: answers.append(tensor.device) or numpy_of(tensor)
model.predict(np.zeros((2, *options["input"]["shape"]), "uint8"))
weights = [found for found in gc.get_objects() if isinstance(found, tf.Variable)]
print(json.dumps({"answers": answers, "weights": sorted({found.device for found in weights}), "count": len(weights)}))
"""


@pytest.mark.parametrize("file", ["classifier.h5", "classifier_saved_model"])
def test_weights_and_graph_are_on_the_device(file: str) -> None:
    """The device is one of three logical CPUs, as it would be one of three GPUs."""
    found = json.loads(run(PLACED, json.dumps({"folder": str(KERAS_2), "file": file, "input": IMAGE})))
    assert [device.rpartition("/")[2] for device in found["answers"]] == ["device:CPU:2"]
    assert [device.rpartition("/")[2] for device in found["weights"]] == ["device:CPU:2"]
    assert found["count"] > 0


class TestThreads:
    def test_on_cpus_all_cores_work_on_one_operation_at_a_time(self, locks: dict[int, GpuLock]) -> None:
        config = FakeTensorflowConfig(1)
        open_devices(["cpu"], GpuSettings(), locks, config=config)
        assert config.threads == {"between": 1, "inside": usable_cores()}

    def test_beside_a_gpu_tensorflow_has_its_way(self, locks: dict[int, GpuLock]) -> None:
        config = FakeTensorflowConfig(1)
        open_devices(["gpu", "cpu"], GpuSettings(), locks, config=config)
        assert config.threads == {}


class TestPrecision:
    @pytest.fixture(scope="class")
    def images(self) -> np.ndarray[Any, Any]:
        with np.load(KERAS_2 / "expected.npz") as file:
            return np.asarray(file["images"])

    @staticmethod
    def spec(**options: Any) -> ModelSpec:
        return spec_of(KERAS_2, name="net", file="classifier.h5", input=IMAGE, **options)

    def test_half_precision_is_close_and_answers_in_float32(self, images: np.ndarray[Any, Any]) -> None:
        exact = load_model(self.spec()).predict(images)
        half = load_model(self.spec(mixed_precision=True)).predict(images)
        assert half.dtype == np.float32
        np.testing.assert_allclose(half, exact, atol=0.02)
        assert np.abs(half - exact).max() > 1e-5, "nothing was computed in half precision"
        np.testing.assert_allclose(half.sum(axis=1), 1, atol=1e-6)  # the last layer has all digits

    def test_layers_inside_a_nested_model_compute_in_half_precision_too(self, images: np.ndarray[Any, Any]) -> None:
        nested = {"name": "net", "file": "nested.h5", "input": IMAGE}
        exact = load_model(spec_of(KERAS_2, **nested)).predict(images)
        half = load_model(spec_of(KERAS_2, **nested, mixed_precision=True)).predict(images)
        np.testing.assert_allclose(half, exact, atol=0.05)
        assert np.abs(half - exact).max() > 1e-5

    def test_the_last_layer_of_a_nested_model_that_is_last_has_all_digits(
        self, tmp_path: Path, images: np.ndarray[Any, Any]
    ) -> None:
        head = keras.Sequential([keras.Input((4,)), keras.layers.Dense(5, activation="softmax")])
        inputs = keras.Input((12, 10, 3))
        features = keras.layers.Conv2D(4, 3)(keras.layers.Rescaling(1 / 255)(inputs))
        keras.Model(inputs, head(keras.layers.GlobalAveragePooling2D()(features))).save(tmp_path / "m.keras")
        half = load_model(spec_of(tmp_path, name="net", file="m.keras", input=IMAGE, mixed_precision=True)).predict(images)
        np.testing.assert_allclose(half.sum(axis=1), 1, atol=1e-6)

    def test_a_gpu_has_float16_and_a_cpu_bfloat16(self) -> None:
        assert (Device("/GPU:0", is_gpu=True).half_precision, CPU.half_precision) == ("mixed_float16", "mixed_bfloat16")
        assert keras.DTypePolicy("mixed_float16").compute_dtype == "float16"

    @pytest.mark.parametrize("file", ["classifier.h5", "classifier_saved_model"])
    def test_xla_has_the_same_answers(self, images: np.ndarray[Any, Any], file: str) -> None:
        plain = load_model(spec_of(KERAS_2, name="net", file=file, input=IMAGE)).predict(images)
        compiled = load_model(spec_of(KERAS_2, name="net", file=file, input=IMAGE, xla=True))
        np.testing.assert_allclose(compiled.predict(images), plain, atol=1e-6)
        np.testing.assert_allclose(compiled.predict(images[:3]), plain[:3], atol=1e-6)

    def test_what_xla_cannot_compile_is_refused(self, tmp_path: Path) -> None:
        inputs = keras.Input((12, 10, 3))
        resized = keras.layers.Resizing(7, 5, interpolation="area")(inputs)
        outputs = keras.layers.Softmax()(keras.layers.GlobalAveragePooling2D()(resized))
        keras.Model(inputs, outputs).save(tmp_path / "m.keras")
        description = {"name": "net", "file": "m.keras", "input": IMAGE}
        assert load_model(spec_of(tmp_path, **description)).output_size == 3
        with pytest.raises(ConfigurationError, match=r"fails on images of shape \[12, 10, 3\]"):
            load_model(spec_of(tmp_path, **description, xla=True))
