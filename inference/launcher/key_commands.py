"""Commands for keys in the record store: `keys create`, `list`, `revoke` and `rotate`."""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import yaml
from pydantic import ValidationError

from inference.access import Caller, Limits, Role
from inference.container import Services
from inference.errors import ConfigurationError
from inference.keys.entries import Key, KeyEntry, LimitsEntry
from inference.keys.key_file import read_key_file
from inference.keys.key_ring import asks_for_keys
from inference.keys.key_text import KEY_ID_PATTERN, claimed_id, digest_of, id_of, new_key_text
from inference.launcher import embedded_broker
from inference.runtime.audit import COMMAND_LINE, audit, command_audit, system_identity
from inference.settings import EMBEDDED, Settings
from inference.settings.installation import COMMAND
from inference.settings.masked_text import explain

_DURATION = re.compile(r"(\d{1,6})([smhd])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_BROKER_TIMEOUT_S = 30.0


def add_key_commands(commands: Any, shared: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """Add `keys` to the subparsers of `server.py`, and return its parser.

    An action sets `key_action` to its function, which takes the options and the settings.
    """
    keys: argparse.ArgumentParser = commands.add_parser(
        "keys", help="create, list, rotate or revoke the keys of the API's callers"
    )
    actions = keys.add_subparsers(metavar="ACTION", required=True)
    create = actions.add_parser("create", parents=[shared], help="create a key, and print it once, as the last line")
    create.add_argument("--owner", required=True, metavar="NAME", help="owner of the tasks that callers with this key send")
    create.add_argument("--role", required=True, choices=[role.value for role in Role], help="what callers with this key may do")
    create.add_argument("--limit", action="append", default=[], metavar="NAME=VALUE", help=_limit_names())
    create.add_argument("--expires", type=_expiry, metavar="WHEN", help="90d, 12h, or a time such as 2027-01-31; default: never")
    create.add_argument("--entry", action="store_true", help="print an entry for security.keys_file; store nothing")
    create.set_defaults(key_action=_create)
    listing = actions.add_parser("list", parents=[shared], help="list the keys of the record store and of security.keys_file")
    listing.add_argument("--json", action="store_true", help="print JSON")
    listing.set_defaults(key_action=_list)
    revoke = actions.add_parser("revoke", parents=[shared], help="delete a key; it is refused everywhere within 5 s")
    revoke.add_argument("key_id", type=_key_id, metavar="ID")
    revoke.set_defaults(key_action=_revoke)
    rotate = actions.add_parser("rotate", parents=[shared], help="create a key in place of another one")
    rotate.add_argument("key_id", type=_key_id, metavar="ID")
    rotate.add_argument(
        "--overlap", type=_duration, default=timedelta(hours=24), metavar="TIME", help="the old key expires then; default 24h"
    )
    rotate.set_defaults(key_action=_rotate)
    return keys


def run_key_command(options: argparse.Namespace, settings: Settings) -> int:
    """Carry out an action of `keys`; returns the exit code. Raises ConfigurationError, ServiceUnavailable."""
    with command_audit(settings.security.audit_file):
        options.key_action(options, settings)
    return 0


def _create(options: argparse.Namespace, settings: Settings) -> None:
    now = datetime.now(UTC)
    expires_at = now + options.expires if isinstance(options.expires, timedelta) else options.expires
    text, key = _new_key(options.owner, Role(options.role), _limits(options.limit), now, expires_at)
    if options.entry:
        entry = KeyEntry.of(key).model_dump(mode="json", exclude_none=True, exclude_defaults=True)
        _print(yaml.safe_dump({"keys": {key.key_id: entry}}, sort_keys=False) + f"\n{text}")
        return
    with _services(settings) as services:
        services.key_store.add(key)
    _audit("key.create", key.key_id, "done", owner=key.caller.owner, role=key.caller.role)
    _print_new(text, key, settings)


def _list(options: argparse.Namespace, settings: Settings) -> None:
    file = settings.security.keys_file
    filed = read_key_file(file).keys if file else {}
    with _services(settings) as services:
        stored = services.key_store.read().keys
    keys = {**stored, **filed}
    documents = [_document(key, "file" if key.key_id in filed else "store") for key in keys.values()]
    documents.sort(key=lambda document: (document["owner"], document["created_at"] or "", document["id"]))
    if options.json:
        _print(orjson.dumps(documents, option=orjson.OPT_INDENT_2).decode())
    else:
        _print("\n".join(_row(document) for document in documents) or "no keys")


def _revoke(options: argparse.Namespace, settings: Settings) -> None:
    with _services(settings) as services:
        is_revoked = services.key_store.revoke(options.key_id)
    _audit("key.revoke", options.key_id, "done" if is_revoked else "unknown")
    if not is_revoked:
        raise _unknown(options.key_id, settings)
    _print(f"{options.key_id} is revoked")


def _rotate(options: argparse.Namespace, settings: Settings) -> None:
    now = datetime.now(UTC)
    with _services(settings) as services:
        old = services.key_store.read().keys.get(options.key_id)
        if old is None:
            raise _unknown(options.key_id, settings)
        lifetime = old.expires_at - old.created_at if old.expires_at and old.created_at else None
        text, new = _new_key(old.caller.owner, old.caller.role, old.caller.limits, now, now + lifetime if lifetime else None)
        if not services.key_store.rotate(options.key_id, new, now + options.overlap):
            raise _unknown(options.key_id, settings)
    _audit("key.rotate", options.key_id, "done", owner=new.caller.owner, new_key_id=new.key_id)
    _print(f"{options.key_id} expires at {_shown_time(now + options.overlap)}, if not before")
    _print_new(text, new, settings)


def _new_key(owner: str, role: Role, limits: Limits, now: datetime, expires_at: datetime | None) -> tuple[str, Key]:
    text = new_key_text()
    try:
        entry = KeyEntry(
            owner=owner,
            role=role,
            sha256=digest_of(text).hex(),
            limits=LimitsEntry(**asdict(limits)),
            created_at=now.replace(microsecond=0),
            expires_at=expires_at.replace(microsecond=0) if expires_at else None,
        )
    except ValidationError as error:
        raise ConfigurationError("\n".join(explain(one, section=KeyEntry) for one in error.errors())) from None
    return text, entry.key(id_of(text))


def _limits(pairs: Sequence[str]) -> Limits:
    """Return the limits of `NAME=VALUE` pairs. Raises ConfigurationError."""
    named = {name: value for name, _, value in (pair.partition("=") for pair in pairs)}
    try:
        return LimitsEntry.model_validate(named).limits()
    except ValidationError as error:
        problems = (explain(one, section=LimitsEntry, prefix="--limit") for one in error.errors())
        raise ConfigurationError("\n".join(problems)) from None


def _limit_names() -> str:
    return f"limit of the key's use, again for each: {', '.join(LimitsEntry.model_fields)}"


def _unknown(key_id: str, settings: Settings) -> ConfigurationError:
    file = settings.security.keys_file
    if file is not None and key_id in read_key_file(file).keys:
        return ConfigurationError(f"the key {key_id} is in {file}: change it there")
    return ConfigurationError(f"there is no key {key_id} in the record store; {COMMAND} keys list shows the keys")


@contextmanager
def _services(settings: Settings) -> Iterator[Services]:
    """Give the services of these settings; the embedded broker is started for this command, if it does not run."""
    if (settings.task_store.url or settings.broker.url) != EMBEDDED or embedded_broker.is_up(settings.data_dir):
        yield Services(settings)
        return
    command = embedded_broker.command(settings.data_dir, settings.broker.embedded_memory_mb)
    broker = subprocess.Popen(command, stdout=subprocess.DEVNULL)  # noqa: S603 no part of the command is a user's text
    try:
        if not embedded_broker.wait_for(settings.data_dir, up=True, timeout_s=_BROKER_TIMEOUT_S):
            raise ConfigurationError(f"the embedded broker does not start:\n{embedded_broker.log_tail(settings.data_dir)}")
        yield Services(settings)
    finally:
        broker.terminate()
        broker.wait()


def _audit(what: str, key_id: str, outcome: str, **details: str) -> None:
    audit(what, who=system_identity(), source=COMMAND_LINE, target=key_id, outcome=outcome, **details)


def _document(key: Key, source: str) -> dict[str, Any]:
    caller: Caller = key.caller
    return {
        "id": caller.key_id,
        "owner": caller.owner,
        "role": caller.role,
        "source": source,
        "created_at": key.created_at.isoformat() if key.created_at else None,
        "expires_at": key.expires_at.isoformat() if key.expires_at else None,
        "is_expired": key.expires_at is not None and key.expires_at <= datetime.now(UTC),
        "limits": {name: value for name, value in asdict(caller.limits).items() if value is not None},
    }


def _row(document: Mapping[str, Any]) -> str:
    expiry = f"{'expired' if document['is_expired'] else 'expires'} {document['expires_at']}" if document["expires_at"] else ""
    limits = " ".join(f"{name}={value:g}" for name, value in document["limits"].items())
    parts = [document["id"], document["owner"], document["role"], document["source"], expiry, limits]
    return "  ".join(filter(None, parts))


def _print_new(text: str, key: Key, settings: Settings) -> None:
    if not asks_for_keys(settings):
        why = "security.anonymous is set" if settings.security.anonymous else "on loopback security.require_keys asks for one"
        sys.stderr.write(f"note: the API of this configuration asks for no key: {why}\n")
    expiry = f"expires at {_shown_time(key.expires_at)}" if key.expires_at else "does not expire"
    _print(f"key {key.key_id} of {key.caller.owner}, role {key.caller.role}, {expiry}; it is not shown again:\n{text}")


def _key_id(text: str) -> str:
    """Return the id that was typed, or that of a whole key, whose secret must be in no message and not in the audit log."""
    found = claimed_id(text) or text
    if not re.fullmatch(KEY_ID_PATTERN, found):
        raise argparse.ArgumentTypeError("it is not the id of a key, which is the ten characters between rk_ and the next _")
    return found


def _shown_time(time: datetime) -> str:
    return f"{time:%Y-%m-%d %H:%M:%S} UTC"


def _duration(text: str) -> timedelta:
    found = _DURATION.fullmatch(text)
    if found is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not a time such as 90d, 24h, 30m or 10s")
    return timedelta(**{_UNITS[found[2]]: int(found[1])})


def _expiry(text: str) -> datetime | timedelta:
    """Return the lifetime, or the time, that the text names; it must be in the future."""
    if _DURATION.fullmatch(text):
        return _duration(text)
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is neither a time from now, such as 90d, nor a date, such as 2027-01-31"
        ) from None
    time = time if time.tzinfo else time.replace(tzinfo=UTC)
    if time <= datetime.now(UTC):
        raise argparse.ArgumentTypeError(f"{text!r} is in the past")
    return time.astimezone(UTC)


def _print(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()
