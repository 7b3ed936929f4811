"""A folder's model.yaml: what is right is read, and what is wrong is named."""

import hashlib
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from support.models import load_spec

from inference.errors import ConfigurationError
from inference.models.spec import Interpolation, RawArrays, Resize

MODELS = Path(__file__).parents[3] / "models"


def write_model(folder: Path, **changes: Any) -> Path:
    """A folder with a complete description, changed by `changes`; a change to None leaves the key out."""
    document = {"name": "tiny", "file": "tiny.keras", "labels_file": "labels.txt", "input": {"shape": [8, 6, 3]}}
    document = {key: value for key, value in (document | changes).items() if value is not None}
    (folder / "tiny.keras").write_bytes(b"weights")
    (folder / "labels.txt").write_text("cat\ncafé\n", encoding="utf-8")
    (folder / "model.yaml").write_text(yaml.safe_dump(document), encoding="utf-8")
    return folder


def test_a_complete_description_is_read(tmp_path: Path) -> None:
    spec = load_spec(write_model(tmp_path))
    assert spec.local_files["file"].path == tmp_path / "tiny.keras"
    assert spec.queue == "predict.tiny"
    assert spec.labels == ("cat", "café")
    assert spec.labels == ("cat", "café")
    assert spec.digest == "sha256:" + hashlib.sha256(b"weights").hexdigest()
    assert spec.input.numpy_dtype == np.uint8
    assert spec.input.bytes_per_image == 8 * 6 * 3


def test_what_is_left_out_has_its_default(tmp_path: Path) -> None:
    spec = load_spec(write_model(tmp_path, labels_file=None))
    assert spec.version == "1"
    assert spec.labels == ()
    assert spec.labels == ()
    assert spec.input.raw is RawArrays.MODEL_READY
    assert spec.input.resize is Resize.CENTER_CROP
    assert spec.input.crop_fraction == 1
    assert spec.input.interpolation is Interpolation.BICUBIC


def test_bytes_per_image_counts_the_dtype(tmp_path: Path) -> None:
    spec = load_spec(write_model(tmp_path, input={"shape": [8, 6, 1], "dtype": "float32"}))
    assert spec.input.bytes_per_image == 8 * 6 * 4


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"name": None}, "name"),
        ({"name": "Not A Name"}, "name"),
        ({"file": None}, "file"),
        ({"input": None}, "input"),
        ({"input": {}}, "input.shape"),
        ({"input": {"shape": [8, 6]}}, "input.shape.2"),
        ({"input": {"shape": [0, 6, 3]}}, "input.shape.0"),
        ({"input": {"shape": [8, 6, 2]}}, "input.shape.2"),
        ({"input": {"shape": [8, 6, 3], "dtype": "int64"}}, "input.dtype"),
        ({"input": {"shape": [8, 6, 3], "crop_fraction": 0}}, "input.crop_fraction"),
        ({"input": {"shape": [8, 6, 3], "resize": "squash"}}, "input.resize"),
        ({"input": {"shape": [8, 6, 3], "interpolation": "best"}}, "input.interpolation"),
        ({"input": {"shape": [8, 6, 3], "raw": "bytes"}}, "input.raw"),
        ({"input": {"shape": [8, 6, 3], "crop": 1}}, "input.crop"),
        ({"weights": "w.h5"}, "weights"),
        ({"file": "missing.keras"}, "file"),
        ({"file": "s3://bucket"}, "file"),
        ({"file": "https://host/m.keras"}, "file"),
        ({"file": "tiny.keras#sha256=abc"}, "file"),
        ({"file": "tiny.keras#sha256=" + 64 * "0"}, "file"),
        ({"file": None, "architecture_file": "tiny.keras"}, "file"),
        ({"file": None, "weights_file": "tiny.keras"}, "file"),
        ({"architecture_file": "tiny.keras"}, "file"),
        ({"labels": ["cat", "dog"]}, "labels"),
        ({"threshold": float("nan")}, "threshold"),
        ({"predict_timeout_s": 0}, "predict_timeout_s"),
        ({"device": "tpu"}, "device"),
        ({"device": "gpu:"}, "device"),
        ({"variants": ["a"]}, "variants"),
        ({"variants": {"a": {"name": "b"}}}, "variants.a.name"),
        ({"variants": {"Not A Name": {}}}, "variants.Not A Name.name"),
        ({"variants": {"a": {"input": {"dtype": "int8"}}}}, "variants.a.input.dtype"),
        ({"labels_file": "missing.txt"}, "labels_file"),
    ],
)
def test_an_error_names_the_key_and_the_description(tmp_path: Path, changes: dict[str, Any], key: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load_spec(write_model(tmp_path, **changes))
    file, _, problem = caught.value.detail.partition(": ")
    assert file == str(tmp_path / "model.yaml")
    assert problem.startswith(f"{key}: ")


def test_every_problem_is_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load_spec(write_model(tmp_path, name="Bad Name", input={"shape": [8, 6, 3], "dtype": "int8"}))
    assert "name:" in caught.value.detail
    assert "input.dtype:" in caught.value.detail


@pytest.mark.parametrize(
    ("text", "expected"),
    [("- a\n- list\n", "must be a mapping"), ("", "must be a mapping"), ("name: [unclosed", "is not YAML")],
)
def test_a_description_that_is_no_mapping_is_refused(tmp_path: Path, text: str, expected: str) -> None:
    (tmp_path / "model.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(ConfigurationError, match=expected):
        load_spec(tmp_path)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("name: a\nname: b\n", "the key 'name' is there twice"),
        ("version: 2024-13-45\n", "no timestamp in line 1"),
        (f"version: {'9' * 5000}\n", "no int in line 1"),
        ("[" * 50_000, "nested too deeply"),
    ],
    ids=["twice", "date", "long", "deep"],
)
def test_a_description_is_read_as_strictly_as_the_configuration(tmp_path: Path, text: str, expected: str) -> None:
    (tmp_path / "model.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(ConfigurationError, match=expected) as caught:
        load_spec(tmp_path)
    assert "\n" not in caught.value.detail


def test_a_missing_description_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"cannot read .*model\.yaml: No such file"):
        load_spec(tmp_path / "nowhere")


