"""Envelope of a predict message in Celery's protocol 2 (Celery's documentation, "Message Protocol").

It is built here, not by `send_task`, so that the task store can push it in the same step as the record; a test compares it with
the message that Celery sends.
"""

from __future__ import annotations

import os
import socket
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from inference.domain import PREDICT_TASK, QueueMessage

CONTENT_TYPE = "application/json"
CONTENT_ENCODING = "utf-8"

#: Headers that are not Celery's: the number of items that a message carries, the format of its body, and how often workers of an
#: older version, which do not read that format, have put it back.
ITEMS_HEADER, FORMAT_HEADER, PUT_BACKS_HEADER = "items", "format", "put_backs"
#: Format of the body. A change that workers of the version before would misread raises it: see docs/upgrading.md.
MESSAGE_FORMAT = 1

_ORIGIN = f"{os.getpid()}@{socket.gethostname()}"
_NO_CALLBACKS = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}


@dataclass(frozen=True)
class Resent:
    """A message of any kind, to be sent unchanged.

    Args:
        body: its bytes in base64.
        priority: in the numbers of the transport; None if it had none.
    """

    body: str
    headers: Mapping[str, Any]
    content_type: str | None
    content_encoding: str | None
    priority: int | None


def message_id(message: QueueMessage) -> str:
    """Return Celery's id of the message: the task's id; for several tasks a new id, so that a revoke of one spares the others."""
    first, *others = (item.task_id for item in message.items)
    return first if not others else uuid.uuid5(uuid.NAMESPACE_OID, "".join((first, *others))).hex


def body(message: QueueMessage) -> bytes:
    return orjson.dumps([[], message, _NO_CALLBACKS])


def headers(message: QueueMessage, own_id: str) -> dict[str, Any]:
    """Return the message's headers.

    Args:
        own_id: the message's id.
    """
    return {
        "lang": "py",
        "task": PREDICT_TASK,
        "id": own_id,
        "shadow": None,
        "eta": None,
        "expires": None,
        "group": None,
        "group_index": None,
        "retries": 0,
        "timelimit": [None, None],
        "root_id": own_id,
        "parent_id": None,
        "argsrepr": "()",
        "kwargsrepr": message.shown(),
        "origin": _ORIGIN,
        "ignore_result": True,
        "replaced_task_nesting": 0,
        "stamped_headers": None,
        "stamps": {},
        ITEMS_HEADER: len(message.items),
        FORMAT_HEADER: MESSAGE_FORMAT,
    }


def newer_format(headers: Any) -> int | None:
    """Return the format of a message if only a newer version reads it; None for all others, those of plain Celery clients too."""
    found = headers.get(FORMAT_HEADER) if isinstance(headers, Mapping) else None
    return found if type(found) is int and found > MESSAGE_FORMAT else None


def put_backs(headers: Mapping[str, Any]) -> int:
    """Return how often a message has been put back."""
    found = headers.get(PUT_BACKS_HEADER)
    return found if type(found) is int and found > 0 else 0
