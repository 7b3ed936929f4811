"""ONNX files: the service answers what onnxruntime itself answers, and says what is wrong with others."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto
from support.graph_files import BODY, CLASSES, HEIGHT, SOFTMAX, WIDTH, classifier, onnx_model, random, save
from support.models import spec_of

from inference.errors import ConfigurationError
from inference.models.loading import load_model
from inference.models.spec import ModelSpec

REPOSITORY = Path(__file__).parents[4]
NCHW = {"shape": [HEIGHT, WIDTH, 3], "layout": "nchw", "dtype": "float32"}
#: between a batch and its images one by one: the order of sums
TOLERANCE = 1e-6
IMAGES = np.random.default_rng(0).random((5, 3, HEIGHT, WIDTH), np.float32)


def describe(folder: Path, *, file: str = "m.onnx", **changes: Any) -> ModelSpec:
    return spec_of(folder, **{"name": "net", "file": file, "input": NCHW} | changes)


def refusal(spec: ModelSpec) -> ConfigurationError:
    with pytest.raises(ConfigurationError) as caught:
        load_model(spec)
    assert caught.value.detail.startswith("net: ")
    assert "\n" not in caught.value.detail
    return caught.value


def own_answers(path: Path, images: NDArray[Any], output: str = "probabilities") -> NDArray[Any]:
    """Return onnxruntime's own answers, image by image."""
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return np.concatenate([session.run([output], {"images": image[None]})[0] for image in images])


