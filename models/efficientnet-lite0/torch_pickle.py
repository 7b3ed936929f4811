"""Read a legacy PyTorch weights file without PyTorch, and without running anything that the file asks to run.

The layout is that of `_legacy_save` in torch/serialization.py, the default of `torch.save` before PyTorch 1.6:

    magic │ protocol version │ system info │ state dict │ storage keys │ one storage per key
    ───────────────────── five pickles ─────────────────────────────── │ int64 count, then its elements

In the state dict a tensor is a view (offset, shape, strides, counted in elements) of a storage that it names by key.
A pickle may name any Python callable. `_RestrictedUnpickler` resolves only the names that weights need.
"""

from __future__ import annotations

import pickle
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

MAGIC_NUMBER = 0x1950A86A20F9469CFC6C
PROTOCOL_VERSION = 1001

STORAGE_DTYPES: dict[str, np.dtype[Any]] = {
    "DoubleStorage": np.dtype("<f8"),
    "FloatStorage": np.dtype("<f4"),
    "HalfStorage": np.dtype("<f2"),
    "LongStorage": np.dtype("<i8"),
    "IntStorage": np.dtype("<i4"),
    "ShortStorage": np.dtype("<i2"),
    "CharStorage": np.dtype("i1"),
    "ByteStorage": np.dtype("u1"),
    "BoolStorage": np.dtype("?"),
}


class TorchFileError(ValueError):
    """The file is not a legacy PyTorch state dict, is damaged, or names something that weights do not need."""


@dataclass(frozen=True, slots=True)
class _Storage:
    key: str
    dtype: np.dtype[Any]
    count: int  #: in elements


@dataclass(frozen=True, slots=True)
class _View:
    """A tensor before its storage has been read; all numbers in elements."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    @property
    def is_inside_storage(self) -> bool:
        numbers = (self.offset, *self.shape, *self.strides)
        if len(self.shape) != len(self.strides) or not all(isinstance(n, int) and n >= 0 for n in numbers):
            return False
        if 0 in self.shape:
            return self.offset <= self.storage.count
        last = self.offset + sum((size - 1) * stride for size, stride in zip(self.shape, self.strides, strict=True))
        return last < self.storage.count

    def of(self, elements: NDArray[Any]) -> NDArray[Any]:
        strides = [stride * elements.itemsize for stride in self.strides]
        return np.lib.stride_tricks.as_strided(elements[self.offset :], self.shape, strides).copy()


def read_state_dict(file: BinaryIO) -> dict[str, NDArray[Any]]:
    """Read every tensor of `file`, by name, each as an array of its own.

    Args:
        file: a legacy PyTorch file that holds a state dict, opened for reading bytes.

    Raises:
        TorchFileError: the file is something else, is damaged, or names anything that is not on the allow-list.
    """
    if _unpickle(file) != MAGIC_NUMBER:
        raise TorchFileError("not a legacy PyTorch file: it does not start with the magic number")
    if (version := _unpickle(file)) != PROTOCOL_VERSION:
        raise TorchFileError(f"the file's protocol version is {version!r}, not {PROTOCOL_VERSION}")
    system = _unpickle(file)
    if not isinstance(system, dict) or system.get("little_endian") is not True:
        raise TorchFileError("the file was not written by a little-endian machine")
    views = _checked_views(_unpickle(file))
    elements = _read_storages(file, _unpickle(file), _storages_of(views))
    return {name: view.of(elements[view.storage.key]) for name, view in views.items()}


class _RestrictedUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Callable[..., object] | str:
        try:
            return _ALLOWED[module, name]
        except KeyError:
            raise TorchFileError(f"the file names {module}.{name}, which weights do not need: not read") from None

    def persistent_load(self, reference: object) -> _Storage:
        match reference:
            case ("storage", str(kind), str(key), str(), int(count), None) if kind in STORAGE_DTYPES and count >= 0:
                return _Storage(key, STORAGE_DTYPES[kind], count)
        raise TorchFileError(f"the file refers to a storage in a way that is not understood: {reference!r}")


def _rebuild_tensor_v2(storage: _Storage, offset: int, shape: tuple[int, ...], strides: tuple[int, ...], *_: object) -> _View:
    """Stands in for torch._utils._rebuild_tensor_v2; the left-out parts (gradients, hooks) are not part of the weights."""
    view = _View(storage, offset, shape, strides)
    if not view.is_inside_storage:
        raise TorchFileError(f"a tensor of shape {shape} lies outside its storage")
    return view


def _rebuild_parameter(view: _View, *_: object) -> _View:
    """Stands in for torch._utils._rebuild_parameter, which marks a tensor as trainable."""
    return view


_ALLOWED: dict[tuple[str, str], Callable[..., object] | str] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor_v2,
    ("torch._utils", "_rebuild_parameter"): _rebuild_parameter,
    **{("torch", kind): kind for kind in STORAGE_DTYPES},
}


def _unpickle(file: BinaryIO) -> object:
    try:
        return _RestrictedUnpickler(file).load()
    except TorchFileError:
        raise
    except Exception as error:  # a damaged pickle raises nearly anything
        raise TorchFileError(f"a part of the file is not a readable pickle: {error}") from error


def _checked_views(state: object) -> dict[str, _View]:
    if not isinstance(state, dict):
        raise TorchFileError(f"the file holds a {type(state).__name__}, not a state dict")
    for name, view in state.items():
        if not isinstance(name, str) or not isinstance(view, _View):
            raise TorchFileError(f"entry {name!r} of the state dict is a {type(view).__name__}, not a tensor")
    return dict(state)


def _storages_of(views: dict[str, _View]) -> dict[str, _Storage]:
    storages: dict[str, _Storage] = {}
    for view in views.values():
        # a view is checked against its own idea of the storage: all must have the same one
        if storages.setdefault(view.storage.key, view.storage) != view.storage:
            raise TorchFileError(f"two tensors disagree about storage {view.storage.key}")
    return storages


def _read_storages(file: BinaryIO, keys: object, storages: dict[str, _Storage]) -> dict[str, NDArray[Any]]:
    if not isinstance(keys, list) or sorted(map(str, keys)) != sorted(storages):
        raise TorchFileError("the storages in the file are not those that its tensors refer to")
    return {key: _read_storage(file, storages[key]) for key in keys}


def _read_storage(file: BinaryIO, storage: _Storage) -> NDArray[Any]:
    count = int.from_bytes(file.read(8), "little", signed=True)
    if count != storage.count:
        raise TorchFileError(f"storage {storage.key} has {count} elements, its tensors expect {storage.count}")
    try:
        data = file.read(count * storage.dtype.itemsize)
    except (MemoryError, OverflowError):
        data = b""  # more than a file can hold
    if len(data) != count * storage.dtype.itemsize:
        raise TorchFileError(f"the file ends within storage {storage.key}")
    return np.frombuffer(data, storage.dtype)
