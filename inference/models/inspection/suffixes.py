"""Kinds of model files by their names, and advice for files of other kinds."""

from __future__ import annotations

from pathlib import Path

from inference.errors import ConfigurationError

#: Suffixes of files that hold a whole model.
SUFFIXES = (".keras", ".h5", ".hdf5", ".tflite", ".onnx")
#: Files that a message names.
_MAX_NAMED = 5
_GRAPH_FILE = "saved_model.pb"
_KINDS = "a *.keras, *.h5, *.tflite or *.onnx file, or a SavedModel's folder or .zip"
_TORCH = "is a PyTorch file, which holds code; export the model with torch.onnx.export, and serve the *.onnx file"
_PICKLE = "is a pickle, which runs code when it is read; export the model to ONNX, and serve the *.onnx file"
_ADVICE = {
    **dict.fromkeys((".pt", ".pth", ".bin", ".ckpt"), _TORCH),
    **dict.fromkeys(
        (".pkl", ".pickle", ".joblib"),
        _PICKLE,
    ),
    ".safetensors": "holds weights without a network; export the model to ONNX, and serve the *.onnx file",
    ".pb": "is a part of a SavedModel; name its folder",
    ".json": "has no weights; describe it in a model.yaml with architecture_file and weights_file",
}


def check_suffix(path: Path) -> str:
    """Return the suffix of a model's file in lower case, that of an ONNX file in a folder, or "" for a SavedModel's folder.

    Raises:
        ConfigurationError: it is none of these.
    """
    if path.is_dir():
        if _has_graph(path):
            return ""
        if onnx_file(path) is not None:
            return ".onnx"
        raise ConfigurationError(
            f"is a folder without a model.yaml, and not a SavedModel, which has a saved_model.pb{_files_advice(path)}"
        )
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise ConfigurationError(_ADVICE.get(suffix, f"is not a model: serve {_KINDS}"))
    return suffix


def onnx_file(folder: Path) -> Path | None:
    """Find the only ONNX file of a folder, whose weights may be in other files beside it."""
    found = [path for path in folder.iterdir() if path.suffix.lower() == ".onnx"]
    return found[0] if len(found) == 1 else None


def _files_advice(folder: Path) -> str:
    """Name the model files of a folder, one of which was meant."""
    found = sorted(path.name for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)
    return f"; name a file in it: {', '.join(found[:_MAX_NAMED])}" if found else ""


def _has_graph(folder: Path) -> bool:
    """Whether the folder, or its only subfolder, has the graph of a SavedModel."""
    inside = list(folder.iterdir())
    return any((found / _GRAPH_FILE).is_file() for found in (folder, *(inside if len(inside) == 1 else ())))