class TestAnswers:
    def test_a_graph_with_any_batch_size(self, tmp_path: Path) -> None:
        path = save(classifier(), tmp_path)
        model = load_model(describe(tmp_path))
        assert (model.runtime, model.output_size) == ("ONNX Runtime", CLASSES)
        expected = own_answers(path, IMAGES)
        assert np.ptp(expected, axis=0).max() > 1000 * TOLERANCE
        np.testing.assert_allclose(model.predict(IMAGES), expected, rtol=0, atol=TOLERANCE)

    def test_a_batch_size_of_one(self, tmp_path: Path) -> None:
        path = save(classifier(batch=1), tmp_path)
        np.testing.assert_allclose(
            load_model(describe(tmp_path)).predict(IMAGES), own_answers(path, IMAGES), rtol=0, atol=TOLERANCE
        )

    @pytest.mark.parametrize("count", [1, 4, 5])
    def test_a_batch_size_of_four(self, tmp_path: Path, count: int) -> None:
        save(classifier(batch=4), tmp_path)
        expected = own_answers(save(classifier(), tmp_path, "any.onnx"), IMAGES[:count])
        answers = load_model(describe(tmp_path)).predict(IMAGES[:count])
        np.testing.assert_allclose(answers, expected, rtol=0, atol=TOLERANCE)

    def test_height_and_width_that_are_open_are_those_of_the_description(self, tmp_path: Path) -> None:
        path = save(classifier(size=("H", "W")), tmp_path)
        images = np.random.default_rng(1).random((2, 3, 9, 7), np.float32)
        model = load_model(describe(tmp_path, input={**NCHW, "shape": [9, 7, 3]}))
        np.testing.assert_allclose(model.predict(images), own_answers(path, images), rtol=0, atol=TOLERANCE)

    def test_the_named_one_of_several_outputs(self, tmp_path: Path) -> None:
        outputs = {"logits": [CLASSES], "probabilities": [CLASSES]}
        path = save(classifier(outputs=outputs), tmp_path)
        model = load_model(describe(tmp_path, output={"name": "probabilities"}))
        np.testing.assert_allclose(model.predict(IMAGES), own_answers(path, IMAGES), rtol=0, atol=TOLERANCE)
        error = refusal(describe(tmp_path))
        assert error.field == "output.name"
        assert "has 2 outputs: logits, probabilities; set output.name" in error.detail

    def test_pixels_for_a_graph_that_takes_uint8(self, tmp_path: Path) -> None:
        nodes = [
            ("Cast", ["images"], ["floats"], {"to": TensorProto.FLOAT}),
            ("Conv", ["floats", "kernel"], ["maps"], {}),
            *BODY[1:],
        ]
        scaled = random(5, 3, 3, 3) / 255
        weights = {"kernel": scaled, "dense": random(5, CLASSES)}
        model = onnx_model([*nodes, SOFTMAX], outputs={"probabilities": [CLASSES]}, input_type=TensorProto.UINT8, weights=weights)
        path = save(model, tmp_path)
        pixels = (IMAGES * 255).astype(np.uint8)
        loaded = load_model(describe(tmp_path, input={**NCHW, "dtype": "uint8"}))
        np.testing.assert_allclose(loaded.predict(pixels), own_answers(path, pixels), rtol=0, atol=TOLERANCE)
        assert refusal(describe(tmp_path)).field == "input.dtype"

    def test_uint8_pixels_for_a_graph_that_takes_floats(self, tmp_path: Path) -> None:
        path = save(classifier(weights={"kernel": random(5, 3, 3, 3) / 255, "dense": random(5, CLASSES)}), tmp_path)
        pixels = (IMAGES * 255).astype(np.uint8)
        loaded = load_model(describe(tmp_path, input={**NCHW, "dtype": "uint8"}))
        expected = own_answers(path, pixels.astype(np.float32))
        np.testing.assert_allclose(loaded.predict(pixels), expected, rtol=0, atol=TOLERANCE)

    def test_channels_last(self, tmp_path: Path) -> None:
        nodes = [
            ("Transpose", ["images"], ["first"], {"perm": [0, 3, 1, 2]}),
            ("Conv", ["first", "kernel"], ["maps"], {}),
            *BODY[1:],
        ]
        shape = ["N", HEIGHT, WIDTH, 3]
        path = save(onnx_model([*nodes, SOFTMAX], outputs={"probabilities": [CLASSES]}, shape=shape), tmp_path)
        images = np.ascontiguousarray(IMAGES.transpose(0, 2, 3, 1))
        model = load_model(describe(tmp_path, input={"shape": [HEIGHT, WIDTH, 3], "dtype": "float32"}))
        np.testing.assert_allclose(model.predict(images), own_answers(path, images), rtol=0, atol=TOLERANCE)

    def test_an_output_with_further_dimensions_of_one(self, tmp_path: Path) -> None:
        """A fully convolutional classifier has this shape: (N, classes, 1, 1)."""
        nodes = [
            ("Conv", ["images", "kernel"], ["maps"], {}),
            ("GlobalAveragePool", ["maps"], ["mean"], {}),
            ("Softmax", ["mean"], ["probabilities"], {"axis": 1}),
        ]
        path = save(onnx_model(nodes, outputs={"probabilities": [5, 1, 1]}, weights={"kernel": random(5, 3, 3, 3)}), tmp_path)
        expected = own_answers(path, IMAGES).reshape(-1, 5)
        np.testing.assert_allclose(load_model(describe(tmp_path)).predict(IMAGES), expected, rtol=0, atol=TOLERANCE)

    def test_one_unit_with_a_sigmoid_is_the_second_of_two_classes(self, tmp_path: Path) -> None:
        weights = {"kernel": random(5, 3, 3, 3), "dense": random(5, 1)}
        nodes = [*BODY, ("Sigmoid", ["logits"], ["probabilities"], {})]
        path = save(onnx_model(nodes, outputs={"probabilities": [1]}, weights=weights), tmp_path)
        second = own_answers(path, IMAGES)
        answers = load_model(describe(tmp_path, labels=["no", "yes"])).predict(IMAGES)
        np.testing.assert_allclose(answers, np.concatenate([1 - second, second], axis=1), rtol=0, atol=TOLERANCE)


