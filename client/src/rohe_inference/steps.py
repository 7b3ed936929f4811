"""Steps of a call, without input and output: a call is a generator of steps, which the clients perform, each in its way."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

from rohe_inference.messages import Request

T = TypeVar("T")


@dataclass(frozen=True)
class Send:
    """Send a request; gives its Reply, or raises ConnectionFailed in the generator."""

    request: Request


@dataclass(frozen=True)
class Pause:
    """Wait for some seconds."""

    seconds: float


@dataclass(frozen=True)
class Load:
    """Call a function that reads files or computes; gives its result, or raises its error in the generator."""

    function: Callable[[], Any]


Step = Send | Pause | Load
#: A call: yields steps, gets their results, returns the answer.
Steps: TypeAlias = "Generator[Step, Any, T]"
