"""Journal of a run over many images: with it, the same command goes on after it was interrupted, and sends nothing twice.

A text file, JSON Lines. The first line has the id of the run, and is on the disk before anything is sent. The Idempotency-Key of
each image is made of that id and the image's path, size and time of change, so that an image whose answer was lost is sent again
under the key that the service knows already. Each following line has the outcome of an image.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sys
import uuid
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from rohe_inference.cli.config import state_folder
from rohe_inference.cli.exits import CommandError, ExitCode
from rohe_inference.cli.outcomes import Outcome, json_line
from rohe_inference.cli.photos import Photo

_FORMAT = 1


class JournalError(CommandError):
    """The journal cannot be used; the message says why and what to do."""

    def __init__(self, message: str) -> None:
        super().__init__(message, ExitCode.USAGE)


class Journal:
    """Outcomes of the images of one run; an exclusive lock is held until `close`."""

    def __init__(
        self,
        path: Path,
        options: Mapping[str, Any],
        *,
        restart: bool = False,
        retry_failed: bool = False,
        is_permanent: bool = False,
    ) -> None:
        """Open or create the journal.

        Args:
            is_permanent: a complete run keeps it.
            options: what the run asks of the service; a journal of other options is refused.
            restart: forget an earlier run.
            retry_failed: images that failed have no outcome, and get a key of their own.
        Raises:
            JournalError: another command uses it, it is of other options, or it is no journal.
            OSError: it cannot be written.
        """
        self.path = path
        self._retry_failed = retry_failed
        self._is_permanent = is_permanent
        self._outcomes: dict[str, Outcome] = {}
        self._failures: Counter[str] = Counter()
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            self._lock()
            lines = [] if restart else self._complete_lines()
            self.run_id = self._read(lines, dict(options)) if lines else self._begin(dict(options))
        except BaseException:
            os.close(self._descriptor)
            raise

    def outcome(self, photo: Photo) -> Outcome | None:
        """Return the outcome of an image in this run, or in the interrupted run before it; None if it has to be sent."""
        outcome = self._outcomes.get(photo.identity)
        return None if outcome is None or (self._retry_failed and outcome.has_failed) else outcome

    def idempotency_key(self, photo: Photo) -> str:
        """Return the key under which an image is sent: always the same one until it failed and is tried again."""
        attempt = self._failures[photo.identity] if self._retry_failed else 0
        return f"{self.run_id}-{photo.identity}-{attempt}"

    def record(self, photo: Photo, outcome: Outcome) -> None:
        """Append an outcome. It survives this process; if a power failure takes it, the image is sent again under its key."""
        os.write(self._descriptor, _line({"photo": photo.identity, "name": photo.name, **outcome.to_dict()}))
        self._outcomes[photo.identity] = outcome

    def complete(self, *, keep: bool) -> None:
        """Close the journal of a run that has come to its end, and delete the file unless it is permanent or `keep` says so."""
        if not keep and not self._is_permanent:
            with contextlib.suppress(FileNotFoundError):
                self.path.unlink()
        self.close()

    def close(self) -> None:
        """Release the lock; the file stays."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _lock(self) -> None:
        if sys.platform == "win32":
            return
        import fcntl  # noqa: PLC0415 - not on every system

        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise JournalError(
                f"another command runs with the journal {self.path}: wait for it, or name another one with --journal FILE"
            ) from None

    def _complete_lines(self) -> list[bytes]:
        """Return the lines, and cut off a last one that was not written to its end."""
        data = self.path.read_bytes()
        complete = data[: data.rfind(b"\n") + 1]
        if len(complete) < len(data):
            os.ftruncate(self._descriptor, len(complete))
        return complete.splitlines()

    def _begin(self, options: dict[str, Any]) -> str:
        os.ftruncate(self._descriptor, 0)
        run_id = uuid.uuid4().hex
        created_at = datetime.now(timezone.utc).isoformat(timespec="seconds")
        os.write(self._descriptor, _line({"journal": _FORMAT, "run_id": run_id, "created_at": created_at, "options": options}))
        os.fsync(self._descriptor)
        return run_id

    def _read(self, lines: list[bytes], options: dict[str, Any]) -> str:
        try:
            header, *entries = map(json.loads, lines)
            run_id = str(header["run_id"])
            for entry in entries:
                outcome = Outcome(**{name: entry[name] for name in ("status", "task_id", "model", "result", "error")})
                self._outcomes[entry["photo"]] = outcome
                self._failures[entry["photo"]] += outcome.has_failed
        except (ValueError, KeyError, TypeError) as error:
            raise JournalError(f"{self.path} is no journal of this program ({error}): name another one, or --restart") from error
        if header.get("journal") != _FORMAT or header.get("options") != options:
            raise JournalError(
                f"the journal {self.path} is of a run with other options, {header.get('options')}: use the same, or --restart"
            )
        return run_id


def default_journal(url: str, names: Sequence[str], options: Mapping[str, Any]) -> Path:
    """Return the path of the journal of a run over these files and folders: the same command finds it again."""
    absolute = [os.path.realpath(name) for name in names]
    text = json.dumps([url, sorted(absolute), dict(options)], sort_keys=True)
    return state_folder() / "journals" / f"{hashlib.sha256(text.encode()).hexdigest()[:16]}.jsonl"


def _line(document: dict[str, Any]) -> bytes:
    return (json_line(document) + "\n").encode()