class TestFolders:
    @pytest.fixture
    def expected(self, tmp_path: Path) -> NDArray[Any]:
        """A folder `net` with the graph, and its weights in another file."""
        path = save(classifier(), tmp_path)
        (tmp_path / "net").mkdir()
        onnx.save(
            onnx.load(path), tmp_path / "net" / "m.onnx", save_as_external_data=True, location="weights.bin", size_threshold=0
        )
        return own_answers(path, IMAGES)

    def test_weights_in_other_files_of_the_folder_are_read(self, tmp_path: Path, expected: NDArray[Any]) -> None:
        model = load_model(describe(tmp_path, file="net"))
        np.testing.assert_allclose(model.predict(IMAGES), expected, rtol=0, atol=TOLERANCE)

    def test_the_digest_covers_them(self, tmp_path: Path, expected: NDArray[Any]) -> None:
        before = describe(tmp_path, file="net").digest
        with (tmp_path / "net" / "weights.bin").open("ab") as file:
            file.write(b"x")
        assert describe(tmp_path, file="net").digest != before

    def test_a_zip_of_it_is_read(self, tmp_path: Path, expected: NDArray[Any], monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)  # the cache of what is unpacked
        with zipfile.ZipFile(tmp_path / "net.zip", "w") as packed:
            for file in (tmp_path / "net").iterdir():
                packed.write(file, Path("net") / file.name)
        model = load_model(describe(tmp_path, file="net.zip"))
        np.testing.assert_allclose(model.predict(IMAGES), expected, rtol=0, atol=TOLERANCE)

    def test_a_file_alone_has_no_other_files(
        self, tmp_path: Path, expected: NDArray[Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path / "net")  # where onnxruntime would look for them
        assert "m.onnx has weights in other files: set file to a folder" in refusal(describe(tmp_path, file="net/m.onnx")).detail

    @pytest.mark.parametrize("location", ["../weights.bin", "ABSOLUTE", "link.bin", "*/_ORT_MEM_ADDR_/*"])
    def test_weights_outside_of_the_folder_are_refused(self, tmp_path: Path, expected: NDArray[Any], location: str) -> None:
        (tmp_path / "net" / "weights.bin").rename(tmp_path / "weights.bin")
        if location == "link.bin":
            (tmp_path / "net" / location).symlink_to(tmp_path / "weights.bin")
        model = onnx.load(tmp_path / "net" / "m.onnx", load_external_data=False)
        for tensor in model.graph.initializer:
            tensor.external_data[0].value = location.replace("ABSOLUTE", str(tmp_path / "weights.bin"))
        save(model, tmp_path / "net")
        detail = refusal(describe(tmp_path, file="net")).detail
        assert detail == "net: net has weights in files that are missing, or not in its folder"


class TestRefusals:
    def test_channels_first_without_a_layout(self, tmp_path: Path) -> None:
        save(classifier(), tmp_path)
        error = refusal(describe(tmp_path, input={"shape": [HEIGHT, WIDTH, 3], "dtype": "float32"}))
        assert error.field == "input.layout"
        assert f"says input.shape [{HEIGHT}, {WIDTH}, 3], the model in m.onnx takes [3, {HEIGHT}, {WIDTH}]" in error.detail
        assert "set input.layout to nchw" in error.detail

    def test_another_shape(self, tmp_path: Path) -> None:
        save(classifier(), tmp_path)
        error = refusal(describe(tmp_path, input={**NCHW, "shape": [5, 5, 3]}))
        assert error.field == "input.shape"
        said = "says input.shape [5, 5, 3] with input.layout nchw, which is [3, 5, 5]"
        assert f"{said}, the model in m.onnx takes [3, {HEIGHT}, {WIDTH}]" in error.detail

    def test_an_input_without_a_batch(self, tmp_path: Path) -> None:
        nodes = [("Flatten", ["images"], ["flat"], {"axis": 0}), ("Softmax", ["flat"], ["probabilities"], {"axis": 1})]
        save(onnx_model(nodes, outputs={"probabilities": [3 * 48]}, batch=1, shape=[3, HEIGHT, WIDTH]), tmp_path)
        assert f"takes 3 dimensions, [3, {HEIGHT}, {WIDTH}], expected 4" in refusal(describe(tmp_path)).detail

    def test_logits(self, tmp_path: Path) -> None:
        save(onnx_model(BODY, outputs={"logits": [CLASSES]}), tmp_path)
        assert "must return probabilities from 0 to 1 that sum to 1" in refusal(describe(tmp_path)).detail

    def test_one_unit_without_a_sigmoid(self, tmp_path: Path) -> None:
        """The weights are small, so that no trial image shows it."""
        weights = {"kernel": random(5, 3, 3, 3) ** 2 / 1e6, "dense": random(5, 1) ** 2 / 1e6}
        save(onnx_model(BODY, outputs={"logits": [1]}, weights=weights), tmp_path)
        assert "computed by Gemm, and for other images they may be of any size" in refusal(describe(tmp_path)).detail

    def test_class_numbers(self, tmp_path: Path) -> None:
        nodes = [*BODY, ("ArgMax", ["logits"], ["classes"], {"axis": 1, "keepdims": 1})]
        save(onnx_model(nodes, outputs={"classes": [1]}, output_type=TensorProto.INT64), tmp_path)
        assert "for trial images it returned int64 values" in refusal(describe(tmp_path)).detail

    def test_a_number_of_labels_that_is_not_that_of_the_classes(self, tmp_path: Path) -> None:
        save(classifier(), tmp_path)
        error = refusal(describe(tmp_path, labels=["a", "b"]))
        assert error.field == "labels"
        assert f"there are 2 labels, and the model in m.onnx has {CLASSES} classes" in error.detail

    def test_text_with_the_name_of_a_model(self, tmp_path: Path) -> None:
        (tmp_path / "m.onnx").write_text("I am no model.\n" * 20)
        assert refusal(describe(tmp_path)).detail == "net: m.onnx is not an ONNX file, or is damaged"

    @pytest.mark.parametrize(
        ("content", "problem"),
        [(b"I am no model.\n" * 20, "is not an ONNX file, or is damaged"), (None, "No Op registered for NoSuchOperator")],
    )
    def test_a_folders_place_on_this_host_is_not_told(self, tmp_path: Path, content: bytes | None, problem: str) -> None:
        folder = tmp_path / "net"
        folder.mkdir()
        model = onnx_model([("NoSuchOperator", ["images"], ["logits"], {})], outputs={"logits": [CLASSES]})
        (folder / "m.onnx").write_bytes(content or model.SerializeToString())
        error = refusal(describe(tmp_path, file="net"))
        assert problem in error.detail
        assert str(tmp_path) not in error.detail

    @pytest.mark.parametrize("share", [0.0, 0.5, 0.98])
    def test_a_file_that_ends_too_early(self, tmp_path: Path, share: float) -> None:
        path = save(classifier(), tmp_path)
        content = path.read_bytes()
        path.write_bytes(content[: int(share * len(content))])
        assert "m.onnx " in refusal(describe(tmp_path)).detail

    def test_operators_of_a_version_that_does_not_exist_yet(self, tmp_path: Path) -> None:
        save(classifier(opset=99), tmp_path)
        detail = refusal(describe(tmp_path)).detail
        assert f"than onnxruntime {onnxruntime.__version__} knows: export it with a lower opset" in detail

    def test_operators_of_a_plug_in(self, tmp_path: Path) -> None:
        model = classifier()
        model.graph.node[-1].domain = "com.example"
        model.opset_import.add(domain="com.example", version=1)
        save(model, tmp_path)
        assert "com.example" in refusal(describe(tmp_path)).detail

    @pytest.mark.parametrize(
        ("key", "value"), [("mixed_precision", True), ("xla", True), ("device", "gpu:0"), ("weights_file", "w.h5")]
    )
    def test_keys_that_only_tensorflow_follows(self, tmp_path: Path, key: str, value: object) -> None:
        save(classifier(), tmp_path)
        (tmp_path / "w.h5").write_bytes(b"")
        error = refusal(describe(tmp_path, **{key: value}))
        assert error.field == key
        assert ".onnx file" in error.detail

    def test_more_bytes_than_model_files_may_have(self, tmp_path: Path) -> None:
        path = save(classifier(), tmp_path)
        spec = describe(tmp_path).model_copy(update={"max_unpacked_bytes": path.stat().st_size - 1})
        assert "(model_files.max_unpacked_mb)" in refusal(spec).detail


@pytest.mark.parametrize(
    ("package", "extra", "file"), [("onnxruntime", "onnx", "m.onnx"), ("ai_edge_litert", "litert", "m.tflite")]
)
def test_a_library_that_is_not_installed_is_named_with_its_extra(tmp_path: Path, package: str, extra: str, file: str) -> None:
    (tmp_path / file).write_bytes(b"")
    code = (
        "import sys; from pathlib import Path; from support.models import spec_of\n"
        f"sys.modules[{package!r}] = None\n"
        "from inference.errors import ConfigurationError\n"
        "from inference.models.loading import load_model\n"
        f"spec = spec_of(Path({str(tmp_path)!r}), name='net', file={file!r}, input={{'shape': [4, 4, 3]}})\n"
        "try: load_model(spec)\n"
        "except ConfigurationError as error: print(error.detail)\n"
    )
    environment = os.environ | {"PYTHONPATH": "tests"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=True
    )
    install = f'pip install "rohe-inference-service[{extra}]"'
    assert done.stdout == f"net: {file} needs {package}, which is not installed: {install}\n"
