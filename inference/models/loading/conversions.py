"""Models converted for LiteRT, with the measured choice of the library that runs each, in a folder that a host's processes share.

    FOLDER/KEY.json     the choice, and the digest of the graph
    FOLDER/KEY.tflite   the graph, if LiteRT runs the model
    FOLDER/lock         held by the process that converts a model

The key covers everything that the choice depends on: the model, its settings, the versions of the libraries and of the service,
the CPU, the number of threads and the batch sizes. TensorFlow converts and measures in a process of its own, which then ends.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import platform
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from inference import __version__
from inference.errors import ConfigurationError
from inference.models.archives import ModelFileLimits
from inference.models.digests import file_sha256
from inference.models.loading.concurrent_graph import ConcurrentGraph
from inference.models.loading.fixed_batches import for_any_size
from inference.models.loading.model import LITE, LoadedModel
from inference.models.predictor.protocol import Failed
from inference.models.spec import ModelSpec
from inference.runtime.cpu import usable_cores
from inference.runtime.durable_files import make_folders, write_durably
from inference.runtime.file_lock import file_lock

logger = logging.getLogger(__name__)

_MODULE = "inference.models.loading.tensorflow.conversion_process"
#: Keys of a description that change neither the graph nor its checks; a new key is assumed to change them.
_WITHOUT_EFFECT = frozenset(
    {"name", "version", "description", "license", "source", "file", "architecture_file", "weights_file", "labels", "labels_file"}
    | {"threshold", "top_k", "predict_timeout_s", "device", "litert", "folder", "origin"}
    | {"code", "code_file", "has_preprocess", "digest"}
    | {"local_files", "max_unpacked_bytes", "conversions_dir", "min_free_bytes"}
)
#: The same of `input`: the worker applies them before the graph gets an image.
_INPUT_WITHOUT_EFFECT = frozenset({"raw", "resize", "crop_fraction", "interpolation"})
_PACKAGES = ("ai-edge-litert", "keras", "tensorflow", "tensorflow-cpu")
#: Entries that are kept of the models of one name: those used last.
_KEPT_ENTRIES = 4
_CPU_FIELDS = ("model name", "flags", "CPU implementer", "CPU part", "Features")


@dataclass(frozen=True)
class Choice:
    """The library that runs a model, and how it was found."""

    runtime: str
    #: why, such as "measured 2.1 times TensorFlow's rate"
    reason: str
    #: number of classes
    output_size: int
    #: whether the model has one output unit
    is_binary: bool


@dataclass(frozen=True)
class Converted:
    """Answer of the process that converts."""

    choice: Choice
    #: a *.tflite file; empty if TensorFlow runs the model
    graph: bytes


@dataclass(frozen=True)
class _Entry:
    """Content of a KEY.json."""

    model: str
    runtime: str
    reason: str
    output_size: int
    is_binary: bool
    #: digest of the graph; empty if there is none
    graph_sha256: str


def find_choice(
    spec: ModelSpec, batch_sizes: Sequence[int], folder: Path, report: Callable[[str], None] = logger.info
) -> tuple[Choice, ConcurrentGraph | None]:
    """Find the runtime for the model of `spec` on this host's CPU, and its graph if that is LiteRT; convert it if nobody has.

    One process of the host converts at a time, so that none disturbs another's measurement. A cache that cannot be written is
    done without, with a warning.

    Args:
        report: is told of a conversion before it begins.

    Raises:
        ConfigurationError: a file of the model cannot be read or is refused, or the model does not fit its description.
        OSError: the process that converts cannot start, or died.
    """
    cache = _Cache(spec, batch_sizes, folder)
    found = cache.read()
    if found is not None:
        return found
    with ExitStack() as stack:
        try:
            stack.enter_context(file_lock(folder / "lock", lambda: None))
            is_locked = True
        except OSError as error:
            logger.warning("%s: the converted model is not kept: %s", spec.name, error)
            is_locked = False
        found = cache.read()  # another process may have converted it meanwhile
        if found is not None:
            return found
        report(f"{spec.name}: converting it for LiteRT, and measuring LiteRT and TensorFlow, once for this host")
        began = time.monotonic()
        converted = _convert(spec, batch_sizes)
        if is_locked:  # two writers at once would write to one file
            cache.write(converted)
    choice = Choice(**asdict(converted.choice) | {"reason": f"{converted.choice.reason}; took {time.monotonic() - began:.0f} s"})
    return choice, ConcurrentGraph(converted.graph, usable_cores()) if converted.graph else None


def lite_model(spec: ModelSpec, choice: Choice, graph: ConcurrentGraph) -> LoadedModel:
    return LoadedModel(
        for_any_size(graph, graph.input_shapes[0][0]),
        choice.output_size,
        LITE,
        activation=spec.output.activation,
        is_binary=choice.is_binary,
        reason=choice.reason,
    )


class _Cache:
    """The entry of one model in `folder`."""

    def __init__(self, spec: ModelSpec, batch_sizes: Sequence[int], folder: Path) -> None:
        self._spec = spec
        self._record = folder / f"{_key(spec, batch_sizes)}.json"
        self._graph = self._record.with_suffix(".tflite")

    def read(self) -> tuple[Choice, ConcurrentGraph | None] | None:
        """Read the entry; None if there is none, or if it is damaged, with a warning."""
        try:
            entry = _Entry(**json.loads(self._record.read_text(encoding="utf-8")))
            graph = self._open_graph(entry) if entry.graph_sha256 else None
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError) as error:  # not readable, or not written by this module
            logger.warning("%s: its entry in the cache of converted models cannot be used: %s", self._spec.name, error)
            return None
        with suppress(OSError):
            os.utime(self._record)
        return Choice(entry.runtime, f"from the cache; {entry.reason}", entry.output_size, entry.is_binary), graph

    def write(self, converted: Converted) -> None:
        """Replace the entry; a failure is logged only."""
        folder = self._record.parent
        digest = hashlib.sha256(converted.graph).hexdigest() if converted.graph else ""
        entry = _Entry(self._spec.name, **asdict(converted.choice), graph_sha256=digest)
        try:
            make_folders(folder)
            limits = ModelFileLimits(min_free_bytes=self._spec.min_free_bytes)
            limits.check_disk(folder, len(converted.graph), self._graph.name)
            if converted.graph:
                write_durably(self._graph, converted.graph)
            write_durably(self._record, json.dumps(asdict(entry)).encode())
            _delete_old(folder, self._spec.name)
        except (OSError, ConfigurationError) as error:
            logger.warning("%s: the converted model is not kept: %s", self._spec.name, error)

    def _open_graph(self, entry: _Entry) -> ConcurrentGraph:
        if file_sha256(self._graph) != entry.graph_sha256:
            raise ValueError(f"{self._graph.name} is incomplete or was changed")
        return ConcurrentGraph(self._graph, usable_cores())


def _delete_old(folder: Path, model: str) -> None:
    """Delete the entries of this model's name beyond those used last, and the files of killed processes."""
    entries = [record for record in folder.glob("*.json") if _model_of(record) in {model, None}]
    for record in sorted(entries, key=lambda record: record.stat().st_mtime, reverse=True)[_KEPT_ENTRIES:]:
        record.unlink(missing_ok=True)
        record.with_suffix(".tflite").unlink(missing_ok=True)
    keys = {record.stem for record in folder.glob("*.json")}
    for file in folder.glob("*.tflite*"):
        if file.name.strip(".").partition(".")[0] not in keys:
            file.unlink(missing_ok=True)


