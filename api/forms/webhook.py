"""Reading of the option `webhook`: a JSON object, or the receiver's URL alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from api.forms.json_body import read_json
from api.forms.known_fields import nearest
from inference.errors import InvalidMetadata, shown, shown_name
from inference.webhook import WebhookEvent

_FIELD = "metadata.webhook"
_EXAMPLE = '{"url": "https://…", "events": ["task.succeeded"]}, a URL alone for all events, or false for none'
_MEMBERS = ("url", "events")
#: A longer URL is refused before it is read; a list of events with repetitions may be longer than all of them.
_MAX_URL_LENGTH, _MAX_EVENTS = 2048, 100
_NONE = {"false", "False"}


@dataclass(frozen=True)
class WebhookChoice:
    """Webhook as a request names it. None: the setting; an empty URL: no webhook."""

    url: str | None = None
    events: tuple[WebhookEvent, ...] | None = None


def read_webhook(value: Any) -> WebhookChoice | None:
    """Read the webhook; None if it is not given. Raises InvalidMetadata."""
    if value is None or value == "":
        return None
    if value is False or (isinstance(value, str) and value in _NONE):
        return WebhookChoice(url="")
    if isinstance(value, str):
        if not value.lstrip().startswith("{"):
            return WebhookChoice(_read_url(value))
        value = read_json(value, _FIELD, _EXAMPLE)
    if not isinstance(value, dict):
        raise InvalidMetadata(f"webhook is {shown(value)}", field=_FIELD, expected=_EXAMPLE)
    for name in value:
        if name not in _MEMBERS:
            near = nearest(name, _MEMBERS)
            hint = f": did you mean {near}?" if near else ""
            raise InvalidMetadata(
                f"webhook has no member {shown(name)}{hint}",
                field=f"{_FIELD}.{shown_name(name)}",
                expected=" and ".join(_MEMBERS),
            )
    url = value.get("url")
    return WebhookChoice(None if url is None else _read_url(url), _read_events(value.get("events")))


def _read_url(value: Any) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= _MAX_URL_LENGTH:
        raise InvalidMetadata(
            f"the webhook's URL is {shown(value)}",
            field=f"{_FIELD}.url",
            expected=f"a URL of at most {_MAX_URL_LENGTH} characters",
        )
    return value


def _read_events(value: Any) -> tuple[WebhookEvent, ...] | None:
    """Read a list of events, or text with commas; the order has no meaning. None if it is not given."""
    if value is None:
        return None
    names = value.split(",") if isinstance(value, str) and len(value) <= _MAX_URL_LENGTH else value
    known = {event.value for event in WebhookEvent}
    wanted = {name.strip() for name in names if isinstance(name, str)} if isinstance(names, list) else set()
    is_valid = isinstance(names, list) and 0 < len(names) <= _MAX_EVENTS and all(isinstance(name, str) for name in names)
    if not is_valid or not wanted <= known:
        raise InvalidMetadata(
            f"events of the webhook are {shown(value)}", field=f"{_FIELD}.events", expected=f"some of {', '.join(WebhookEvent)}"
        )
    return tuple(event for event in WebhookEvent if event in wanted)
