"""Keys of a description for what a graph takes and returns: forms of their values, defaults, contradictions."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import yaml
from support.models import load_spec, spec_of

from inference.errors import ConfigurationError
from inference.models.description_file import read_document
from inference.models.spec import Activation, ModelDescription, Task


def described(text: str) -> ModelDescription:
    """The description of YAML text, with a name, a file and an input if it has none."""
    document = {"name": "net", "file": "net.keras", "input": {"shape": [8, 6, 3]}} | (yaml.safe_load(text) or {})
    (model,) = read_document(document, folder=Path(), origin="test")
    return model


def problem(text: str) -> str:
    with pytest.raises(ConfigurationError) as caught:
        described(text)
    assert caught.value.detail.startswith("test: ")
    return caught.value.detail.removeprefix("test: ")


@pytest.mark.parametrize(
    ("scale", "factor", "summand"),
    [
        ("1/255", 1 / 255, 0),
        ("1 / 255", 1 / 255, 0),
        ("'1/255'", 1 / 255, 0),
        ("0.00392", 0.00392, 0),
        ("1e-3", 0.001, 0),
        ("2", 2, 0),
        ("-1/255", -1 / 255, 0),
        ("-1..1", 1 / 127.5, -1),
        ("0..1", 1 / 255, 0),
    ],
)
def test_a_scale_is_a_number_a_fraction_or_a_name(scale: str, factor: float, summand: float) -> None:
    spec = described(f"input: {{shape: [8, 6, 3], scale: {scale}}}").input
    assert spec.scaling is not None
    assert spec.scaling.factors == pytest.approx((factor,) * 3)
    assert spec.scaling.summands == pytest.approx((summand,) * 3)


@pytest.mark.parametrize("keys", ["", "scale: none", "scale: 1", "mean: 0", "std: 1", "scale: none, mean: [0, 0, 0], std: 1.0"])
def test_pixels_stay_as_they_are_without_a_scale(keys: str) -> None:
    assert described(f"input: {{shape: [8, 6, 3], {keys}}}").input.scaling is None


@pytest.mark.parametrize(
    ("keys", "dtype"),
    [("", "uint8"), ("scale: none", "uint8"), ("scale: 1/255", "float32"), ("mean: 1", "float32"), ("std: [1, 2, 3]", "float32")],
)
def test_the_default_dtype_holds_the_values(keys: str, dtype: str) -> None:
    assert described(f"input: {{shape: [8, 6, 3], {keys}}}").input.dtype == dtype


def test_a_layout_changes_the_array_and_not_the_shape() -> None:
    spec = described("input: {shape: [8, 6, 3], layout: nchw}").input
    assert (spec.shape, spec.array_shape) == ((8, 6, 3), (3, 8, 6))
    assert described("").input.array_shape == (8, 6, 3)


@pytest.mark.parametrize(
    ("text", "key", "right"),
    [
        ("input: {shape: [8, 6, 3], scale: true}", "input.scale", "1/255"),
        ("input: {shape: [8, 6, 3], scale: null}", "input.scale", "imagenet"),
        ("input: {shape: [8, 6, 3], scale: 0}", "input.scale", "other than 0"),
        ("input: {shape: [8, 6, 3], scale: 1/0}", "input.scale", "1/255"),
        ("input: {shape: [8, 6, 3], scale: 1/2/3}", "input.scale", "1/255"),
        ("input: {shape: [8, 6, 3], scale: .inf}", "input.scale", "1/255"),
        ("input: {shape: [8, 6, 3], scale: [1]}", "input.scale", "1/255"),
        ("input: {shape: [8, 6, 3], scale: ImageNet}", "input.scale", "imagenet"),
        ("input: {shape: [8, 6, 1], scale: imagenet}", "input.scale", "3 channels"),
        ("input: {shape: [8, 6, 3], scale: imagenet, mean: 1}", "input.mean", "1/255"),
        ("input: {shape: [8, 6, 3], scale: 1/255, dtype: uint8}", "input.dtype", "float32"),
        ("input: {shape: [8, 6, 3], mean: 3, dtype: uint8}", "input.dtype", "float32"),
        ("input: {shape: [8, 6, 3], mean: [1, 2]}", "input.mean", "which are 3"),
        ("input: {shape: [8, 6, 1], mean: [1, 2, 3]}", "input.mean", "which are 1"),
        ("input: {shape: [8, 6, 3], mean: '1'}", "input.mean", "a number"),
        ("input: {shape: [8, 6, 3], mean: []}", "input.mean", "a number"),
        ("input: {shape: [8, 6, 3], mean: .nan}", "input.mean", "finite"),
        ("input: {shape: [8, 6, 3], std: 0}", "input.std", "greater than 0"),
        ("input: {shape: [8, 6, 3], std: [1, -1, 1]}", "input.std", "greater than 0"),
        ("input: {shape: [8, 6, 3], channel_order: grb}", "input.channel_order", "'rgb' or 'bgr'"),
        ("input: {shape: [8, 6, 1], channel_order: bgr}", "input.channel_order", "3 channels"),
        ("input: {shape: [8, 6, 3], layout: chw}", "input.layout", "'nhwc' or 'nchw'"),
        ("output: {activation: relu}", "output.activation", "'softmax', 'sigmoid' or 'none'"),
        ("output: {activations: softmax}", "output.activations", "not permitted"),
        ("task: multilabel", "task", "'single_label' or 'multi_label'"),
        ("{task: multi_label, output: {activation: softmax}}", "output.activation", "sigmoid or none"),
        ("threshold: [0.5, 0.5]", "threshold", "task"),
        ("{labels: [a, b], threshold: {a: 0.5}}", "threshold", "multi_label"),
        ("threshold: high", "threshold", "a number"),
        ("{task: multi_label, labels: [a, b], threshold: [0.5]}", "threshold", "one for each"),
        ("{task: multi_label, labels: [a, b], threshold: {c: 0.5}}", "threshold", "no label 'c'"),
        ("{task: multi_label, threshold: [0.5, x]}", "threshold", "numbers"),
        ("top_k: 0", "top_k", "greater than 0"),
        ("top_k: many", "top_k", "integer"),
    ],
)
def test_a_wrong_value_is_an_error_with_the_key_and_the_right_values(text: str, key: str, right: str) -> None:
    found = problem(text)
    assert found.startswith(f"{key}: "), found
    assert right in found
    assert "default" not in found  # pydantic's error for the dtype that follows from the wrong key


def test_thresholds_of_labels_in_a_file_are_checked(tmp_path: Path) -> None:
    (tmp_path / "net.keras").write_bytes(b"weights")
    (tmp_path / "labels.txt").write_text("cat\ndog\n", encoding="utf-8")
    keys = {"name": "net", "file": "net.keras", "labels_file": "labels.txt", "task": "multi_label", "input": {"shape": [8, 6, 3]}}
    assert spec_of(tmp_path, threshold={"dog": 0.8}, **keys).threshold == {"dog": 0.8}
    (tmp_path / "model.yaml").write_text(yaml.safe_dump(keys | {"threshold": {"cow": 0.8}}), encoding="utf-8")
    with pytest.raises(ConfigurationError, match=r"model\.yaml: threshold: there is no label 'cow'"):
        load_spec(tmp_path)


def test_a_variant_changes_single_values_of_input_and_output() -> None:
    text = """
    input: {shape: [8, 6, 3], scale: 1/255}
    output: {activation: softmax}
    task: single_label
    variants:
      other: {input: {channel_order: bgr}, task: multi_label, output: {activation: sigmoid}}
    """
    document = {"name": "net", "file": "net.keras"} | yaml.safe_load(text)
    parent, variant = read_document(document, folder=Path(), origin="test")
    assert (parent.output.activation, parent.task) == (Activation.SOFTMAX, Task.SINGLE_LABEL)
    assert (variant.output.activation, variant.task) == (Activation.SIGMOID, Task.MULTI_LABEL)
    assert variant.input.scaling is not None
    assert (variant.input.scale, variant.input.channel_order) == (parent.input.scale, "bgr")


def test_a_description_crosses_to_the_predictor_process() -> None:
    model = described("{input: {shape: [8, 6, 3], scale: imagenet}, task: multi_label, labels: [a], threshold: {a: 0.1}}")
    assert model.input.scaling is not None
    assert pickle.loads(pickle.dumps(model)) == model  # noqa: S301 the test's own bytes
