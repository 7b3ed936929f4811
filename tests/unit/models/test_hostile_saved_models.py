"""SavedModels that reach files outside of their folder, other hosts or Python: each is refused."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

from inference.errors import ConfigurationError
from inference.models.loading import load_model
from inference.models.loading.tensorflow import saved_model
from inference.models.registry import ModelRegistry
from inference.settings import ModelFileSettings, Settings


class TestFolders:
    """A SavedModel's folder."""

    def load(self, folder: Path) -> None:
        description = {"name": "net", "file": str(folder), "input": {"shape": [2, 2, 1], "dtype": "float32", "raw": "pixels"}}
        settings = Settings(models=(description,), model_files=ModelFileSettings(allowed_folders=(folder.parent,)))
        load_model(ModelRegistry.load(settings).get())

    @pytest.fixture
    def folder(self, tmp_path: Path, saved: Path) -> Path:
        folder = tmp_path / "allowed" / "net"
        for file in saved.glob("saved/**/*"):
            if file.is_file():
                target = folder / file.relative_to(saved / "saved")
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(file.read_bytes())
        return folder

    def test_a_link_within_the_allowed_folders_is_taken(self, folder: Path) -> None:
        graph = folder / "saved_model.pb"
        graph.rename(folder.parent / "blob")
        graph.symlink_to("../blob")
        self.load(folder)

    def test_a_file_that_a_link_leads_to_outside_is_refused(self, folder: Path, tmp_path: Path) -> None:
        graph = folder / "saved_model.pb"
        graph.rename(tmp_path / "blob")
        graph.symlink_to(tmp_path / "blob")
        with pytest.raises(ConfigurationError, match="is not in a folder that models may come from"):
            self.load(folder)

    def test_a_folder_that_a_link_leads_to_is_refused(self, folder: Path) -> None:
        (folder / "variables").rename(folder.parent / "other")
        (folder / "variables").symlink_to("../other")
        with pytest.raises(ConfigurationError, match="net has a link to a folder or to a missing file: variables"):
            self.load(folder)

    def test_a_pipe_is_refused(self, folder: Path) -> None:
        os.mkfifo(folder / "variables" / "pipe")
        with pytest.raises(ConfigurationError, match="net has a special file: variables/pipe"):
            self.load(folder)

    @pytest.mark.parametrize("name", ["../../secret", "/etc/hostname", "missing"])
    def test_an_asset_that_is_no_file_of_it_is_refused(self, folder: Path, tmp_path: Path, name: str) -> None:
        (tmp_path / "secret").write_text("x")
        graph = saved_model_pb2.SavedModel.FromString((folder / "saved_model.pb").read_bytes())
        graph.meta_graphs[0].asset_file_def.add().filename = name
        (folder / "saved_model.pb").write_bytes(graph.SerializeToString())
        with pytest.raises(ConfigurationError, match="names an asset that is not a file in its folder assets"):
            self.load(folder)


SECRET = "SECRET-OF-THIS-HOST"


class Reading(tf.Module):
    """Classifies by a text that a graph has got from `operation`, which takes a path."""

    def __init__(self, operation: Callable[[str], tf.Tensor], path: str) -> None:
        super().__init__()
        self._operation, self._path = operation, path

    @tf.function(input_signature=[tf.TensorSpec((None, 2, 2, 1), tf.float32)])
    def __call__(self, images: tf.Tensor) -> tf.Tensor:
        length = tf.cast(tf.strings.length(self._operation(self._path)), tf.float32)
        return tf.nn.softmax(tf.reshape(images, (-1, 4)) * length)


def read_lines(path: str) -> tf.Tensor:
    return tf.data.TextLineDataset(path).reduce("", lambda state, line: state + line)


def print_to(path: str) -> tf.Tensor:
    tf.print("x", output_stream=f"file://{path}")
    return tf.constant("x")


def write_file(path: str) -> tf.Tensor:
    tf.io.write_file(path, "x")
    return tf.constant("x")


def restore(path: str) -> tf.Tensor:
    return tf.strings.as_string(
        tf.raw_ops.RestoreV2(prefix=path, tensor_names=["a"], shape_and_slices=[""], dtypes=[tf.float32])[0]
    )


def call_python(path: str) -> tf.Tensor:
    return tf.py_function(lambda: Path(path).read_text(), [], tf.string)


def read_glob(path: str) -> tf.Tensor:
    return tf.strings.reduce_join(tf.io.matching_files(path + "*"))


OPERATIONS: list[Callable[[str], tf.Tensor]] = [
    tf.io.read_file, read_lines, print_to, write_file, restore, call_python, read_glob,
]  # fmt: skip


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.__name__)
def test_a_graph_that_reaches_files_or_python_is_refused(tmp_path: Path, operation: Callable[[str], tf.Tensor]) -> None:
    secret, target = tmp_path / "secret", tmp_path / "target"
    secret.write_text(SECRET)
    folder = tmp_path / "net"
    tf.saved_model.save(Reading(operation, str(target if operation in (print_to, write_file) else secret)), str(folder))
    target.unlink(missing_ok=True)  # tracing may have written it
    with pytest.raises(ConfigurationError, match="reaches files, other hosts or Python") as refused:
        saved_model.read_signature(folder)
    assert SECRET not in refused.value.detail
    assert not target.exists()


class Labelling(tf.Module):
    """Classifies by the words of a file, which the SavedModel has as an asset unless the graph names the file itself."""

    def __init__(self, words: Path, *, is_asset: bool) -> None:
        super().__init__()
        initializer = tf.lookup.TextFileInitializer(str(words), tf.string, 0, tf.int64, 1)
        self._words = tf.lookup.StaticHashTable(initializer, -1)
        self._path, self._is_asset = str(words), is_asset

    @tf.function(input_signature=[tf.TensorSpec((None, 2, 2, 1), tf.float32)])
    def __call__(self, images: tf.Tensor) -> tf.Tensor:
        if not self._is_asset:
            tf.raw_ops.InitializeTableFromTextFileV2(
                table_handle=self._words.resource_handle, filename=self._path, key_index=0, value_index=1
            )
        return tf.nn.softmax(tf.reshape(images, (-1, 4)) * tf.cast(self._words.lookup(tf.constant("a")), tf.float32))


@pytest.mark.parametrize("is_asset", [True, False])
def test_a_graph_may_read_its_own_words_and_no_other_file(tmp_path: Path, is_asset: bool) -> None:
    (tmp_path / "words.txt").write_text("a\t1\nb\t2\n")
    tf.saved_model.save(Labelling(tmp_path / "words.txt", is_asset=is_asset), str(tmp_path / "net"))
    (tmp_path / "words.txt").unlink()
    if is_asset:
        assert saved_model.read_signature(tmp_path / "net")(tf.zeros((1, 2, 2, 1)))
    else:
        with pytest.raises(ConfigurationError, match="reaches files, other hosts or Python"):
            saved_model.read_signature(tmp_path / "net")
