"""Shapes and dtypes in every form in which they are given."""

from __future__ import annotations

import numpy as np
import pytest

from inference.array_metadata import parse_dtype, parse_shape
from inference.errors import InvalidMetadata


@pytest.mark.parametrize(
    ("value", "shape"),
    [
        ("32,32,3", (32, 32, 3)),
        ("32x32x3", (32, 32, 3)),
        ("256X256", (256, 256)),
        ("256x256", (256, 256)),
        ("(32, 32, 3)", (32, 32, 3)),
        ("[32, 32, 3]", (32, 32, 3)),
        (" 1 , 32,32,3 ", (1, 32, 32, 3)),
        ("(3072,)", (3072,)),
        ("3072,", (3072,)),
        ([256, 256, 3], (256, 256, 3)),
        ((7, 5), (7, 5)),
    ],
)
def test_shapes(value: object, shape: tuple[int, ...]) -> None:
    assert parse_shape(value) == shape


@pytest.mark.parametrize(
    "value",
    [
        "", "x", ",32", "32,,3", "32;32", "0,32,3", "-1,32,3", "32.0,32", "1,1,1,1,1", "[32,32)", "(32,32",
        "32,32]", "3 2", "٣٢,٣٢", "9" * 5000, "9999999999,2", [], [0, 3], [32, "32"], [32.0, 32], [True, 3], [None],
        [[32, 32]], [2**31], [10**5000], [1] * 5, None, 32, 1.5, {"shape": [1]}, b"32,32",
    ],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
def test_what_is_no_shape(value: object) -> None:
    with pytest.raises(InvalidMetadata) as caught:
        parse_shape(value)
    assert caught.value.field == "metadata.shape"
    assert "32,32,3" in (caught.value.expected or "")
    assert len(caught.value.detail) < 120


@pytest.mark.parametrize(
    ("value", "canonical"),
    [
        ("uint8", "|u1"), ("float32", "<f4"), (">f4", ">f4"), ("<i2", "<i2"), ("bool", "|b1"), ("float64", "<f8"),
        (" int64 ", "<i8"), ("|u1", "|u1"), ("?", "|b1"), ("f2", "<f2"), ("uint16", "<u2"), (">u2", ">u2"),
        ("u1", "|u1"),
    ],
)  # fmt: skip
def test_dtypes(value: str, canonical: str) -> None:
    assert parse_dtype(value).str == canonical


@pytest.mark.parametrize(
    "value",
    [
        "", "object", "O", "str", "U5", "S3", "V8", "void", "complex64", "c8", "datetime64", "M8[s]", "m8", "f4,f4",
        "3f4", "(2,)f4", "float128", "longdouble", "nonsense", "uint7", ">", "u1\0", "f" * 10_000, None, 8,
        ["uint8"], {"names": ["a"]}, np.uint8, b"uint8",
    ],
    ids=lambda value: repr(value)[:12],
)  # fmt: skip
def test_what_is_no_dtype(value: object) -> None:
    with pytest.raises(InvalidMetadata) as caught:
        parse_dtype(value)
    assert caught.value.field == "metadata.dtype"
    assert "uint8" in (caught.value.expected or "")
    assert len(caught.value.detail) < 120
