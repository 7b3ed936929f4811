"""Files of Keras, H5 and labels that are made to fill memory, or to name other files or code: each is refused."""

from __future__ import annotations

import json
import os
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from model_forms import classifier

from inference.errors import ConfigurationError
from inference.models.archives import DEFAULT_LIMITS, ModelFileLimits
from inference.models.hdf5 import check_h5
from inference.models.loading.tensorflow import keras_files
from inference.models.registry import ModelRegistry
from inference.settings import ModelFileSettings, Settings

MB = 2**20


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
