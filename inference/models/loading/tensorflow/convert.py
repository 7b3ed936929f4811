"""Conversion of a TensorFlow graph for LiteRT."""

from __future__ import annotations

from typing import Any

import tensorflow as tf  # type: ignore[import-untyped]

from inference.models.loading.litert import LiteGraph


def convert(graph: Any, threads: int) -> LiteGraph | None:
    """Convert `graph`, a concrete function, with its weights; None if it has operations that LiteRT lacks."""
    converter = tf.lite.TFLiteConverter.from_concrete_functions([graph], graph)
    try:
        return LiteGraph(converter.convert(), threads)
    except Exception:  # noqa: BLE001 the converter raises anything; TensorFlow's own runtime is the alternative
        return None
