"""Tensor datatypes of the protocol, and numpy's names for them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

#: Datatype of elements that are byte strings.
BYTES = "BYTES"

#: Datatypes of numbers; binary data is little-endian. BF16 is missing: numpy does not have it.
DTYPES: Mapping[str, np.dtype[Any]] = {
    "BOOL": np.dtype("?"),
    "UINT8": np.dtype("u1"),
    "UINT16": np.dtype("<u2"),
    "UINT32": np.dtype("<u4"),
    "UINT64": np.dtype("<u8"),
    "INT8": np.dtype("i1"),
    "INT16": np.dtype("<i2"),
    "INT32": np.dtype("<i4"),
    "INT64": np.dtype("<i8"),
    "FP16": np.dtype("<f2"),
    "FP32": np.dtype("<f4"),
    "FP64": np.dtype("<f8"),
}

_NAMES = {dtype: name for name, dtype in DTYPES.items()}


def datatype_of(dtype: np.dtype[Any]) -> str:
    """Return the protocol's name of a dtype. Raises KeyError."""
    return _NAMES[dtype]
