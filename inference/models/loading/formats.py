"""Formats of model files that run without TensorFlow, found by the files' names."""

from __future__ import annotations

from pathlib import Path

from inference.models.spec import ModelSpec

LITERT_SUFFIX, ONNX_SUFFIX = ".tflite", ".onnx"
_SAVED_MODEL = "saved_model.pb"


def litert_path(spec: ModelSpec) -> Path | None:
    """Find the LiteRT file of a model; None if it has another format."""
    file = spec.local_files.get("file")
    return file.path if file is not None and file.path.suffix.lower() == LITERT_SUFFIX and file.path.is_file() else None


def onnx_path(spec: ModelSpec) -> Path | None:
    """Find the ONNX file of a model: `file`, or the only one in that folder or its only subfolder; None for other formats."""
    file = spec.local_files.get("file")
    if file is None:
        return None
    if not file.path.is_dir():
        return file.path if file.path.suffix.lower() == ONNX_SUFFIX else None
    inside = list(file.path.iterdir())
    root = inside[0] if len(inside) == 1 and inside[0].is_dir() else file.path
    found = [path for path in root.iterdir() if path.suffix.lower() == ONNX_SUFFIX]
    return found[0] if len(found) == 1 and not (root / _SAVED_MODEL).exists() else None
