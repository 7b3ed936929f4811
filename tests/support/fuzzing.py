"""Fuzz tests: random inputs from a seed, as many as the budget allows.

`make test` runs the fixed seed 0 with a small budget; `make fuzz SEED=7 BUDGET=50` other inputs, and fifty times as many.
"""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, seed, settings
from hypothesis import strategies as st

Test = TypeVar("Test", bound=Callable[..., Any])

SEED = int(os.environ.get("FUZZ_SEED") or 0)
BUDGET = int(os.environ.get("FUZZ_BUDGET") or 1)

#: Numbers at which types and checks end.
_NUMBERS = st.sampled_from([0, 1, -1, 9, 10, 2**31 - 1, 2**31, 2**53, 2**63 - 1, 2**64 - 1, -(2**63), 1e308, -1e308, 5e-324, 0.5])
_TEXTS = st.sampled_from(
    [
        "",
        " ",
        "0",
        "1e9",
        "-1",
        "NaN",
        "null",
        "true",
        "\0",
        "a\r\nb: c",
        "../..",
        "/etc/passwd",
        "s3://b/k",
        "é",
        "\u202e",
        "x" * 300,
    ]
)


def with_budget(test: Test) -> Test:
    """Mark a test with random inputs of its own; its time limit grows with the budget."""
    marked: Test = pytest.mark.fuzz(pytest.mark.timeout(180 * BUDGET)(test))
    return marked


def fuzz(cases: int) -> Callable[[Test], Test]:
    """Give a test this many inputs, times the budget: the same ones for the same seed."""

    def decorate(test: Test) -> Test:
        chosen = settings(
            max_examples=cases * BUDGET,
            database=None,
            deadline=None,
            print_blob=False,
            suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
        )
        return with_budget(seed(SEED)(chosen(test)))

    return decorate


def json_values(*known: str) -> st.SearchStrategy[Any]:
    """Any JSON value; `known` texts occur often, as values and as names of members."""
    texts = st.sampled_from(known or ("a",)) | _TEXTS | st.text(max_size=20)
    leaves = st.none() | st.booleans() | _NUMBERS | st.integers() | st.floats() | texts
    return st.recursive(
        leaves, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4), max_leaves=12
    )


def objects(required: dict[str, Any], values: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """The object `required`, with up to three of its members replaced by any value, removed, or joined by others."""
    names = st.sampled_from(sorted(required)) | st.text(max_size=8)
    changes = st.dictionaries(names, st.just(_GONE) | values, max_size=3)
    return changes.map(lambda changed: {name: value for name, value in {**required, **changed}.items() if value is not _GONE})


class _Gone:
    def __repr__(self) -> str:
        return "GONE"


_GONE = _Gone()


def as_json(value: Any) -> bytes:
    """Write any value as JSON; numbers that JSON does not have, as Python writes them."""
    return json.dumps(value).encode()


def mutations(data: bytes, count: int, chance: random.Random) -> Iterator[bytes]:
    """Yield `count` damaged copies: with bytes changed, removed, doubled, moved, or cut off."""
    for _ in range(count):
        changed = bytearray(data)
        for _ in range(chance.choice((1, 1, 2, 4, 16))):
            _mutate(changed, chance)
        yield bytes(changed)


def _mutate(data: bytearray, chance: random.Random) -> None:
    if not data:
        return
    # most decisions of a decoder depend on the first bytes
    at = chance.randrange(min(len(data), chance.choice((64, 1024, len(data)))))
    size = chance.choice((1, 1, 2, 4, 32, 512))
    match chance.randrange(7):
        case 0:
            data[at : at + size] = chance.randbytes(size)
        case 1:
            data[at] ^= 1 << chance.randrange(8)
        case 2:
            data[at : at + size] = bytes([chance.choice((0, 0xFF, 0x7F, 0x80))]) * size
        case 3:
            del data[at : at + size]
        case 4:
            data[at:at] = data[at : at + size] * chance.choice((1, 2, 100))
        case 5:
            source = chance.randrange(len(data))
            data[at : at + size] = data[source : source + size]
        case _:
            del data[chance.randrange(len(data)) :]


def chance_of(name: str) -> random.Random:
    """Random numbers of one test, from the seed."""
    return random.Random(f"{SEED} {name}")  # noqa: S311 repeatable


def spliced(contents: Sequence[bytes], chance: random.Random) -> bytes:
    """The beginning of one content and the end of another."""
    one, other = chance.choice(contents), chance.choice(contents)
    return one[: chance.randrange(len(one) + 1)] + other[chance.randrange(len(other) + 1) :]
