"""Models, status and stored images of the service."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from rohe_inference.results import Json
from rohe_inference.tasks import Task, parse_optional_time


@dataclass(frozen=True)
class Model:
    """Configured model.

    Attributes:
        default: whether requests that name no model get it.
        task: `single_label` or `multi_label`.
        input: as in its description: `shape`, `dtype`, `raw` and other keys.
        runtime: library that runs it; None if no worker has it loaded.
        images_per_s: sum of the rates that the workers measured when they loaded it; None without a worker.
        warm_workers: workers that have it loaded.
        labels, workers: of `model(name)`; empty in lists.
        raw: the model as JSON, with everything else that the service tells.
    """

    name: str
    version: str
    digest: str
    default: bool
    description: str
    task: str
    input: Mapping[str, Any]
    label_count: int
    runtime: str | None
    images_per_s: float | None
    warm_workers: int
    labels: Sequence[str] = field(repr=False)
    workers: Sequence[Json] = field(repr=False)
    raw: Json = field(repr=False, compare=False)

    @classmethod
    def from_json(cls, json: Json) -> Model:
        """Read a model object."""
        return cls(
            name=json["name"],
            version=json["version"],
            digest=json["digest"],
            default=json["default"],
            description=json["description"],
            task=json["task"],
            input=json["input"],
            label_count=json["label_count"],
            runtime=json["runtime"],
            images_per_s=json["images_per_s"],
            warm_workers=json["warm_workers"],
            labels=json.get("labels", ()),
            workers=json.get("workers", ()),
            raw=json,
        )


@dataclass(frozen=True)
class CallerKey:
    """API key of the client.

    Attributes:
        owner: owner of the tasks that are accepted with it; empty if the service has no keys.
        role: `predict`, `read` or `admin`; the last if the service has no keys.
        key_id: its id, which is not secret; None if the service has no keys.
        limits: by name, the limits of its use; None: no limit.
        use: by name, the use of all keys of the owner: `images_today`; None if it is not known, or the service has no keys.
        expires_at: None if it does not expire.
        raw: the key as JSON.
    """

    owner: str
    role: str
    key_id: str | None
    limits: Mapping[str, float | None]
    use: Mapping[str, int | None] | None
    expires_at: datetime | None
    raw: Json = field(repr=False, compare=False)

    @classmethod
    def from_json(cls, json: Json) -> CallerKey:
        """Read the answer of `GET /key`."""
        expires_at = parse_optional_time(json["expires_at"])
        return cls(json["owner"], json["role"], json["key_id"], json["limits"], json["use"], expires_at, json)


@dataclass(frozen=True)
class ServiceStatus:
    """Status of the service; while its task store is down there are `stores` and `problems` alone.

    Attributes:
        stores: by store, `ok` or the fault.
        models, sinks, workers: as `GET /status` describes them.
        problems, warnings: sentences.
        raw: the status as JSON.
    """

    stores: Mapping[str, str]
    models: Sequence[Json]
    sinks: Sequence[Json]
    workers: Sequence[Json]
    problems: Sequence[str]
    warnings: Sequence[str]
    raw: Json = field(repr=False, compare=False)

    @classmethod
    def from_json(cls, json: Json) -> ServiceStatus:
        """Read the answer of `GET /status`."""
        lists = {name: json.get(name, ()) for name in ("models", "sinks", "workers", "problems", "warnings")}
        return cls(stores=json["stores"], raw=json, **lists)


@dataclass(frozen=True)
class StoredImage:
    """Image of a task, with the bytes that were sent; `shape` and `dtype` are those of an array's bytes, else None."""

    data: bytes = field(repr=False)
    media_type: str
    shape: tuple[int, ...] | None
    dtype: str | None


@dataclass(frozen=True)
class Upload:
    """Place for an image: the request that puts it there, and the URL that names it afterwards."""

    method: str
    url: str
    headers: Mapping[str, str]
    image_url: str

    @classmethod
    def from_json(cls, json: Json) -> Upload:
        """Read the answer of `POST /uploads`."""
        return cls(json["method"], json["url"], json["headers"], json["image"]["url"])


@dataclass(frozen=True)
class Erasure:
    """Progress of an erasure.

    Attributes:
        stores: by store (`records`, `images`, each sink) `erased`, `pending`, or `cannot`: the sink cannot delete.
        task_ids: the tasks; empty when the progress was read later, since nothing names them any more.
        has_more: whether the request id has more tasks.
    """

    erasure_id: str
    is_done: bool
    stores: Mapping[str, str]
    task_ids: Sequence[str] = field(repr=False)
    has_more: bool
    raw: Json = field(repr=False, compare=False)

    @classmethod
    def from_json(cls, json: Json) -> Erasure:
        """Read the answer of an erasure, or its progress."""
        task_ids, has_more = tuple(json.get("task_ids", ())), json.get("has_more", False)
        return cls(json["erasure_id"], json["status"] == "done", json["stores"], task_ids, has_more, json)


@dataclass(frozen=True)
class TasksChanged:
    """Tasks that were accepted or changed, newest first; `omitted` more did not fit into the event."""

    tasks: Sequence[Task]
    omitted: int
    raw: Json = field(repr=False, compare=False)

    @classmethod
    def from_json(cls, json: Json) -> TasksChanged:
        """Read the event `tasks` of `GET /events`."""
        return cls(tuple(map(Task.from_json, json["tasks"])), json.get("omitted", 0), json)