@pytest.mark.parametrize("name", ["efficientnet-lite0", "digits"])
def test_the_models_of_this_repository_are_described(name: str) -> None:
    spec = load_spec(MODELS / name)
    assert spec.name == name == spec.folder.name
    assert all((spec.version, spec.description, spec.license, spec.source, spec.labels))
    assert spec.digest.removeprefix("sha256:") in (spec.folder / "PROVENANCE.md").read_text(encoding="utf-8")


def test_reading_a_description_does_not_import_tensorflow() -> None:
    code = "import sys, inference.models.spec; sys.exit(bool({'tensorflow', 'keras'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], cwd=MODELS.parent, check=False).returncode == 0


def test_a_number_as_version_is_read_as_text(tmp_path: Path) -> None:
    assert load_spec(write_model(tmp_path, version=2)).version == "2"


def test_a_folder_key_is_refused(tmp_path: Path) -> None:
    with (write_model(tmp_path) / "model.yaml").open("a", encoding="utf-8") as description:
        description.write("folder: /elsewhere\n")

    with pytest.raises(ConfigurationError, match="folder: unknown key"):
        load_spec(tmp_path)


def test_a_description_that_is_not_text_is_refused(tmp_path: Path) -> None:
    (write_model(tmp_path) / "model.yaml").write_bytes(b"\xff\xfe\xfa")

    with pytest.raises(ConfigurationError, match="is not YAML"):
        load_spec(tmp_path)


@pytest.mark.parametrize(("content", "says"), [("", "has no labels"), (b"\xff\xfe", "is not text")])
def test_labels_that_are_none_are_refused(tmp_path: Path, content: str | bytes, says: str) -> None:
    write_model(tmp_path)
    (tmp_path / "labels.txt").write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(ConfigurationError, match=f"labels_file: labels.txt {says}"):
        load_spec(tmp_path)


def test_labels_may_stand_in_the_description(tmp_path: Path) -> None:
    assert load_spec(write_model(tmp_path, labels_file=None, labels=["cat", "dog", 3])).labels == ("cat", "dog", "3")


def test_a_fixed_digest_that_is_right_is_fine(tmp_path: Path) -> None:
    digest = hashlib.sha256(b"weights").hexdigest()
    assert load_spec(write_model(tmp_path, file=f"tiny.keras#sha256={digest}")).digest == f"sha256:{digest}"


def test_the_digest_of_several_files_is_of_their_digests(tmp_path: Path) -> None:
    (tmp_path / "tiny.json").write_bytes(b"{}")
    spec = load_spec(write_model(tmp_path, file=None, architecture_file="tiny.json", weights_file="tiny.keras"))
    parts = {"architecture_file": b"{}", "weights_file": b"weights"}
    lines = "".join(f"{key} sha256:{hashlib.sha256(content).hexdigest()}\n" for key, content in parts.items())
    assert spec.digest == "sha256:" + hashlib.sha256(lines.encode()).hexdigest()


def test_the_digest_of_a_folder_changes_with_any_of_its_files(tmp_path: Path) -> None:
    (tmp_path / "saved" / "variables").mkdir(parents=True)
    (tmp_path / "saved" / "saved_model.pb").write_bytes(b"graph")
    folder = write_model(tmp_path, file="saved")
    before = load_spec(folder).digest
    assert load_spec(folder).digest == before
    (tmp_path / "saved" / "variables" / "data").write_bytes(b"weights")
    assert load_spec(folder).digest != before
