"""Journal of a run over many photos: with it, the same command goes on after it was interrupted, and sends nothing twice.

A text file, JSON Lines; the first line describes the run. Photos are sent in groups, and before a group is sent, a line names its
photos: the Idempotency-Key of the group is made of the run's id and the group's number, so that a group whose answer was lost is
sent again as it was, under the key that the service knows. A second line of the group has the batch that the service made of it;
then it is not sent again. Each photo that has ended has a line with its outcome.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sys
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from rohe_inference.cli.config import state_folder
from rohe_inference.cli.exits import CommandError, ExitCode
from rohe_inference.cli.outcomes import Outcome, json_line
from rohe_inference.cli.photos import Photo

_FORMAT = 1
_MEMBERS_OF_OUTCOME = ("status", "task_id", "model", "result", "error")


class JournalError(CommandError):
    """The journal cannot be used; the message has the reason and the remedy."""

    def __init__(self, message: str) -> None:
        super().__init__(message, ExitCode.USAGE)


@dataclass
class Group:
    """Photos that are sent in one request."""

    number: int
    #: identities, in the order of the request
    photos: tuple[str, ...]
    #: batch that the service made of it; None if that is not known
    batch_id: str | None = None


class Journal:
    """State of a run: groups that were sent, and outcomes of photos. An exclusive lock on the file is held until it is closed."""

    def __init__(
        self, path: Path | None, options: Mapping[str, Any], *, restart: bool = False, is_permanent: bool = False
    ) -> None:
        """Open or create the journal.

        Args:
            path: None keeps the state in memory alone.
            options: the run's options for the service; a journal of other options is refused.
            restart: forget an earlier run.
            is_permanent: a complete run keeps the file.
        Raises:
            JournalError: another command uses it, it is of other options, or it is no journal.
            OSError: it cannot be written.
        """
        self.path = path
        self._is_permanent = is_permanent
        self._outcomes: dict[str, Outcome] = {}
        self._groups: list[Group] = []
        #: number of the last group that each photo is in
        self._group_of: dict[str, int] = {}
        self._descriptor: int | None = None
        lines: list[bytes] = []
        if path is not None:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            if path is not None and self._descriptor is not None:
                _lock(self._descriptor, path)
                lines = [] if restart else _complete_lines(self._descriptor, path)
            self.run_id = self._read(lines, dict(options)) if lines else self._begin_run(dict(options))
        except BaseException:
            self.close()
            raise

    def outcome(self, photo: Photo) -> Outcome | None:
        """Return the outcome of a photo; None if it has not ended, or was not sent."""
        return self._outcomes.get(photo.identity)

    def forget(self, photo: Photo) -> None:
        """Forget the outcome of a photo, which is sent again as a new task."""
        self._outcomes.pop(photo.identity, None)
        self._group_of.pop(photo.identity, None)

    def open_groups(self) -> list[Group]:
        """Return the groups that were sent, or about to be sent, and have photos without outcomes."""
        return [group for group in self._groups if self.open_photos(group)]

    def open_photos(self, group: Group) -> list[str]:
        """Return the photos of a group without outcomes, unless they were sent again in a later group."""
        return [photo for photo in group.photos if photo not in self._outcomes and self._group_of.get(photo) == group.number]

    def begin(self, photos: Sequence[Photo]) -> Group:
        """Note a group before it is sent, on the disk: a power failure does not lose its key."""
        group = Group(len(self._groups), tuple(photo.identity for photo in photos))
        self._write({"group": group.number, "photos": group.photos})
        if self._descriptor is not None:
            os.fsync(self._descriptor)
        self._add(group)
        return group

    def accept(self, group: Group, batch_id: str) -> None:
        """Note the batch that the service made of a group."""
        group.batch_id = batch_id
        self._write({"group": group.number, "batch_id": batch_id})

    def idempotency_key(self, group: Group) -> str:
        """Return the key under which a group is sent, each time."""
        return f"{self.run_id}-{group.number}"

    def record(self, photo: Photo, outcome: Outcome) -> None:
        """Note an outcome."""
        self._write({"photo": photo.identity, "name": photo.name, **outcome.to_dict()})
        self._outcomes[photo.identity] = outcome

    def complete(self, *, keep: bool) -> None:
        """Close the journal of a run that has come to its end, and delete the file unless it is permanent or `keep` says so."""
        if self.path is not None and not keep and not self._is_permanent:
            with contextlib.suppress(FileNotFoundError):
                self.path.unlink()
        self.close()

    def close(self) -> None:
        """Release the lock; the file stays."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _write(self, document: Mapping[str, Any]) -> None:
        """Append a line, which outlives this process."""
        if self._descriptor is not None:
            os.write(self._descriptor, (json_line(document) + "\n").encode())

    def _begin_run(self, options: dict[str, Any]) -> str:
        if self._descriptor is not None:
            os.ftruncate(self._descriptor, 0)
        run_id = uuid.uuid4().hex
        created_at = datetime.now(timezone.utc).isoformat(timespec="seconds")
        self._write({"journal": _FORMAT, "run_id": run_id, "created_at": created_at, "options": options})
        return run_id

    def _read(self, lines: list[bytes], options: dict[str, Any]) -> str:
        try:
            header, *entries = map(json.loads, lines)
            run_id, is_known = str(header["run_id"]), header["journal"] == _FORMAT
            for entry in entries:
                self._take(entry)
        except (ValueError, LookupError, TypeError) as error:
            raise JournalError(
                f"{self.path} is no journal of this program ({error!r}): name another file, or --restart"
            ) from error
        if not is_known or header.get("options") != json.loads(json_line(options)):
            known = json_line(header.get("options") or {})
            raise JournalError(f"the journal {self.path} is of a run with other options, {known}: use the same, or --restart")
        return run_id

    def _take(self, entry: dict[str, Any]) -> None:
        """Read a line. A photo that is in a later group was sent again: its earlier outcome does not count."""
        if "photo" in entry:
            self._outcomes[entry["photo"]] = Outcome(**{name: entry[name] for name in _MEMBERS_OF_OUTCOME})
        elif "batch_id" in entry:
            self._groups[entry["group"]].batch_id = entry["batch_id"]
        else:
            self._add(Group(entry["group"], tuple(entry["photos"])))

    def _add(self, group: Group) -> None:
        self._groups.append(group)
        for photo in group.photos:
            self._outcomes.pop(photo, None)
            self._group_of[photo] = group.number


def default_journal(url: str, names: Sequence[str], options: Mapping[str, Any]) -> Path:
    """Return the path of the journal of a run over these files and folders: the same command finds it again."""
    places = [os.path.realpath(name) for name in names]
    text = json.dumps([url, sorted(places), dict(options)], sort_keys=True)
    return state_folder() / "journals" / f"{hashlib.sha256(text.encode()).hexdigest()[:16]}.jsonl"


def _lock(descriptor: int, path: Path) -> None:
    if sys.platform == "win32":
        return
    import fcntl  # noqa: PLC0415 - not on every system

    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise JournalError(
            f"another command runs with the journal {path}: wait for it, or name another with --journal FILE"
        ) from None


def _complete_lines(descriptor: int, path: Path) -> list[bytes]:
    """Return the lines, and cut off a last one that was not written to its end."""
    data = path.read_bytes()
    complete = data[: data.rfind(b"\n") + 1]
    if len(complete) < len(data):
        os.ftruncate(descriptor, len(complete))
    return complete.splitlines()