def _model_of(record: Path) -> str | None:
    try:
        return str(json.loads(record.read_bytes())["model"])
    except (OSError, ValueError, TypeError, KeyError):
        return None


def _key(spec: ModelSpec, batch_sizes: Sequence[int]) -> str:
    excluded: dict[str, Any] = {**dict.fromkeys(_WITHOUT_EFFECT, True), "input": _INPUT_WITHOUT_EFFECT}
    covered = {
        "settings": spec.model_dump(mode="json", exclude=excluded),
        "files": {key: file.sha256 for key, file in spec.local_files.items()},
        "packages": {name: _version(name) for name in _PACKAGES},
        "service": __version__,
        "cpu": _cpu(),
        "threads": usable_cores(),
        "batch_sizes": list(batch_sizes),
    }
    return hashlib.sha256(json.dumps(covered, sort_keys=True).encode()).hexdigest()[:32]


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _cpu(cpuinfo: Path = Path("/proc/cpuinfo")) -> list[str]:
    """Describe the CPU by its model and its instruction sets; virtual machines of different CPUs may give the same model."""
    try:
        first = cpuinfo.read_text(encoding="utf-8", errors="replace").partition("\n\n")[0]
    except OSError:
        return [platform.machine(), platform.processor()]
    return [platform.machine(), *(line for line in first.splitlines() if line.partition("\t")[0].strip() in _CPU_FIELDS)]


def _convert(spec: ModelSpec, batch_sizes: Sequence[int]) -> Converted:
    """Run the process that converts: on the CPU, with this process's environment; it ends with this process."""
    own_end, process_end = socket.socketpair()
    connection: Connection[Any, Any] = Connection(own_end.detach())
    with connection:
        with process_end:
            process = subprocess.Popen(  # noqa: S603 our own module
                [sys.executable, "-m", _MODULE, str(process_end.fileno()), str(os.getpid())],
                pass_fds=(process_end.fileno(),),
                stdin=subprocess.DEVNULL,
                env=os.environ | {"CUDA_VISIBLE_DEVICES": "-1"},
            )
        try:
            connection.send((spec, tuple(batch_sizes)))
            answer: Converted | Failed = connection.recv()
        except (EOFError, ConnectionError) as error:
            raise ConnectionError("the process that converts the model died") from error
        finally:
            process.kill()
            process.wait()
    if isinstance(answer, Failed):
        raise ConfigurationError(answer.message, public=answer.public)
    return answer
