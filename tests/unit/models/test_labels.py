"""Labels, and the texts that describe a model, as people's editors and other systems save them."""

from __future__ import annotations

import codecs
import json
from pathlib import Path
from typing import Any

import keras
import pytest
import yaml
from support.models import load_spec, spec_of

from inference.errors import ConfigurationError
from inference.models.loading import load_model
from inference.settings import load_settings

BOM = codecs.BOM_UTF8


def write_model(folder: Path, labels: bytes, *, mark: bytes = b"") -> Path:
    """A folder with a model.yaml that begins with `mark`, and a labels file."""
    description = {"name": "flowers", "file": "m.keras", "labels_file": "labels.txt", "input": {"shape": [8, 6, 3]}}
    (folder / "m.keras").write_bytes(b"weights")
    (folder / "labels.txt").write_bytes(labels)
    (folder / "model.yaml").write_bytes(mark + yaml.safe_dump(description).encode())
    return folder


@pytest.mark.parametrize(
    "content",
    [
        b"rose\ntulip\noak tree\n",
        b"rose\ntulip\noak tree",
        BOM + b"rose\ntulip\noak tree\n",
        BOM + b"rose\r\ntulip\r\noak tree\r\n",
        b"rose\rtulip\roak tree\r",
        b"rose\r\ntulip\noak tree\r\n",
        b"rose \ntulip\t\n oak tree\n",
        b"rose\ntulip\noak tree\n\n\r\n \n\t",
        BOM + b"rose\n" + BOM + b"tulip\noak tree\n" + BOM,  # files with a mark each, joined
    ],
)
def test_marks_line_ends_and_spaces_are_no_part_of_labels(tmp_path: Path, content: bytes) -> None:
    assert load_spec(write_model(tmp_path, content)).labels == ("rose", "tulip", "oak tree")


def test_what_is_inside_a_label_stays(tmp_path: Path) -> None:
    """Also what Python takes for the end of a line: another line would move the labels of all classes after it."""
    labels = ("n01440764\ttench", "a\u2028b", "form\x0cfeed", "next\x85line", "crane", "crane", "日本")
    assert load_spec(write_model(tmp_path, "\n".join(labels).encode())).labels == labels


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("rose\ntulip\n".encode("utf-16"), "is not text in UTF-8, but in UTF-16 or UTF-32, or binary; save it as UTF-8"),
        ("rose\ntulip\n".encode("utf-16-be"), "is not text in UTF-8, but in UTF-16"),
        ("rose\ntulip\n".encode("utf-32"), "is not text in UTF-8, but in UTF-16 or UTF-32"),
        ("rose\nfärg\n".encode("latin-1"), "is not text in UTF-8: line 2 has the byte 0xe4; save it as UTF-8"),
        (b"rose\n\ntulip\n", "has no label in line 2; each line is a class, in order"),
        (b"rose\r\n  \r\ntulip\r\n", "has no label in line 2"),
        (b"\nrose\n", "has no label in line 1"),
        (b"", "has no labels"),
        (BOM, "has no labels"),
        (b"\r\n \n", "has no labels"),
    ],
)
def test_a_file_that_gives_a_class_a_wrong_label_is_refused(tmp_path: Path, content: bytes, says: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load_spec(write_model(tmp_path, content))
    assert caught.value.field == "labels_file"
    assert f"model.yaml: labels_file: labels.txt {says}" in caught.value.detail


def test_a_folder_where_the_labels_should_be_is_refused(tmp_path: Path) -> None:
    folder = write_model(tmp_path, b"")
    (folder / "labels.txt").unlink()
    (folder / "labels.txt").mkdir()
    with pytest.raises(ConfigurationError, match=r"labels_file: labels\.txt: Is a directory"):
        load_spec(folder)


@pytest.mark.parametrize("mark", [b"", BOM])
def test_a_description_may_begin_with_a_mark(tmp_path: Path, mark: bytes) -> None:
    assert load_spec(write_model(tmp_path, b"rose\n", mark=mark)).name == "flowers"


class TestInADescription:
    @staticmethod
    def described(folder: Path, labels: list[Any]) -> tuple[str, ...]:
        (folder / "m.keras").write_bytes(b"weights")
        return spec_of(folder, name="flowers", file="m.keras", labels=labels, input={"shape": [8, 6, 3]}).labels

    def test_labels_are_cleaned_too(self, tmp_path: Path) -> None:
        assert self.described(tmp_path, ["\ufeffrose", " tulip\r\n", 3, "rose"]) == ("rose", "tulip", "3", "rose")

    @pytest.mark.parametrize(
        ("label", "says"),
        [
            ("", "a label must not be empty"),
            (" \ufeff", "a label must not be empty"),
            (True, "YAML reads it as true; put it into quotes"),
            (False, "YAML reads it as false; put it into quotes"),
            (None, "YAML reads it as null; put it into quotes"),
        ],
    )
    def test_what_is_no_label_is_refused(self, tmp_path: Path, label: Any, says: str) -> None:
        with pytest.raises(ConfigurationError, match=f"labels.1: {says}"):
            self.described(tmp_path, ["rose", label])


@pytest.mark.parametrize(("label", "says"), [(" ", "a label must not be empty"), (False, "YAML reads it as false")])
def test_the_seeds_output_labels_are_checked_by_their_own_key(tmp_path: Path, label: Any, says: str) -> None:
    kind = {
        "input_shape": "32,32,3",
        "architecture_file": "a.json",
        "weights_file": "a.h5",
        "output_labels": ["\ufeffrose", label],
    }
    config = tmp_path / "config.json"
    config.write_text(json.dumps({"model_config": {"chosen_model_type": "t", "model_type": {"t": kind}}}), encoding="utf-8")
    with pytest.raises(ConfigurationError, match=rf"model_config\.model_type\.t\.output_labels\.1: .*{says}"):
        load_settings(config)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_models_json_may_have_a_mark(tmp_path: Path, encoding: str) -> None:
    layers = [keras.Input((8, 6, 3)), keras.layers.Flatten(), keras.layers.Dense(2, activation="softmax")]
    model = keras.Sequential(layers)
    (tmp_path / "m.json").write_text(model.to_json(), encoding=encoding)
    model.save_weights(tmp_path / "m.weights.h5")
    files = {"architecture_file": "m.json", "weights_file": "m.weights.h5"}
    assert load_model(spec_of(tmp_path, name="net", input={"shape": [8, 6, 3]}, **files)).output_size == 2
