"""Facts that are read from files that Keras, TensorFlow, LiteRT and ONNX wrote."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import h5py
import keras
import onnx
import pytest
import tensorflow as tf
from support.model_files import images, network, pack_labels, rescaled, save_onnx, save_tflite

from inference.errors import ConfigurationError
from inference.models.archives import DEFAULT_LIMITS, ModelFileLimits
from inference.models.inspection.facts import FileFormat, ModelFacts, OutputFacts
from inference.models.inspection.onnx import labels_of
from inference.models.inspection.process import inspect_file, read_facts

Layers = keras.layers


def facts_of(model: Any, folder: Path, name: str = "net.keras") -> ModelFacts:
    model.save(folder / name)
    return read_facts(folder / name, DEFAULT_LIMITS)


def refusal(file: Path, limits: ModelFileLimits = DEFAULT_LIMITS) -> str:
    with pytest.raises(ConfigurationError) as caught:
        read_facts(file, limits)
    return caught.value.detail


@pytest.mark.parametrize("name", ["net.keras", "net.h5"])
def test_keras_file_says_shape_classes_activation_and_scaling(tmp_path: Path, name: str) -> None:
    found = facts_of(rescaled(), tmp_path, name)

    assert (found.input_shapes, found.input_dtype) == (((None, 16, 16, 3),), "float32")
    assert [(output.classes, output.activation) for output in found.outputs] == [(3, "softmax")]
    assert found.scaling is not None
    assert (found.scaling.origin, found.scaling.low, found.scaling.high) == ("a Rescaling layer", 0, pytest.approx(1))


@pytest.mark.parametrize(
    ("last", "classes", "activation"),
    [
        ([Layers.Dense(3)], 3, "linear"),
        ([Layers.Dense(3), Layers.Softmax()], 3, "softmax"),
        ([Layers.Dense(3), Layers.Activation("softmax")], 3, "softmax"),
        ([Layers.Dense(1, activation="sigmoid")], 1, "sigmoid"),
        ([Layers.Dense(5, activation="relu"), Layers.Dropout(0.5)], 5, "relu"),
        ([keras.Sequential([Layers.Dense(7, activation="softmax")])], 7, "softmax"),
        ([Layers.Dense(6, activation="softmax"), Layers.Reshape((6,))], 6, "softmax"),
    ],
)
def test_last_layers_say_the_classes(tmp_path: Path, last: list[Any], classes: int, activation: str) -> None:
    found = facts_of(network(last=last), tmp_path)

    assert (found.outputs[0].classes, found.outputs[0].activation) == (classes, activation)


@pytest.mark.parametrize(
    ("first", "low", "high", "fits"),
    [
        ([Layers.Rescaling(1 / 127.5, offset=-1)], -1, 1, True),
        ([Layers.RandomFlip(), Layers.Resizing(16, 16), Layers.Rescaling(1 / 255)], 0, 1, True),
        ([keras.Sequential([Layers.RandomFlip(), Layers.Rescaling(1 / 255)])], 0, 1, True),
        ([Layers.Rescaling(1.0, offset=[-103.9, -116.8, -123.7])], -123.7, 151.1, True),
        ([Layers.Normalization(mean=[120.0] * 3, variance=[3600.0] * 3)], -2, 2.25, True),
        ([Layers.Rescaling(2.0, offset=-1)], -1, 509, False),
        ([Layers.Normalization(mean=[0.5] * 3, variance=[0.25] * 3)], -1, 509, False),
    ],
)
def test_pixels_are_followed_through_the_first_layers(
    tmp_path: Path, first: list[Any], low: float, high: float, fits: bool
) -> None:
    scaling = facts_of(network(first=first), tmp_path).scaling

    assert scaling is not None
    assert (scaling.low, scaling.high) == (pytest.approx(low), pytest.approx(high))
    assert scaling.fits_pixels is fits


def test_layer_that_was_adapted_to_data_scales_pixels_in_an_unknown_way(tmp_path: Path) -> None:
    layer = Layers.Normalization()
    layer.adapt(images(4).astype("float32"))
    scaling = facts_of(network(first=[layer]), tmp_path).scaling

    assert scaling is not None
    assert (scaling.low, scaling.fits_pixels) == (None, True)


@pytest.mark.parametrize(
    "first", [[], [Layers.BatchNormalization()], [Layers.Conv2D(3, 1), Layers.Rescaling(1 / 255)], [Layers.ReLU()]]
)
def test_no_scaling_is_seen_where_there_is_none(tmp_path: Path, first: list[Any]) -> None:
    assert facts_of(network(first=first), tmp_path).scaling is None


def test_arithmetic_in_a_functional_model_is_followed(tmp_path: Path) -> None:
    picture = keras.Input((16, 16, 3))
    values = Layers.Conv2D(4, 3)(picture / 255.0 - 0.5)
    model = keras.Model(picture, Layers.Dense(3, activation="softmax")(Layers.GlobalAveragePooling2D()(values)))
    scaling = facts_of(model, tmp_path).scaling

    assert scaling is not None
    assert (scaling.low, scaling.high) == (-0.5, 0.5)


def test_pixels_that_go_two_ways_are_not_followed(tmp_path: Path) -> None:
    picture = keras.Input((16, 16, 3))
    both = Layers.Concatenate()([Layers.Rescaling(1 / 255)(picture), picture])
    model = keras.Model(picture, Layers.Dense(3, activation="softmax")(Layers.Flatten()(both)))

    assert facts_of(model, tmp_path).scaling is None


def test_several_inputs_and_outputs_are_listed(tmp_path: Path) -> None:
    one, two = keras.Input((16, 16, 3)), keras.Input((4,))
    flat = Layers.Flatten()(one)
    kinds, ages = Layers.Dense(3, activation="softmax", name="kinds")(flat), Layers.Dense(2, name="ages")(two)
    found = facts_of(keras.Model([one, two], [kinds, ages]), tmp_path)

    assert len(found.input_shapes) == 2
    assert found.outputs == (OutputFacts("kinds", 3, "softmax"), OutputFacts("ages", 2, "linear"))


@pytest.mark.parametrize("name", ["net.keras", "net.tflite", "net"])
def test_outputs_have_the_names_of_a_description(tmp_path: Path, name: str) -> None:
    picture = keras.Input((16, 16, 3))
    flat = Layers.Flatten()(picture)
    model = keras.Model(picture, {"kind": Layers.Dense(3)(flat), "age": Layers.Dense(2)(flat)})
    if name == "net.keras":
        model.save(tmp_path / name)
    elif name == "net":
        model.export(tmp_path / name, verbose=False)
    else:
        save_tflite(model, tmp_path / name, is_quantised=False)
    found = read_facts(tmp_path / name, DEFAULT_LIMITS)

    assert {output.name: output.classes for output in found.outputs} == {"kind": 3, "age": 2}


def test_outputs_of_an_onnx_file_are_listed(tmp_path: Path) -> None:
    save_onnx(tmp_path / "net.onnx")

    assert [output.classes for output in read_facts(tmp_path / "net.onnx", DEFAULT_LIMITS).outputs] == [3]


@pytest.mark.parametrize("is_normalized", [False, True])
def test_saved_model_says_the_same_by_its_signature(tmp_path: Path, is_normalized: bool) -> None:
    first = Layers.Normalization(mean=[120.0] * 3, variance=[3600.0] * 3) if is_normalized else Layers.Rescaling(1 / 255)
    network(first=[first]).export(tmp_path / "saved", verbose=False)
    found = read_facts(tmp_path / "saved", DEFAULT_LIMITS)

    assert found.format is FileFormat.SAVED_MODEL
    assert (found.input_shapes, found.outputs[0].classes, found.outputs[0].activation) == (((None, 16, 16, 3),), 3, "softmax")
    assert found.scaling is not None
    # the graph computes the deviation, by which it divides, and is followed no further than to the mean
    assert (found.scaling.low, found.scaling.high) == ((-120, 135) if is_normalized else (0, pytest.approx(1)))


def test_saved_model_with_logits_is_known_by_its_last_operation(tmp_path: Path) -> None:
    network(last=[Layers.Dense(3)]).export(tmp_path / "saved", verbose=False)
    found = read_facts(tmp_path / "saved", DEFAULT_LIMITS)

    assert (found.outputs[0].activation, found.scaling) == ("linear", None)


@pytest.mark.parametrize("is_quantised", [False, True])
def test_litert_file_says_type_classes_and_packed_labels(tmp_path: Path, is_quantised: bool) -> None:
    file = tmp_path / "net.tflite"
    # without the padding, the converter moves the scale into the weights of the convolution
    model = network(first=[Layers.Rescaling(1 / 127.5, offset=-1), Layers.ZeroPadding2D()])
    save_tflite(model, file, is_quantised=is_quantised)
    plain = read_facts(file, DEFAULT_LIMITS)
    pack_labels(file, "rose\r\ntulip\r\ndaisy\r\n\r\n")
    found = read_facts(file, DEFAULT_LIMITS)

    assert (plain.labels, found.labels) == ((), ("rose", "tulip", "daisy"))
    assert found.input_dtype == ("uint8" if is_quantised else "float32")
    assert (found.outputs[0].classes, found.outputs[0].activation) == (3, "softmax")
    assert found.input_shapes[0][1:] == (16, 16, 3)
    if not is_quantised:
        assert found.scaling is not None
        assert (found.scaling.low, found.scaling.high) == (pytest.approx(-1), pytest.approx(1))


def test_litert_file_with_int8_input_says_the_values_that_it_holds(tmp_path: Path) -> None:
    file = tmp_path / "net.tflite"
    save_tflite(rescaled(), file, is_quantised=True, integers=tf.int8)
    found = read_facts(file, DEFAULT_LIMITS)

    assert (found.input_dtype, found.input_shapes[0][1:], found.outputs[0].classes) == ("int8", (16, 16, 3), 3)
    assert found.input_range == (pytest.approx(0, abs=1), pytest.approx(255, abs=1))


def test_litert_file_without_its_end_is_said_to_be_damaged(tmp_path: Path) -> None:
    file = tmp_path / "net.tflite"
    save_tflite(network(), file, is_quantised=False)
    file.write_bytes(file.read_bytes()[:2000])

    assert refusal(file) == "is damaged, or its end is missing"


def test_folder_with_an_onnx_file_says_what_the_file_says(tmp_path: Path) -> None:
    """Exporters of large models write the weights to a second file."""
    folder = tmp_path / "net"
    folder.mkdir()
    save_onnx(tmp_path / "one.onnx", names='["rose", "tulip", "daisy"]')
    model = onnx.load(tmp_path / "one.onnx")
    onnx.save(model, folder / "net.onnx", save_as_external_data=True, location="weights.bin", size_threshold=0)

    assert (folder / "weights.bin").stat().st_size
    assert read_facts(folder, DEFAULT_LIMITS) == read_facts(tmp_path / "one.onnx", DEFAULT_LIMITS)


def test_file_that_needs_far_more_memory_than_its_size_is_refused(tmp_path: Path) -> None:
    """The reader of a hostile file asks for 4 GiB, in the process that reads it."""
    (tmp_path / "net.onnx").write_bytes(b"small")
    code = (
        "import sys; from inference.models.inspection import process\n"
        "process._read = lambda path, limits: bytearray(2**32)\n"
        f"sys.argv = ['process', {str(tmp_path / 'net.onnx')!r}, '1000']\n"
        "sys.exit(process._main())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert (done.returncode, done.stderr) == (3, "")
    assert json.loads(done.stdout) == "needs far more memory to be read than its size says"


def test_onnx_file_says_its_layout_and_labels(tmp_path: Path) -> None:
    save_onnx(tmp_path / "net.onnx", names="{0: 'rose', 1: 'tulip', 2: 'daisy'}")
    found = read_facts(tmp_path / "net.onnx", DEFAULT_LIMITS)

    assert (found.input_shapes, found.input_dtype, found.outputs[0].classes) == (((None, 3, 16, 16),), "float32", 3)
    assert found.labels == ("rose", "tulip", "daisy")


@pytest.mark.parametrize(
    ("metadata", "labels"),
    [
        ({"labels": '["a", "b"]'}, ("a", "b")),
        ({"names": "{1: 'b', 0: 'a'}"}, ("a", "b")),
        ({"classes": "a\nb"}, ("a", "b")),
        ({"class_names": "a, b"}, ("a", "b")),
        ({"names": "{[}"}, ()),
        ({"author": "someone"}, ()),
        ({"labels": '["a", ""]'}, ()),
    ],
)
def test_labels_in_metadata_have_several_forms(metadata: dict[str, str], labels: tuple[str, ...]) -> None:
    assert labels_of(metadata) == labels


@pytest.mark.parametrize(
    ("names", "missing"),
    [
        ("{1: 'rose', 2: 'tulip', 3: 'daisy'}", 0),
        ("{0: 'rose', 2: 'tulip', 3: 'daisy'}", 1),
        ('{"0": "rose", "1": "tulip", "3": "daisy"}', 2),
    ],
)
def test_numbered_labels_with_a_gap_are_a_problem_of_the_labels_alone(tmp_path: Path, names: str, missing: int) -> None:
    save_onnx(tmp_path / "net.onnx", names=names)
    found = read_facts(tmp_path / "net.onnx", DEFAULT_LIMITS)

    assert found.labels == ()
    assert found.labels_problem == f"has 3 labels in its metadata, and none for class {missing}: classes count from 0"


def test_packed_labels_that_cannot_be_read_are_a_problem_of_the_labels_alone(tmp_path: Path) -> None:
    save_tflite(network(), tmp_path / "net.tflite", is_quantised=False)
    pack_labels(tmp_path / "net.tflite", "rose\n\ndaisy")
    found = read_facts(tmp_path / "net.tflite", DEFAULT_LIMITS)

    assert found.labels == ()
    assert found.labels_problem == "has a labels.txt in it that has no label in line 2; each line is a class, in order"


def test_file_that_is_no_model_is_refused(tmp_path: Path) -> None:
    for name in ("net.keras", "net.h5", "net.tflite", "net.onnx"):
        (tmp_path / name).write_bytes(b"not a model at all")
    (tmp_path / "folder").mkdir()
    (tmp_path / "weights.pt").touch()

    assert refusal(tmp_path / "net.keras") == "is not a Keras 3 file, which is a zip archive, or is damaged"
    assert refusal(tmp_path / "net.h5") == "is not an H5 file"
    assert refusal(tmp_path / "net.tflite") == "is not a LiteRT file"
    assert refusal(tmp_path / "net.onnx").startswith("is not an ONNX file, or is damaged")
    assert refusal(tmp_path / "folder").startswith("is a folder without a model.yaml, and not a SavedModel")
    assert refusal(tmp_path / "weights.pt").startswith("is a PyTorch file, which holds code; export the model")


@pytest.mark.parametrize("config", [b"[]", b'{"config": 3}', b"\xff", b'{"class_name": "Sequential", "config": {"layers": 7}}'])
def test_malformed_configuration_is_refused(tmp_path: Path, config: bytes) -> None:
    with zipfile.ZipFile(tmp_path / "net.keras", "w") as archive:
        archive.writestr("config.json", config)

    assert refusal(tmp_path / "net.keras")


def test_archive_that_unpacks_to_too_much_is_refused_before_it_is_read(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "net.keras", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("config.json", bytes(2**25))

    assert "more than 100 times its stored size" in refusal(tmp_path / "net.keras")


def test_h5_file_that_names_another_is_refused(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "net.h5", "w") as file:
        file.attrs["model_config"] = json.dumps({"class_name": "Sequential", "config": []})
        file["weights"] = h5py.ExternalLink("/etc/passwd", "/")

    assert "a link to another file" in refusal(tmp_path / "net.h5")


def test_another_process_reads_the_file_without_tensorflow(tmp_path: Path) -> None:
    rescaled().save(tmp_path / "net.keras")
    code = (
        "import sys; from pathlib import Path; from inference.models.inspection.process import read_facts\n"
        "from inference.models.archives import DEFAULT_LIMITS\n"
        f"found = read_facts(Path({str(tmp_path / 'net.keras')!r}), DEFAULT_LIMITS)\n"
        "print(found.outputs[0].classes, 'tensorflow' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout == "3 False\n"
    assert inspect_file(tmp_path / "net.keras", DEFAULT_LIMITS) == read_facts(tmp_path / "net.keras", DEFAULT_LIMITS)
    (tmp_path / "net.h5").write_bytes(b"no model")
    with pytest.raises(ConfigurationError, match=r"^is not an H5 file$"):
        inspect_file(tmp_path / "net.h5", DEFAULT_LIMITS)


def test_another_process_tells_labels_with_line_separators_of_unicode(tmp_path: Path) -> None:
    save_onnx(tmp_path / "net.onnx", names='["rose", "tu\u2028lip", "dai\x85sy"]')
    assert inspect_file(tmp_path / "net.onnx", DEFAULT_LIMITS).labels == ("rose", "tu\u2028lip", "dai\x85sy")
