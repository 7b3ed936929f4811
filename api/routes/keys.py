"""Route of the caller's own key."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from flask import Blueprint, Response

from api.components import components
from api.forms.query import check_query
from api.security.caller import caller
from api.views.responses import json_response
from inference.access import Caller
from inference.errors import ServiceUnavailable
from inference.lifecycle.task_object import time_text

blueprint = Blueprint("keys", __name__)

_MS_PER_S = 1000


@blueprint.get("/key")
def get_key() -> Response:
    """Return the owner, role, limits and use of the request's key; without keys, those of everybody."""
    check_query()
    found = caller()
    expires_at = components().services.keys.expires_at(found.key_id) if found.key_id else None
    return json_response(
        {
            "owner": found.owner,
            "role": found.role,
            "key_id": found.key_id or None,
            "limits": asdict(found.limits),
            "use": _use(found),
            "expires_at": None if expires_at is None else time_text(round(expires_at.timestamp() * _MS_PER_S)),
        }
    )


def _use(found: Caller) -> dict[str, Any] | None:
    """Return the use by all keys of the owner; None without keys, and while the record store does not answer."""
    if not found.owner:
        return None
    try:
        use = components().services.store.get_owner_use(found.owner)
    except ServiceUnavailable:
        return None
    rate = found.limits.rate
    return {
        "requests_left": rate.left(use.due_in_s) if rate else None,
        "images_today": use.images_today,
        "bytes_today": use.bytes_today,
        "open_tasks": use.open_tasks,
    }
