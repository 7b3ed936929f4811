"""Results as CloudEvents: https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/formats/json-format.md."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any
from urllib.parse import quote

#: Type of a whole event (structured mode); the Kafka protocol binding requires it in the header `content-type`.
CONTENT_TYPE = "application/cloudevents+json; charset=UTF-8"
EVENT_TYPE = "rohe.inference.result"


def cloud_event(document: dict[str, Any], trace: Mapping[str, str] = MappingProxyType({})) -> dict[str, Any]:
    """Return the event, as a JSON object, whose data is a result document.

    `source` and `id` identify it; `time` is the time at which the task ended. `owner` is an extension attribute, which is missing
    if the task has none.

    Args:
        trace: `traceparent` and `tracestate`, which are extension attributes too:
            https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/extensions/distributed-tracing.md.
    """
    finished_at = datetime.fromtimestamp(document["finished_at_ms"] / 1000, UTC)
    return {
        "specversion": "1.0",
        "id": document["task_id"],
        "source": f"/pipelines/{quote(document['pipeline_id'], safe='')}",
        "type": EVENT_TYPE,
        "time": finished_at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "subject": document["request_id"],
        **({"owner": document["owner"]} if "owner" in document else {}),
        **trace,
        "datacontenttype": "application/json",
        "data": document,
    }
