"""Audit log: one line of JSON for each command, change of a key, action on a dead letter, erasure and refused key.

The lines are events of the logger `audit`, in the log of the process; with `security.audit_file` they are in that file too.
"""

from __future__ import annotations

import getpass
import json
import logging
import sys
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime
from logging.handlers import WatchedFileHandler
from pathlib import Path
from typing import Any

from inference.access import Caller
from inference.errors import ConfigurationError, InferenceError
from inference.settings.masking import shown_value

#: Address of the commands of `server.py`.
COMMAND_LINE = "command line"
#: Longest text of a field, characters: a client may have sent it.
_MAX_CHARACTERS = 1_000
_MAX_ITEMS = 100

AUDIT_LOGGER = "audit"
logger = logging.getLogger(AUDIT_LOGGER)
logger.setLevel(logging.INFO)  # also if `log.level` leaves out other events of this level


def audit(what: str, *, who: Mapping[str, str], source: str, target: str, outcome: str, **details: Any) -> None:
    """Log one event.

    Args:
        what: kind of the event, such as `key.create`.
        who: from `caller_identity` or `system_identity`; of a refused key its claimed id, as `key_id`.
        source: address of the client, or `COMMAND_LINE`.
        target: the task, model, key or other object that it is about.
        outcome: `done`, or the code or reason of a refusal.
        details: further fields, values of JSON; of a list the first hundred items.
    """
    event = {
        "at": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "who": dict(who),
        "from": source,
        "what": what,
        "target": target,
        "outcome": outcome,
        **details,
    }
    # ASCII alone: no character of a client's text can change how a terminal shows the line
    logger.info("%s", json.dumps(_shortened(shown_value(event)), default=str))


@contextmanager
def audited(what: str, target: str, *, who: Mapping[str, str], source: str) -> Iterator[dict[str, Any]]:
    """Log the outcome of the block: `done`, the code of an InferenceError, or `failed` after another exception.

    Args:
        what, target, who, source: as in `audit`.

    Yields:
        members of the event, to which the block may add, and of which it may change `target` and the outcome of a failure.
    """
    event: dict[str, Any] = {"target": target, "outcome": "failed"}
    try:
        yield event
        event["outcome"] = "done"
    except InferenceError as error:
        event["outcome"] = error.code
        raise
    finally:
        audit(what, who=who, source=source, **event)


def audited_command(what: str, target: str) -> AbstractContextManager[dict[str, Any]]:
    """Log the outcome of the block, which is a command of `server.py`, as `audited` does."""
    return audited(what, target, who=system_identity(), source=COMMAND_LINE)


def caller_identity(caller: Caller) -> dict[str, str]:
    """Return the caller of a request as `who` of an event: owner and key; without keys both are empty."""
    return {"owner": caller.owner, "key_id": caller.key_id}


def system_identity() -> dict[str, str]:
    """Return the user of this process as `who` of an event."""
    try:
        return {"user": getpass.getuser()}
    except (KeyError, OSError):  # a container may run as a number without a name
        return {"user": "unknown"}


def open_audit_file(file: Path | None) -> None:
    """Write the events of this process to `file` too; None: only to its log. Several processes may write to one file.

    A file that is renamed, as logrotate does, is created again.

    Raises:
        ConfigurationError: the file cannot be written.
    """
    for handler in logger.handlers[:]:
        logger.removeHandler(handler)
        handler.close()
    if file is not None:
        logger.addHandler(_file_handler(file))


@contextmanager
def command_audit(file: Path | None) -> Iterator[None]:
    """Write the events of a command, which has no log, to `file`; None: to standard error.

    Raises:
        ConfigurationError: the file cannot be written.
    """
    handler = logging.StreamHandler(sys.stderr) if file is None else _file_handler(file)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        handler.close()


def _file_handler(file: Path) -> logging.Handler:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        return WatchedFileHandler(file, encoding="ascii")
    except OSError as error:
        raise ConfigurationError(
            f"security.audit_file: cannot write to {file}: {error.strerror}", field="security.audit_file"
        ) from error


def _shortened(value: Any) -> Any:
    match value:
        case str() if len(value) > _MAX_CHARACTERS:
            return value[:_MAX_CHARACTERS] + "…"
        case dict():
            return {name: _shortened(item) for name, item in value.items()}
        case list():
            return [_shortened(item) for item in value[:_MAX_ITEMS]]
    return value
