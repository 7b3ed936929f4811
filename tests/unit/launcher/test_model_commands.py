"""`models init`, `models check` and the description that `serve` makes, as they are typed."""

from __future__ import annotations

import shutil
from pathlib import Path

import keras
import orjson
import pytest
import yaml
from support.model_files import network, rescaled, save_onnx

import server
from inference.launcher.model_commands import join_scale
from inference.launcher.served_files import ServedFiles
from inference.models.description_file import read_folder
from inference.models.inspection.description import Choices, model_name
from inference.settings import Settings
from inference.settings.installation import APPLICATION

Captured = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", "")  # the commands set it; this puts it back


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with models, each of which says something else of itself."""
    folder = tmp_path_factory.mktemp("saved")
    layers = keras.layers
    rescaled().save(folder / "scaled.keras")
    network().save(folder / "plain.keras")
    network(last=[layers.Dense(3)]).save(folder / "bare.keras")
    rescaled(layers.Dense(3)).save(folder / "logits.keras")
    rescaled(layers.Dense(1, activation="sigmoid")).save(folder / "binary.keras")
    rescaled(layers.Dense(3, activation="sigmoid")).save(folder / "multi.keras")
    network(first=[layers.Rescaling(1 / 255)], shape=(None, None, 3)).save(folder / "open.keras")
    network(first=[layers.Rescaling(2.0, offset=-1)]).save(folder / "odd.keras")
    picture = keras.Input((16, 16, 3))
    flat = layers.Flatten()(layers.Rescaling(1 / 255)(picture))
    outputs = {"kind": layers.Dense(3, activation="softmax")(flat), "age": layers.Dense(2)(flat)}
    keras.Model(picture, outputs).save(folder / "two.keras")
    rescaled().export(folder / "exported", verbose=False)
    save_onnx(folder / "net.onnx", names='["rose", "tulip", "daisy"]')
    save_onnx(folder / "last.onnx", layout="nhwc")
    return folder


def take(saved: Path, name: str, *, labels: str | None = None) -> str:
    """Copy a model to the working directory, with a labels.txt beside it."""
    copy = shutil.copytree if (saved / name).is_dir() else shutil.copy
    copy(saved / name, name)
    if labels is not None:
        Path("labels.txt").write_bytes(labels.encode())
    return name


def init(capsys: Captured, *arguments: str) -> dict[str, object]:
    code = server.main(["models", "init", *arguments])
    printed = capsys.readouterr()
    assert (code, printed.err) == (0, "")
    document: dict[str, object] = yaml.safe_load(printed.out)
    return document


def refusal(capsys: Captured, *arguments: str) -> str:
    assert server.main(["models", "init", *arguments]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    return printed.err.removeprefix("error: ").rstrip("\n")


def test_description_of_a_model_with_rescaling_needs_nothing_more(saved: Path, capsys: Captured) -> None:
    document = init(capsys, take(saved, "scaled.keras", labels="\ufeffrose\r\ntulip\r\ndaisy\r\n\r\n"))

    assert document == {
        "name": "scaled",
        "version": "1",
        "file": "scaled.keras",
        "labels_file": "labels.txt",
        "input": {"shape": [16, 16, 3], "scale": "none", "dtype": "uint8", "raw": "pixels", "resize": "center_crop"},
    }


def test_written_description_is_read_again_as_the_same_model(saved: Path, tmp_path: Path, capsys: Captured) -> None:
    take(saved, "logits.keras", labels="rose\ntulip\ndaisy")
    options = (
        "--activation",
        "softmax",
        "--scale",
        "-1..1",
        "--threshold",
        "0.5",
        "--channel-order",
        "bgr",
        "--resize",
        "stretch",
    )
    document = init(capsys, "logits.keras", *options)
    server.main(["models", "init", "logits.keras", *options])
    (tmp_path / "model.yaml").write_text(capsys.readouterr().out, encoding="utf-8")

    (model,) = read_folder(tmp_path)
    assert (model.name, model.threshold, model.input.scale, model.output.activation) == ("logits", 0.5, "-1..1", "softmax")
    assert (model.input.channel_order, model.input.resize, model.input.dtype) == ("bgr", "stretch", "float32")
    assert model.model_dump(mode="json", exclude_unset=True) == document


def test_paths_of_a_description_are_relative_to_the_folder_of_the_model(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    take(saved, "scaled.keras", labels="rose\ntulip\ndaisy")
    (tmp_path / "a b").mkdir()
    for name in ("scaled.keras", "labels.txt"):
        (tmp_path / name).rename(tmp_path / "a b" / name)
    assert server.main(["models", "init", "a b/scaled.keras"]) == 0
    text = capsys.readouterr().out
    (tmp_path / "a b" / "model.yaml").write_text(text, encoding="utf-8")

    (model,) = read_folder(tmp_path / "a b")
    assert (model.file, model.labels_file) == ("scaled.keras", "labels.txt")
    assert "Save it as a b/model.yaml\n" in text
    assert "serve it with: server.py serve 'a b'\n" in text
    Path("elsewhere").mkdir()
    monkeypatch.chdir("elsewhere")
    assert init(capsys, "../a b/scaled.keras")["file"] == "scaled.keras"


def test_numbered_labels_with_a_gap_are_refused_until_others_are_named(tmp_path: Path, capsys: Captured) -> None:
    save_onnx(tmp_path / "net.onnx", names="{1: 'rose', 2: 'tulip', 3: 'daisy'}")
    said = refusal(capsys, "net.onnx", "--scale", "none")
    assert said == (
        "net.onnx has 3 labels in its metadata, and none for class 0: classes count from 0; name the labels with --labels FILE"
    )
    (tmp_path / "names.txt").write_text("rose\ntulip\ndaisy", encoding="utf-8")
    assert init(capsys, "net.onnx", "--scale", "none", "--labels", "names.txt")["labels_file"] == "names.txt"


@pytest.mark.parametrize("name", ["plain.keras", "net.onnx"])
def test_scaling_that_the_file_does_not_say_is_asked_for(saved: Path, capsys: Captured, name: str) -> None:
    take(saved, name)
    said = refusal(capsys, name)

    assert said.startswith(f"{name} has no Rescaling or Normalization layer at its input; say what it was trained with")
    for choice in ("--scale 1/255 ", "--scale -1..1 ", "--scale imagenet ", "--scale none ", "input.scale"):
        assert choice in said
    document = init(capsys, name, "--scale", "imagenet")
    assert document["input"]["scale"] == "imagenet"  # type: ignore[index]


def test_scaling_that_is_not_made_for_pixels_is_asked_for(saved: Path, capsys: Captured) -> None:
    said = refusal(capsys, take(saved, "odd.keras"))

    assert said.startswith("odd.keras is not made for pixels of 0 to 255: a Rescaling layer would make them -1 to 509;")


def test_activation_of_logits_is_asked_for(saved: Path, capsys: Captured) -> None:
    said = refusal(capsys, take(saved, "logits.keras"))

    assert said.startswith("logits.keras ends in no activation, so it gives logits; say what makes probabilities of them")
    for choice in ("softmax ", "sigmoid ", "none "):
        assert f"--activation {choice}" in said
    assert init(capsys, "logits.keras", "--activation", "softmax")["output"] == {"activation": "softmax"}


def test_output_with_the_classes_is_asked_for(saved: Path, capsys: Captured) -> None:
    said = refusal(capsys, take(saved, "two.keras", labels="rose\ntulip\ndaisy"))

    assert said.startswith("two.keras has 2 outputs; say which has the classes (in a model.yaml: output.name):\n")
    assert "  --output kind  3 values for an image, softmax" in said
    assert "  --output age   2 values for an image, linear" in said
    assert init(capsys, "two.keras", "--output", "kind")["output"] == {"name": "kind"}
    assert "two.keras ends in no activation" in refusal(capsys, "two.keras", "--output", "age")
    assert refusal(capsys, "two.keras", "--output", "kinds").startswith("two.keras has no output kinds; it has ")


def test_all_that_is_open_is_asked_for_at_once(saved: Path, capsys: Captured) -> None:
    said = refusal(capsys, take(saved, "bare.keras"))

    assert said.startswith("bare.keras has no Rescaling or Normalization layer at its input;")
    assert "\nbare.keras ends in no activation, so it gives logits;" in said
    assert init(capsys, "bare.keras", "--scale", "1/255", "--activation", "softmax")["output"] == {"activation": "softmax"}


def test_choices_against_the_file_are_refused_or_said(saved: Path, capsys: Captured) -> None:
    said = refusal(capsys, take(saved, "binary.keras"), "--activation", "softmax")
    assert said == "binary.keras ends in a sigmoid already; leave --activation out"

    assert server.main(["models", "init", "binary.keras", "--scale", "1/255"]) == 0
    assert "scaled by --scale 1/255, although a Rescaling layer scales them too" in capsys.readouterr().out


def test_models_of_one_name_are_refused_with_the_ways_out(saved: Path, tmp_path: Path, capsys: Captured) -> None:
    take(saved, "scaled.keras")
    (tmp_path / "other").mkdir()
    shutil.copy("scaled.keras", "other/scaled.keras")

    assert server.main(["serve", "scaled.keras", "other/scaled.keras"]) == 2
    assert capsys.readouterr().err.startswith("error: several models are named scaled; rename a file, or write a model.yaml")


def test_sizes_that_are_open_are_asked_for(saved: Path, capsys: Captured) -> None:
    assert "--size HEIGHTxWIDTH" in refusal(capsys, take(saved, "open.keras"))
    assert init(capsys, "open.keras", "--size", "20x30")["input"]["shape"] == [20, 30, 3]  # type: ignore[index]
    take(saved, "scaled.keras")
    assert refusal(capsys, "scaled.keras", "--size", "20x30") == "scaled.keras takes images of 16x16; leave --size out"


def test_sigmoids_are_two_classes_or_several_labels(saved: Path, capsys: Captured) -> None:
    assert "task" not in init(capsys, take(saved, "binary.keras", labels="cat\ndog"))
    assert init(capsys, take(saved, "multi.keras", labels="cat\ndog\ncow"))["task"] == "multi_label"


def test_layout_is_that_of_the_shape(saved: Path, capsys: Captured) -> None:
    first = init(capsys, take(saved, "net.onnx"), "--scale", "1/255")
    last = init(capsys, take(saved, "last.onnx"), "--scale", "1/255")

    assert (first["input"]["shape"], first["input"]["layout"]) == ([16, 16, 3], "nchw")  # type: ignore[index]
    assert first["labels"] == ["rose", "tulip", "daisy"]
    assert last["input"] == {"shape": [16, 16, 3], "scale": "1/255", "raw": "pixels", "resize": "center_crop"}


def test_saved_model_is_described_by_its_folder(saved: Path, capsys: Captured) -> None:
    assert init(capsys, take(saved, "exported"))["file"] == "exported"


def test_count_of_labels_that_does_not_fit_is_said_with_both_numbers(saved: Path, capsys: Captured) -> None:
    said = refusal(capsys, take(saved, "scaled.keras", labels="rose\ntulip"))
    assert said == "scaled.keras has 3 classes, and there are 2 labels from labels.txt beside it"
    Path("other.txt").write_text("a\nb\nc\nd", encoding="utf-8")
    said = refusal(capsys, "scaled.keras", "--labels", "other.txt")
    assert said == "scaled.keras has 3 classes, and there are 4 labels from other.txt"


def test_file_that_is_no_model_is_one_clear_line(saved: Path, tmp_path: Path, capsys: Captured) -> None:
    for name in ("x.keras", "x.pth", "x.pkl", "x.txt"):
        (tmp_path / name).write_text("nothing", encoding="utf-8")
    (tmp_path / "folder").mkdir()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "x.h5").touch()

    assert refusal(capsys, "missing.keras") == "there is no file missing.keras"
    assert refusal(capsys, "x.keras") == "x.keras is not a Keras 3 file, which is a zip archive, or is damaged"
    assert "export the model with torch.onnx.export" in refusal(capsys, "x.pth")
    assert "x.pkl is a pickle, which runs code" in refusal(capsys, "x.pkl")
    assert refusal(capsys, "x.txt").startswith("x.txt is not a model: serve a *.keras, ")
    assert refusal(capsys, "folder").startswith("folder is a folder without a model.yaml, and not a SavedModel")
    assert refusal(capsys, "other").endswith("; name a file in it: x.h5")
    assert refusal(capsys, "http://host/x.keras") == "http://host/x.keras: must be a path or s3://BUCKET/KEY"


@pytest.mark.parametrize("labels", ["missing.txt", "empty.txt"])
def test_labels_that_cannot_be_read_are_an_error(saved: Path, capsys: Captured, labels: str) -> None:
    Path("empty.txt").touch()
    said = refusal(capsys, take(saved, "scaled.keras"), "--labels", labels)

    assert labels in said
    assert "\n" not in said


def test_options_of_a_description_are_refused_for_a_model_that_has_one(repository: Path, capsys: Captured) -> None:
    said = refusal(capsys, str(repository / "models" / "digits"), "--scale", "none")

    assert said.endswith("models/digits/model.yaml describes the model; change it, and leave --scale out")


def test_name_and_labels_are_for_one_model(saved: Path, capsys: Captured) -> None:
    files = (take(saved, "scaled.keras"), take(saved, "binary.keras"))
    assert server.main(["serve", *files, "--name", "net"]) == 2
    assert capsys.readouterr().err.startswith("error: --name and --labels are for one model")


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("flowers.keras", "flowers"),
        ("My Flowers.keras", "my-flowers"),
        ("Blümchen (neu).h5", "blumchen-neu"),
        ("resnet_v1.5.onnx", "resnet_v1.5"),
        ("exported", "exported"),
        ("_.keras", "model"),
        ("花.keras", "model"),
        ("x" * 90 + ".keras", "x" * 64),
    ],
)
def test_name_of_a_model_is_made_of_its_file(file: str, name: str) -> None:
    assert model_name(file) == name


def test_scale_that_begins_with_a_minus_is_a_value() -> None:
    assert join_scale(["serve", "a", "--scale", "-1..1"]) == ["serve", "a", "--scale=-1..1"]
    assert join_scale(["serve", "--scale", "--name"]) == ["serve", "--scale", "--name"]


@pytest.mark.process
def test_check_times_a_model_with_each_runtime_and_classifies_a_photo(saved: Path, repository: Path, capsys: Captured) -> None:
    take(saved, "scaled.keras", labels="rose\ntulip\ndaisy")
    photo = str(repository / "samples" / "chelsea.jpg")
    code = server.main(["models", "check", "scaled.keras", "--image", photo, "--json"])
    (document,) = orjson.loads(capsys.readouterr().out)

    assert code == 0
    (found,) = document["found"]
    assert found.startswith("scaled: Keras, images 16x16x3 float32, 3 classes (softmax), labels from labels.txt beside it, ")
    assert found.endswith("pixels as they are (a Rescaling layer makes them 0 to 1)")
    chosen, other = document["trials"]
    assert [chosen["is_chosen"], other["is_chosen"]] == [True, False]
    assert {chosen["runtime"], other["runtime"]} == {"LiteRT", "TensorFlow"}
    for trial in (chosen, other):
        assert list(trial["cost_ms"]) == ["1", "2", "4", "8", "16", "32"]
        assert min(trial["cost_ms"].values()) > 0
        assert trial["memory_mb"] > 50
        assert [guess["confidence"] for guess in trial["top"]] == sorted(
            (guess["confidence"] for guess in trial["top"]), reverse=True
        )
    assert [guess["label"] for guess in chosen["top"]] == [guess["label"] for guess in other["top"]]


def test_a_served_file_allows_no_other_file_of_its_folder(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands over HTTP may name each allowed file, and the folder may be a home."""
    monkeypatch.setenv("PYTHONPATH", str(APPLICATION))
    take(saved, "scaled.keras", labels="a\nb\nc\n")
    files = ServedFiles(Settings())
    files.read("scaled.keras", Choices())
    here = Path.cwd()
    assert not any(here.is_relative_to(folder.resolve()) for folder in files.allowed)
    assert {here / "scaled.keras", here / "labels.txt"} <= set(files.allowed)
