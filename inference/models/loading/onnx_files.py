"""ONNX files (`.onnx`), run by onnxruntime on the CPU.

A graph may name files with weights (external data). They must be in the model's folder, which the model's digest covers; so a
file alone may have none. onnxruntime itself refuses paths and links that lead out of the folder.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime  # type: ignore[import-untyped]
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory  # type: ignore[import-untyped]
from numpy.typing import NDArray

from inference.errors import ConfigurationError
from inference.models.loading.graph_files import Run, as_float, check_size, find_producer, one_row_per_image
from inference.models.spec import ModelSpec
from inference.runtime.cpu import usable_cores

RUNTIME = "ONNX Runtime"

_ERRORS_ONLY = 4
#: Types of input tensors by ONNX's name, for descriptions with `input.dtype` float32 or uint8.
_INPUT_TYPES = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(double)": np.float64,
    "tensor(uint8)": np.uint8,
}
_TENSOR = "tensor("
_KEEPING = {"Identity", "Cast", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "QuantizeLinear", "DequantizeLinear"}
#: A folder that never exists, for files alone.
_NO_FOLDER = "/dev/null/external-data"

#: Start of onnxruntime's messages: code, source file, function, and the path of a model that is a folder.
_PREAMBLE = re.compile(
    r"^\[ONNXRuntimeError\] : \d+ : \w+ : (?:/\S+\.(?:cc|h):\d+ .*?\) (?=[A-Z]))?(?:Load model from .*? failed: ?)?", re.DOTALL
)
#: Parts of messages for which a user needs another sentence.
_OTHER_FILES = ("External data path", "in-memory address marker")
_EXPLANATIONS = {
    "Opset": "uses a newer version of ONNX's operators than onnxruntime {version} knows: export it with a lower opset",
    "Unsupported model IR version": "has a newer IR version than onnxruntime {version} reads: export it for an older one",
    "rotobuf parsing failed": "is not an ONNX file, or is damaged",
    "No graph was found": "is not an ONNX file, or is damaged",
}


class OnnxFile:
    """An `.onnx` file, opened by onnxruntime. Its operators are ONNX's own: others, in plug-ins, are refused."""

    runtime = RUNTIME

    def __init__(self, path: Path, source: bytes | str, options: onnxruntime.SessionOptions) -> None:
        self._path = path
        self._session = onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
        self._inputs = self._session.get_inputs()
        self._outputs = self._session.get_outputs()

    @staticmethod
    def open(path: Path, max_bytes: int, *, has_folder: bool) -> OnnxFile:
        """Read a file.

        Args:
            has_folder: whether the model is a folder, so that weights may be in other files of it.

        Raises:
            ConfigurationError: it is too large, or is no such file.
        """
        check_size(path, max_bytes)
        options = _session_options()
        if not has_folder:
            options.add_session_config_entry("session.model_external_initializers_file_folder_path", _NO_FOLDER)
        try:
            return OnnxFile(path, str(path) if has_folder else path.read_bytes(), options)
        except Exception as error:
            raise ConfigurationError(_explain(error, path, has_folder=has_folder)) from error

    @property
    def input_shapes(self) -> Sequence[tuple[int | None, ...]]:
        return [tuple(size if isinstance(size, int) else None for size in tensor.shape) for tensor in self._inputs]

    @property
    def input_types(self) -> Sequence[str]:
        """Types in ONNX's words, such as `tensor(float)`."""
        return [tensor.type for tensor in self._inputs]

    @property
    def output_shapes(self) -> Sequence[tuple[int | None, ...]]:
        return [tuple(size if isinstance(size, int) else None for size in tensor.shape) for tensor in self._outputs]

    @property
    def metadata(self) -> Mapping[str, str]:
        """The author's own metadata."""
        found: Mapping[str, str] = self._session.get_modelmeta().custom_metadata_map
        return found

    @property
    def output_names(self) -> Sequence[str]:
        return [tensor.name for tensor in self._outputs]

    def function(self, spec: ModelSpec, output: int) -> Run:
        tensor, result = self._inputs[0], self._outputs[output]
        dtype = _input_dtype(tensor.type, spec)
        if not result.type.startswith(_TENSOR):
            raise ConfigurationError(f"has an output {result.name} that is no tensor but {result.type}", field="output.name")

        def run(batch: NDArray[Any]) -> NDArray[Any]:
            (values,) = self._session.run([result.name], {tensor.name: batch.astype(dtype, copy=False)})
            return one_row_per_image(as_float(values))

        return run

    def resized_function(self, spec: ModelSpec, output: int) -> Run | None:  # noqa: ARG002 of the interface
        return None

    def output_step(self, output: int) -> float:  # noqa: ARG002 of the interface
        return 0.0  # quantised graphs return floats

    def last_operation(self, output: int) -> str:
        return find_producer(self._outputs[output].name, _producers(self._path), _KEEPING)


