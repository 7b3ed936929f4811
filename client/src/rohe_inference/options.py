"""Options of requests for predictions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from typing_extensions import TypedDict, Unpack

from rohe_inference.images import ImageSource


class WebhookOption(TypedDict, total=False):
    """Receiver of an event when the task has ended.

    Attributes:
        url: its address; default: that of the service's settings.
        events: `task.succeeded` and the like; default: those of the service's settings.
    """

    url: str
    events: Sequence[str]


class TaskOptions(TypedDict, total=False):
    """Options of a task; options that are left out or None have the service's defaults.

    Attributes:
        model: name of a model.
        deadline_s: seconds until the task expires.
        priority: 0 (usual) to 9 (first).
        sinks: sinks that get the result, `[]` for none.
        top_k: number of classes in the result's `top`.
        prediction: False leaves the vector out of the result.
        request_id: id of the caller's own, at most 256 characters; many tasks may share one.
        webhook: receiver of an event when the task has ended, its URL for all events, or False for none.
        shape, dtype: of bytes that are an array: `(32, 32, 3)`, `"uint8"`.
    """

    model: str | None
    deadline_s: float | None
    priority: int | None
    sinks: Sequence[str] | None
    top_k: int | None
    prediction: bool | None
    request_id: str | None
    webhook: WebhookOption | str | bool | None
    shape: Sequence[int] | None
    dtype: str | None


@dataclass(frozen=True, init=False)
class Item:
    """One image of many with options of its own, which take precedence over those of all: `Item("a.jpg", request_id="a")`."""

    image: ImageSource
    options: Mapping[str, Any]

    def __init__(self, image: ImageSource, **options: Unpack[TaskOptions]) -> None:
        """Describe an image."""
        object.__setattr__(self, "image", image)
        object.__setattr__(self, "options", known_options(options))


def known_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out options that are None. Raises TypeError: there is no such option."""
    unknown = sorted(options.keys() - TaskOptions.__annotations__.keys())
    if unknown:
        raise TypeError(f"there is no option {unknown[0]!r}: known are {', '.join(TaskOptions.__annotations__)}")
    return {name: value for name, value in options.items() if value is not None}
