"""The key `code` of a description: the file is found, read as text, and part of the digest; nothing of it runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import graph_files
from support.models import spec_of

from inference.errors import ConfigurationError, InvalidMetadata, ObjectNotFound
from inference.imaging import ImageLimits, inspect
from inference.models.files import ModelFiles
from inference.models.loading.conversions import _key
from inference.models.model_code import CodeLocation, find_methods
from inference.models.spec import ModelSpec
from inference.settings import ModelFileSettings, Settings

#: fails if anything runs it
CODE = """
raise SystemExit("this file must not run here")
class Flowers:
    def preprocess(self, image): ...
class After:
    def postprocess(self, vector): ...
class Neither:
    async def preprocess(self, image): ...
    postprocess = None
"""
INPUT = {"shape": [graph_files.HEIGHT, graph_files.WIDTH, 3], "layout": "nchw", "dtype": "float32"}


def described(folder: Path, code: str = "classifier.py:Flowers", **changes: Any) -> ModelSpec:
    graph_files.save(graph_files.classifier(), folder)
    return spec_of(folder, **{"name": "flowers", "file": "m.onnx", "input": INPUT, "code": code} | changes)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "classifier.py").write_text(CODE, encoding="utf-8")
    return tmp_path


@pytest.mark.parametrize(
    "text", ["classifier.py", "classifier:Flowers", ":Flowers", ".py:Flowers", "a.py:", "a.py:1", "a.py:A.B", "a.py:A B", 7]
)
def test_anything_but_a_file_and_a_class_is_refused_with_an_example(folder: Path, text: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"test: code: must be FILE\.py:CLASS, such as classifier\.py:Flowers"):
        described(folder, text)


@pytest.mark.parametrize("text", ["s3://models/classifier.py:Flowers", "http://host/classifier.py:Flowers"])
def test_code_from_a_bucket_or_the_web_is_refused(folder: Path, text: str) -> None:
    with pytest.raises(ConfigurationError, match="code: must be a file of this host"):
        described(folder, text)


@pytest.mark.parametrize(
    "changes",
    [
        {"file": "s3://models/m.onnx"},
        {"labels_file": "s3://models/labels.txt"},
        {"file": None, "architecture_file": "net.json", "weights_file": "s3://models/net.h5"},
    ],
)
def test_a_model_with_files_from_a_bucket_runs_no_code(folder: Path, changes: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match="runs no code") as caught:
        described(folder, **changes)
    assert caught.value.field == "code"


def test_weights_from_a_bucket_by_a_command_are_refused_and_local_ones_keep_the_code(folder: Path) -> None:
    spec = described(folder)
    graph_files.save(graph_files.classifier(size=("H", "W")), folder, "other.onnx")
    files = ModelFiles(Settings(model_files=ModelFileSettings(allowed_folders=(folder,), cache_dir=folder)))
    other = files.with_files(spec, weights_file=str(folder / "other.onnx"))
    assert (other.code, other.code_file, other.has_preprocess) == (spec.code, spec.code_file, True)
    assert other.digest != spec.digest
    with pytest.raises(ConfigurationError, match="runs no code") as caught:
        files.with_files(spec, weights_file="s3://models/m.onnx")
    assert caught.value.field == "code"


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        ("class Flower:\n  def preprocess(self, image): ...", "no class Flowers at its top level; its classes: Flower"),
        ("", "its classes: none"),
        ("class Flowers:\n  pass", "defines neither preprocess nor postprocess"),
        ("class Flowers\n", r"is not Python: .*\(line 1\)"),
        ("\0", "is not Python"),
        ("(" * 100_000, "is not Python"),
        ("#" * (2**20 + 1), "has more than 1048576 bytes"),
    ],
)
def test_a_file_without_such_a_class_is_refused_before_anything_runs(folder: Path, source: str, problem: str) -> None:
    (folder / "classifier.py").write_text(source, encoding="utf-8")
    with pytest.raises(ConfigurationError, match=problem) as caught:
        described(folder)
    assert (caught.value.field, str(folder) in caught.value.public) == ("code", False)


def test_methods_are_read_from_the_text(folder: Path) -> None:
    found = {name: find_methods(folder / "classifier.py", CodeLocation("classifier.py", name)) for name in ("Flowers", "After")}
    assert found == {"Flowers": {"preprocess"}, "After": {"postprocess"}}
    with pytest.raises(ConfigurationError, match=r"the class Neither in classifier.py defines neither"):
        described(folder, "classifier.py:Neither")


def test_a_missing_file_and_one_outside_the_allowed_folders_are_refused(
    folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    outside = tmp_path_factory.mktemp("outside") / "classifier.py"
    outside.write_text(CODE, encoding="utf-8")
    (folder / "link.py").symlink_to(outside)
    for code in (f"{outside}:Flowers", "link.py:Flowers", f"../{outside.parent.name}/classifier.py:Flowers"):
        with pytest.raises(ConfigurationError, match=r"not in a folder that models may come from \(model_files.allowed_folders"):
            described(folder, code)
    with pytest.raises(ObjectNotFound, match="there is no file") as caught:
        described(folder, "missing.py:Flowers")
    assert caught.value.field == "code"


def test_the_code_is_in_the_digest_and_not_in_the_key_of_the_conversion(folder: Path) -> None:
    first = described(folder)
    without = spec_of(folder, name="flowers", file="m.onnx", input=INPUT)
    (folder / "classifier.py").write_text(f"{CODE}\n# changed", encoding="utf-8")
    second = described(folder)
    assert len({first.digest, second.digest, without.digest}) == 3
    assert _key(first, [1]) == _key(second, [1]) == _key(without, [1])
    graph_files.save(graph_files.classifier(size=("H", "W")), folder)
    changed = spec_of(folder, name="flowers", file="m.onnx", input=INPUT)
    assert _key(changed, [1]) != _key(without, [1])


def test_preprocess_gets_pixels_and_other_code_changes_no_input(folder: Path) -> None:
    spec = described(folder)
    assert spec.image_input.array_shape == (graph_files.HEIGHT, graph_files.WIDTH, 3)
    assert (spec.image_input.dtype, spec.input.dtype) == ("uint8", "float32")
    after = described(folder, "classifier.py:After")
    assert after.image_input is after.input
    limits, image = ImageLimits(10_000), np.zeros((graph_files.HEIGHT, graph_files.WIDTH, 3), np.uint8)
    header = inspect(image.tobytes(), shape=image.shape, dtype="uint8", content_type=None, spec=spec.image_input, limits=limits)
    assert header.shape == image.shape
    floats = image.astype(np.float32)
    with pytest.raises(InvalidMetadata, match="without loss"):
        inspect(floats.tobytes(), shape=image.shape, dtype="float32", content_type=None, spec=spec.image_input, limits=limits)


@pytest.mark.parametrize(
    ("key", "value"), [("scale", "1/255"), ("scale", "imagenet"), ("mean", 3), ("std", 2), ("channel_order", "bgr")]
)
def test_a_key_that_preprocess_replaces_is_refused(folder: Path, key: str, value: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"preprocess of classifier.py:Flowers gets pixels") as caught:
        described(folder, input=INPUT | {key: value})
    assert caught.value.field == f"input.{key}"
    described(folder, "classifier.py:After", input=INPUT | {key: value})