def _session_options() -> onnxruntime.SessionOptions:
    """Give all cores to one call, since one call runs at a time; threads wait without using the cores of other processes."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = usable_cores()
    options.inter_op_num_threads = 1
    options.log_severity_level = _ERRORS_ONLY
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options


def _input_dtype(kind: str, spec: ModelSpec) -> Any:
    """Return the type to which images are converted. Raises ConfigurationError if they cannot be given to such an input."""
    if kind not in _INPUT_TYPES:
        raise ConfigurationError(f"takes {kind}, and not floats or uint8", field="input.dtype")
    dtype = _INPUT_TYPES[kind]
    if dtype is np.uint8 and spec.input.dtype != "uint8":
        raise ConfigurationError(
            f"takes {kind}: set input.dtype: uint8, without input.scale, input.mean and input.std", field="input.dtype"
        )
    return dtype


def _producers(path: Path) -> Mapping[str, tuple[str, str]]:
    """Read the operations of a file: by output, type and first operand."""
    model = _message_class().FromString(path.read_bytes())
    return {name: (node.op_type, node.input[0] if node.input else "") for node in model.graph.node for name in node.output}


def _message_class() -> Any:
    """Create the protobuf class of an ONNX model with the few fields that are read here (onnx/onnx.proto, by their numbers)."""
    file = descriptor_pb2.FileDescriptorProto(name="onnx_operations.proto", package="operations", syntax="proto2")
    fields = {
        "Node": (("input", 1, "", True), ("output", 2, "", True), ("op_type", 4, "", False)),
        "Graph": (("node", 1, "Node", True),),
        "Model": (("graph", 7, "Graph", False),),
    }
    field_type = descriptor_pb2.FieldDescriptorProto
    for message, described in fields.items():
        added = file.message_type.add(name=message)
        for name, number, kind, is_repeated in described:
            label = field_type.LABEL_REPEATED if is_repeated else field_type.LABEL_OPTIONAL
            if kind:
                added.field.add(
                    name=name, number=number, label=label, type=field_type.TYPE_MESSAGE, type_name=f".operations.{kind}"
                )
            else:
                added.field.add(name=name, number=number, label=label, type=field_type.TYPE_STRING)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("operations.Model"))


def _explain(error: Exception, path: Path, *, has_folder: bool) -> str:
    """Return a sentence for onnxruntime's message, as the predicate of a sentence about the file; clients may read it."""
    text = _PREAMBLE.sub("", str(error)).replace(f"{path.parent}/", "")
    if any(sign in text for sign in _OTHER_FILES):
        if has_folder:
            return "has weights in files that are missing, or not in its folder"
        return "has weights in other files: set file to a folder with nothing but the .onnx file and them"
    for sign, explanation in _EXPLANATIONS.items():
        if sign in text:
            return explanation.format(version=onnxruntime.__version__)
    return f"cannot be loaded by onnxruntime {onnxruntime.__version__}: {text.splitlines()[0][:300]}"
