"""Model files that are made to fill a disk or memory, to name other files, or to leave their folder: each is refused."""

from __future__ import annotations

import json
import os
import stat
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import IO

import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

from inference.errors import ConfigurationError
from inference.models.archives import DEFAULT_LIMITS, ModelFileLimits, unpack
from inference.models.hdf5 import check_h5
from inference.models.loading import load_model
from inference.models.loading.tensorflow import keras_files, saved_model
from inference.models.locations import FileLocation
from inference.models.object_cache import ObjectCache
from inference.models.registry import ModelRegistry
from inference.settings import ModelFileSettings, Settings

MB = 2**20


def classifier() -> keras.Model:
    return keras.Sequential([keras.Input((2, 2, 1)), keras.layers.Flatten(), keras.layers.Dense(3, activation="softmax")])


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one small model in every form."""
    folder = tmp_path_factory.mktemp("models")
    model = classifier()
    model.save(folder / "m.keras")
    model.save(folder / "m.h5")
    model.save_weights(folder / "m.weights.h5")
    model.export(folder / "saved", verbose=False)
    return folder


def archive_in(folder: Path, *members: tuple[zipfile.ZipInfo | str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    path = folder / "m.zip"
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return path


def info(name: str, *, mode: int = 0) -> zipfile.ZipInfo:
    member = zipfile.ZipInfo(name)
    member.external_attr = mode << 16
    member.compress_type = zipfile.ZIP_DEFLATED
    return member


def refusal_of_archive(path: Path, limits: ModelFileLimits = DEFAULT_LIMITS) -> str:
    target = path.parent / "unpacked"
    with zipfile.ZipFile(path) as archive, pytest.raises(ConfigurationError) as refused:
        unpack(archive, target, limits)
    assert not [found for found in target.rglob("*") if found.stat().st_size > MB]
    return refused.value.detail


class TestArchives:
    @pytest.mark.parametrize(
        "name", ["../m", "a/../../m", "/etc/m", "a\\..\\m", "a/\x1b[2Jm", "\u202egpj.m", "a" * 256, "/".join("a" * 30)]
    )
    def test_a_name_that_is_no_path_below_the_root_is_refused(self, tmp_path: Path, name: str) -> None:
        assert "has a member with a name that is" in refusal_of_archive(archive_in(tmp_path, (info(name), b"x")))

    @pytest.mark.parametrize("mode", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR, stat.S_IFSOCK])
    def test_a_link_or_a_device_is_refused(self, tmp_path: Path, mode: int) -> None:
        path = archive_in(tmp_path, (info("m", mode=mode | 0o777), b"/etc/passwd"))
        assert "is a link or a special file" in refusal_of_archive(path)

    @pytest.mark.filterwarnings("ignore:Duplicate name")
    @pytest.mark.parametrize("names", [("m", "m"), ("m", "./m"), ("m", "m/x"), ("a/b/c", "a/b")])
    def test_two_members_of_one_place_are_refused(self, tmp_path: Path, names: tuple[str, ...]) -> None:
        detail = refusal_of_archive(archive_in(tmp_path, *((name, b"x") for name in names)))
        assert "of the same name" in detail or "a file and a folder" in detail

    @pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
    def test_a_method_whose_steps_have_no_bound_is_refused(self, tmp_path: Path, method: int) -> None:
        assert "neither stored nor deflated" in refusal_of_archive(archive_in(tmp_path, ("m", b"x" * 100), method=method))

    def test_one_member_that_unfolds_a_thousandfold_is_refused(self, tmp_path: Path) -> None:
        path = archive_in(tmp_path, ("weights", os.urandom(2 * MB)), ("bomb", bytes(64 * MB)))
        assert "more than 100 times its stored size" in refusal_of_archive(path)

    def test_many_members_that_do_so_together_are_refused(self, tmp_path: Path) -> None:
        path = archive_in(tmp_path, *((f"bomb-{number}", bytes(8 * MB)) for number in range(8)))
        assert "more than 100 times its stored size" in refusal_of_archive(path)

    def test_more_than_the_limit_is_refused(self, tmp_path: Path) -> None:
        path = archive_in(tmp_path, ("a", os.urandom(MB)), ("b", os.urandom(MB)))
        assert "has 2 MiB when unpacked, more than 1 " in refusal_of_archive(path, ModelFileLimits(max_bytes=MB))

    def test_more_than_the_disk_has_room_for_is_refused(self, tmp_path: Path) -> None:
        path = archive_in(tmp_path, ("a", b"x"))
        assert "stay free" in refusal_of_archive(path, ModelFileLimits(min_free_bytes=2**60))

    def test_too_many_members_are_refused(self, tmp_path: Path) -> None:
        path = archive_in(tmp_path, *((f"{number}", b"") for number in range(10_001)), method=zipfile.ZIP_STORED)
        assert "has 10001 members" in refusal_of_archive(path)

    @pytest.mark.parametrize("declared", [10, 8 * MB + 1])
    def test_a_declared_size_that_is_not_true_is_found_out(self, tmp_path: Path, declared: int) -> None:
        """The CRC is that of what is declared, so that zipfile by itself stops there and is content."""
        content = os.urandom(8 * MB)
        path = archive_in(tmp_path, ("m", content))
        data = bytearray(path.read_bytes())
        crc = struct.pack("<I", zlib.crc32(content[:declared]))
        for signature, at in ((b"PK\3\4", 14), (b"PK\1\2", 16)):
            begin = data.index(signature) + at
            data[begin : begin + 4] = crc
            data[begin + 8 : begin + 12] = struct.pack("<I", declared)
        path.write_bytes(data)
        with zipfile.ZipFile(path) as archive, pytest.raises((ConfigurationError, zipfile.BadZipFile)):
            unpack(archive, tmp_path / "unpacked", DEFAULT_LIMITS)
        assert (tmp_path / "unpacked" / "m").stat().st_size <= declared

    def test_members_that_overlap_are_refused(self, tmp_path: Path) -> None:
        """Many entries of the directory for the content of one member."""
        path = archive_in(tmp_path, ("aa", os.urandom(MB)))
        data = path.read_bytes()
        begin, end = data.index(b"PK\1\2"), data.index(b"PK\5\6")
        entry = data[begin:end]
        entries = b"".join(entry.replace(b"aa", f"{number:02}".encode()) for number in range(20))
        tail = bytearray(data[end:])
        tail[8:16] = struct.pack("<HHI", 20, 20, len(entries))
        path.write_bytes(data[:begin] + entries + tail)
        assert "overlap" in refusal_of_archive(path)

    def test_what_other_tools_write_is_taken(self, tmp_path: Path) -> None:
        members = ((info("./", mode=stat.S_IFDIR | 0o755), b""), (info("./a/"), b""), (info("./a/m", mode=stat.S_IFREG), b"x"))
        with zipfile.ZipFile(archive_in(tmp_path, *members)) as archive:
            unpack(archive, tmp_path / "unpacked", DEFAULT_LIMITS)
        assert (tmp_path / "unpacked/a/m").read_bytes() == b"x"


def keras_file(folder: Path, saved: Path, **other: bytes | None) -> Path:
    """The saved model with other members; None leaves one out."""
    path = folder / "m.keras"
    with zipfile.ZipFile(saved / "m.keras") as whole, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        members = {name: whole.read(name) for name in whole.namelist()} | other
        for name, content in members.items():
            if content is not None:
                archive.writestr(name, content)
    return path


class TestKerasFiles:
    def test_a_packed_model_is_taken(self, tmp_path: Path, saved: Path) -> None:
        assert keras_files.read_keras(keras_file(tmp_path, saved)).output_shape == (None, 3)

    def test_a_configuration_that_unfolds_is_refused(self, tmp_path: Path, saved: Path) -> None:
        path = keras_file(tmp_path, saved, **{"config.json": b" " * (64 * MB) + b"{}"})
        with pytest.raises(ConfigurationError, match="more than 100 times"):
            keras_files.read_keras(path)

    def test_a_large_configuration_is_refused(self, tmp_path: Path, saved: Path) -> None:
        path = keras_file(tmp_path, saved, **{"config.json": os.urandom(17 * MB).hex().encode()})
        with pytest.raises(ConfigurationError, match=r"has a config\.json of"):
            keras_files.read_keras(path)

    def test_an_asset_that_unfolds_is_refused(self, tmp_path: Path, saved: Path) -> None:
        path = keras_file(tmp_path, saved, **{"assets/words.txt": bytes(64 * MB)})
        with pytest.raises(ConfigurationError, match="more than 100 times"):
            keras_files.read_keras(path)

    def test_weights_of_another_format_are_refused(self, tmp_path: Path, saved: Path) -> None:
        path = keras_file(tmp_path, saved, **{"model.weights.h5": None, "model.weights.npz": b"x"})
        with pytest.raises(ConfigurationError, match=r"has weights in model\.weights\.npz"):
            keras_files.read_keras(path)

    def test_weights_inside_that_name_another_file_are_refused(self, tmp_path: Path, saved: Path) -> None:
        weights = tmp_path / "w.h5"
        with zipfile.ZipFile(saved / "m.keras") as whole:
            weights.write_bytes(whole.read("model.weights.h5"))
        with h5py.File(weights, "a") as file:
            del file["layers"]
            file["layers"] = h5py.ExternalLink(str(saved / "m.weights.h5"), "/layers")
        path = keras_file(tmp_path, saved, **{"model.weights.h5": weights.read_bytes()})
        with pytest.raises(ValueError, match="a link to another file: layers"):
            keras_files.read_keras(path)

    def test_a_long_json_is_not_read(self, tmp_path: Path) -> None:
        with (tmp_path / "m.json").open("wb") as file:
            file.truncate(64 * MB)
        with pytest.raises(ConfigurationError, match="too many for a model's JSON"):
            keras_files.read_architecture(tmp_path / "m.json")


def external_link(file: h5py.File, other: Path) -> None:
    file["layers/deep/er/weights"] = h5py.ExternalLink(str(other), "/layers")


def external_root(file: h5py.File, other: Path) -> None:
    file["model_weights"] = h5py.ExternalLink(str(other), "/")


def external_data(file: h5py.File, other: Path) -> None:
    file.create_dataset("layers/x", (4,), "f4", external=[(str(other), 0, 16)])


def virtual_data(file: h5py.File, other: Path) -> None:
    layout = h5py.VirtualLayout((4,), "f4")
    layout[:] = h5py.VirtualSource(str(other), "x", (4,))
    file.create_virtual_dataset("layers/x", layout)


def data_of_nothing(file: h5py.File, _: Path) -> None:
    file.create_dataset("x", (2**40,), "f4", chunks=(2**10,), fillvalue=1)


def one_chunk_of_nothing(file: h5py.File, _: Path) -> None:
    file.create_dataset("x", (1,), "f4", chunks=(2**28,), maxshape=(None,))


def packed_zeros(file: h5py.File, _: Path) -> None:
    file.create_dataset("x", data=np.zeros(2**24, "f4"), chunks=(2**20,), compression="gzip")


def unfolding_chunk(file: h5py.File, _: Path) -> None:
    data = file.create_dataset("x", (256,), "f4", chunks=(256,), compression="gzip")
    data.id.write_direct_chunk((0,), zlib.compress(bytes(64 * MB)))


def twice_packed(file: h5py.File, _: Path) -> None:
    properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    properties.set_chunk((256,))
    for _again in range(2):
        properties.set_deflate(9)
    h5py.h5d.create(file.id, b"x", h5py.h5t.NATIVE_FLOAT, h5py.h5s.create_simple((256,)), properties)


def odd_filter(file: h5py.File, _: Path) -> None:
    file.create_dataset("x", data=np.zeros(256, "f4"), chunks=(256,), compression="lzf")


def large_attribute(file: h5py.File, _: Path) -> None:
    space = h5py.h5s.create_simple((2**16,))
    kind = h5py.h5t.TypeID.copy(h5py.h5t.C_S1)
    kind.set_size(h5py.h5t.VARIABLE)
    file.attrs["text"] = "x" * 2**16
    h5py.h5a.create(file.id, b"texts", kind, space)


def cycle(file: h5py.File, _: Path) -> None:
    group = file.create_group("a")
    group["b"] = file["/"]
    external_link(file, Path("other"))


HOSTILE: list[Callable[[h5py.File, Path], None]] = [
    external_link, external_root, external_data, virtual_data, data_of_nothing, one_chunk_of_nothing, packed_zeros,
    unfolding_chunk, twice_packed, odd_filter, large_attribute, cycle,
]  # fmt: skip


class TestH5Files:
    @pytest.mark.parametrize("make", HOSTILE, ids=lambda make: make.__name__)
    def test_it_is_refused(self, tmp_path: Path, saved: Path, make: Callable[[h5py.File, Path], None]) -> None:
        path = tmp_path / "w.h5"
        with h5py.File(path, "w", libver="latest") as file:
            make(file, saved / "m.weights.h5")
        with pytest.raises(ValueError, match="Not allowed: H5 file with"):
            keras_files.read_weights(path, classifier())
        with pytest.raises(ValueError, match="Not allowed: H5 file with"):
            keras_files.read_h5(path)

    @pytest.mark.parametrize(
        "options", [{}, {"compression": "gzip"}, {"compression": "gzip", "shuffle": True, "fletcher32": True}]
    )
    def test_packed_weights_are_taken(self, tmp_path: Path, saved: Path, options: dict[str, object]) -> None:
        path = tmp_path / "w.h5"
        with h5py.File(saved / "m.weights.h5") as whole, h5py.File(path, "w") as file:

            def copy(name: str, item: object) -> None:
                if isinstance(item, h5py.Dataset):
                    file.create_dataset(name, data=item[()], chunks=item.shape or None, **(options if item.shape else {}))

            whole.visititems(copy)
            file["by another name"] = h5py.SoftLink("/layers")
        with h5py.File(path) as file:
            check_h5(file, DEFAULT_LIMITS)

    def test_more_than_the_limit_is_refused(self, saved: Path) -> None:
        with h5py.File(saved / "m.h5") as file, pytest.raises(ValueError, match="much more data"):
            check_h5(file, ModelFileLimits(max_bytes=10))


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


def lookup_of(vocabulary: object) -> dict[str, object]:
    return {"class_name": "StringLookup", "module": "keras.layers", "config": {"name": "look", "vocabulary": vocabulary}}


#: Objects of a Keras model that reach files, hosts or Keras' own switches, in any place of its configuration.
KERAS_OBJECTS: dict[str, dict[str, object]] = {
    "a vocabulary in a file": lookup_of("/etc/passwd"),
    "weights of words in a file": {"class_name": "TextVectorization", "config": {"name": "t", "idf_weights": "/etc/passwd"}},
    "a SavedModel": {"class_name": "TFSMLayer", "module": "keras.layers", "config": {"name": "s", "filepath": "/etc"}},
    "a fetched file": {"class_name": "function", "module": "keras.utils", "config": "get_file"},
    "the switch of safe mode": {"class_name": "function", "module": "keras.config", "config": "enable_unsafe_deserialization"},
    "another model": {"class_name": "function", "module": "keras.models", "config": "load_model"},
    "the same by its inner name": {"class_name": "function", "module": "keras.src.saving.saving_api", "config": "load_model"},
    "Lambda": {"class_name": "Lambda", "module": "keras.layers", "config": {"name": "l", "function": "x"}},
    "a lambda": {"class_name": "__lambda__", "config": {"value": "x"}},
    "Torch": {"class_name": "TorchModuleWrapper", "module": "keras.layers", "config": {"name": "t", "module": "x"}},
}


@pytest.mark.parametrize("name", KERAS_OBJECTS)
@pytest.mark.parametrize("place", ["layer", "argument"])
def test_an_object_of_keras_that_reaches_files_or_code_is_refused(tmp_path: Path, saved: Path, name: str, place: str) -> None:
    with zipfile.ZipFile(saved / "m.keras") as whole:
        config = json.loads(whole.read("config.json"))
    layers = config["config"]["layers"]
    if place == "layer":
        layers.insert(1, KERAS_OBJECTS[name])
    else:
        layers[-1]["config"]["kernel_initializer"] = KERAS_OBJECTS[name]
    text = json.dumps(config).encode()
    with pytest.raises(ConfigurationError, match="which is refused"):
        keras_files.read_keras(keras_file(tmp_path, saved, **{"config.json": text}))
    (tmp_path / "m.json").write_bytes(text)
    with pytest.raises(ConfigurationError, match="which is refused"):
        keras_files.read_architecture(tmp_path / "m.json")


def test_a_class_of_another_module_is_not_imported(tmp_path: Path, saved: Path) -> None:
    with zipfile.ZipFile(saved / "m.keras") as whole:
        config = json.loads(whole.read("config.json"))
    (tmp_path / "evil_module.py").write_text("raise SystemExit('imported')")
    config["config"]["layers"][-1] |= {"module": "evil_module", "class_name": "Evil", "registered_name": "Evil"}
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(tmp_path)
        with pytest.raises((ConfigurationError, TypeError, ValueError)):
            keras_files.read_keras(keras_file(tmp_path, saved, **{"config.json": json.dumps(config).encode()}))


class Endless:
    """A store with an object that has no end."""

    def etag(self, *_: str) -> str:
        return "tag"

    def download(self, bucket: str, key: str, target: IO[bytes]) -> str:
        while True:
            target.write(bytes(MB))


@pytest.mark.parametrize(
    ("limits", "says"),
    [(ModelFileLimits(max_bytes=4 * MB), "has more than 4194304 bytes"), (ModelFileLimits(min_free_bytes=2**60), "stay free")],
)
def test_an_object_without_end_is_not_fetched(tmp_path: Path, limits: ModelFileLimits, says: str) -> None:
    cache = ObjectCache(tmp_path / "cache", Endless(), limits)
    with pytest.raises(ConfigurationError, match=says):
        cache.fetch(FileLocation.parse("s3://models/m.keras"))
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and path.stat().st_size]


def test_a_labels_file_without_end_is_refused(tmp_path: Path, saved: Path) -> None:
    with (tmp_path / "labels.txt").open("wb") as file:
        file.truncate(32 * MB)
    description = {
        "name": "net", "file": str(saved / "m.keras"), "labels_file": str(tmp_path / "labels.txt"),
        "input": {"shape": [2, 2, 1], "dtype": "float32", "raw": "pixels"},
    }  # fmt: skip
    settings = Settings(models=(description,), model_files=ModelFileSettings(allowed_folders=(tmp_path, saved)))
    with pytest.raises(ConfigurationError, match="has more than 16777216 bytes"):
        ModelRegistry.load(settings)
