"""The reader of legacy PyTorch files, against files that are put together here byte by byte."""

import importlib.util
import io
import os
import pickle
import struct
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

SOURCE = Path(__file__).parents[3] / "models" / "efficientnet-lite0" / "torch_pickle.py"
SYSTEM = {"protocol_version": 1001, "little_endian": True, "type_sizes": {"short": 2, "int": 4, "long": 4}}


def import_source() -> ModuleType:
    spec = importlib.util.spec_from_file_location("efficientnet_lite0_torch_pickle", SOURCE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


torch_pickle = import_source()


def value(plain: object) -> bytes:
    """The opcodes of a plain value, without the frame around them."""
    return pickle.dumps(plain, 2)[2:-1]


def name(module: str, attribute: str) -> bytes:
    return f"c{module}\n{attribute}\n".encode()


def pickled(opcodes: bytes) -> bytes:
    return b"\x80\x02" + opcodes + b"."


def storage(kind: str, key: str, count: int) -> bytes:
    fields = value("storage") + name("torch", kind) + value(key) + value("cpu") + value(count) + value(None)
    return b"(" + fields + b"tQ"


def tensor(stored: bytes, offset: int, shape: tuple[int, ...], strides: tuple[int, ...]) -> bytes:
    hooks = name("collections", "OrderedDict") + b")R"
    fields = stored + value(offset) + value(shape) + value(strides) + value(False) + hooks
    return name("torch._utils", "_rebuild_tensor_v2") + b"(" + fields + b"tR"


def state_dict(tensors: dict[str, bytes]) -> bytes:
    entries = b"".join(value(key) + opcodes for key, opcodes in tensors.items())
    return pickled(name("collections", "OrderedDict") + b")R(" + entries + b"u")


def torch_file(state: bytes, storages: dict[str, NDArray[Any]], **changes: object) -> io.BytesIO:
    """A legacy file; `changes` replaces one of its other parts: magic, version, system or keys."""
    plain = {"magic": 0x1950A86A20F9469CFC6C, "version": 1001, "system": SYSTEM, "keys": list(storages)} | changes
    magic, version, system, keys = (pickle.dumps(plain[part], 2) for part in ("magic", "version", "system", "keys"))
    data = b"".join(struct.pack("<q", elements.size) + elements.tobytes() for elements in storages.values())
    return io.BytesIO(magic + version + system + state + keys + data)


def one_tensor_file(**changes: object) -> io.BytesIO:
    state = state_dict({"w": tensor(storage("FloatStorage", "7", 6), 0, (2, 3), (3, 1))})
    return torch_file(state, {"7": np.arange(6, dtype="<f4")}, **changes)


class Command:
    """Unpickled without a restriction, it runs a command."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (self.command,)


def test_tensors_are_read_with_offset_strides_and_shared_storage() -> None:
    elements = np.arange(24, dtype="<f4")
    stored = storage("FloatStorage", "1", 24)
    state = state_dict(
        {
            "whole": tensor(stored, 0, (2, 3, 4), (12, 4, 1)),
            "transposed": tensor(stored, 0, (4, 6), (1, 4)),
            "row": tensor(stored, 12, (4,), (1,)),
            "repeated": tensor(stored, 5, (3, 2), (0, 1)),
            "scalar": tensor(stored, 23, (), ()),
            "empty": tensor(stored, 24, (0, 4), (4, 1)),
        }
    )
    tensors = torch_pickle.read_state_dict(torch_file(state, {"1": elements}))
    assert list(tensors) == ["whole", "transposed", "row", "repeated", "scalar", "empty"]
    np.testing.assert_array_equal(tensors["whole"], elements.reshape(2, 3, 4))
    np.testing.assert_array_equal(tensors["transposed"], elements.reshape(6, 4).T)
    np.testing.assert_array_equal(tensors["row"], [12, 13, 14, 15])
    np.testing.assert_array_equal(tensors["repeated"], [[5, 6]] * 3)
    assert tensors["scalar"].shape == ()
    assert tensors["scalar"] == 23
    assert tensors["empty"].shape == (0, 4)


@pytest.mark.parametrize(
    ("kind", "dtype"),
    [
        ("FloatStorage", "<f4"),
        ("DoubleStorage", "<f8"),
        ("HalfStorage", "<f2"),
        ("LongStorage", "<i8"),
        ("ByteStorage", "u1"),
    ],
)
def test_each_kind_of_storage_keeps_its_dtype(kind: str, dtype: str) -> None:
    state = state_dict({"w": tensor(storage(kind, "k", 3), 0, (3,), (1,))})
    read = torch_pickle.read_state_dict(torch_file(state, {"k": np.array([1, 2, 3], dtype)}))["w"]
    assert read.dtype == np.dtype(dtype)
    np.testing.assert_array_equal(read, [1, 2, 3])


def test_storages_are_matched_by_key_not_by_order() -> None:
    state = state_dict(
        {
            "a": tensor(storage("FloatStorage", "1", 2), 0, (2,), (1,)),
            "b": tensor(storage("LongStorage", "2", 1), 0, (), ()),
        }
    )
    tensors = torch_pickle.read_state_dict(torch_file(state, {"2": np.array([9]), "1": np.array([1, 2], "<f4")}))
    np.testing.assert_array_equal(tensors["a"], [1, 2])
    assert tensors["b"] == 9


@pytest.mark.parametrize("part", ["magic", "version", "system", "state", "keys"])
def test_a_pickle_that_runs_a_command_is_refused_and_not_run(tmp_path: Path, part: str) -> None:
    marker = tmp_path / "ran"
    command = Command(f"touch {marker}")
    file = torch_file(pickle.dumps(command, 2), {}) if part == "state" else one_tensor_file(**{part: command})
    with pytest.raises(torch_pickle.TorchFileError, match=r"names (posix|nt)\.system, which weights do not need"):
        torch_pickle.read_state_dict(file)
    assert not marker.exists()
    pickle.loads(pickle.dumps(command, 2))  # noqa: S301 the same pickle does run where nothing restricts it
    assert marker.exists()


@pytest.mark.parametrize(
    ("module", "attribute"),
    [
        ("builtins", "eval"),
        ("builtins", "getattr"),
        ("collections", "Counter"),
        ("torch", "load"),
        ("torch._utils", "_rebuild_tensor"),
        ("torch.nn.modules.conv", "Conv2d"),
        ("numpy", "ndarray"),
        ("torch", "FloatStorage.__init__"),
    ],
)
def test_any_name_that_is_not_listed_is_refused(module: str, attribute: str) -> None:
    with pytest.raises(torch_pickle.TorchFileError, match=f"names {module}.{attribute}, which"):
        torch_pickle.read_state_dict(torch_file(pickled(name(module, attribute)), {}))


@pytest.mark.parametrize(
    ("offset", "shape", "strides"),
    [
        (0, (7,), (1,)),
        (1, (6,), (1,)),
        (0, (2, 3), (4, 1)),
        (-1, (2,), (1,)),
        (0, (2,), (-1,)),
        (0, (2, 3), (1,)),
        (7, (0,), (1,)),
    ],
)
def test_a_tensor_outside_its_storage_is_refused(offset: int, shape: tuple[int, ...], strides: tuple[int, ...]) -> None:
    state = state_dict({"w": tensor(storage("FloatStorage", "7", 6), offset, shape, strides)})
    with pytest.raises(torch_pickle.TorchFileError, match="outside its storage"):
        torch_pickle.read_state_dict(torch_file(state, {"7": np.zeros(6, "<f4")}))


def test_tensors_that_disagree_about_a_storage_are_refused() -> None:
    claims = (storage("FloatStorage", "7", 1_000_000), storage("FloatStorage", "7", 6))
    state = state_dict({f"w{n}": tensor(claim, 0, (6,), (1,)) for n, claim in enumerate(claims)})
    with pytest.raises(torch_pickle.TorchFileError, match="disagree about storage 7"):
        torch_pickle.read_state_dict(torch_file(state, {"7": np.zeros(6, "<f4")}))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"magic": 7}, "magic number"),
        ({"version": 1002}, "protocol version is 1002, not 1001"),
        ({"system": SYSTEM | {"little_endian": False}}, "little-endian"),
        ({"keys": ["8"]}, "not those that its tensors refer to"),
        ({"keys": []}, "not those that its tensors refer to"),
        ({"keys": ["7", "7"]}, "not those that its tensors refer to"),
        ({"keys": None}, "not those that its tensors refer to"),
    ],
)
def test_a_part_that_is_not_as_it_should_be_is_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(torch_pickle.TorchFileError, match=message):
        torch_pickle.read_state_dict(one_tensor_file(**changes))


def test_a_file_that_ends_too_soon_is_refused_wherever_it_ends() -> None:
    whole = one_tensor_file().getvalue()
    for length in range(len(whole)):
        with pytest.raises(torch_pickle.TorchFileError):
            torch_pickle.read_state_dict(io.BytesIO(whole[:length]))


@pytest.mark.parametrize(("declared", "message"), [(5, "has 5 elements, its tensors expect 6"), (-1, "has -1 elements")])
def test_a_storage_of_another_size_is_refused(declared: int, message: str) -> None:
    data = one_tensor_file().getvalue()
    head, elements = data[: -6 * 4 - 8], data[-6 * 4 :]
    with pytest.raises(torch_pickle.TorchFileError, match=message):
        torch_pickle.read_state_dict(io.BytesIO(head + struct.pack("<q", declared) + elements))


def test_an_impossible_size_is_refused_without_reserving_memory() -> None:
    count = 2**62
    state = state_dict({"w": tensor(storage("DoubleStorage", "7", count), 0, (1,), (1,))})
    data = torch_file(state, {"7": np.zeros(0)}).getvalue()[:-8] + struct.pack("<q", count)
    with pytest.raises(torch_pickle.TorchFileError, match="ends within storage 7"):
        torch_pickle.read_state_dict(io.BytesIO(data))


@pytest.mark.parametrize(
    ("state", "message"),
    [
        (pickle.dumps([1], 2), "holds a list, not a state dict"),
        (pickle.dumps({"w": 1}, 2), "entry 'w' of the state dict is a int, not a tensor"),
        (pickled(value("not a reference") + b"Q"), "refers to a storage in a way"),
    ],
)
def test_anything_but_a_state_dict_of_tensors_is_refused(state: bytes, message: str) -> None:
    with pytest.raises(torch_pickle.TorchFileError, match=message):
        torch_pickle.read_state_dict(torch_file(state, {}))
