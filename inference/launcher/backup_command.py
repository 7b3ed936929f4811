"""Command `server.py backup`: copy the state of a service on the embedded broker, while it runs."""

from __future__ import annotations

import argparse
import os
import shutil
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from inference.errors import ConfigurationError, ServiceUnavailable
from inference.runtime.redis import embedded_socket
from inference.settings import Settings
from inference.settings.installation import COMMAND

_BROKER, _LOG = "broker", "appendonlydir"
_REWRITE = "auto-aof-rewrite-percentage"
#: Growth from which the broker rewrites its append-only file: the server's default, which the embedded broker keeps.
_REWRITE_PERCENT = 100
#: Folders of `data_dir` that can be made again: copies of models, and Flower's history.
_LEFT_OUT = frozenset({_BROKER, "model-files", "flower"})
_REWRITE_TIMEOUT_S = 600
_ANSWER_TIMEOUT_S = 10.0
_EXAMPLES = f"""examples:
  {COMMAND} backup /backups/2026-11-29      a new folder; the service may run

To restore it, stop the service, move its data folder away and copy the backup in its place: docs/backup.md.
exit code: 0 complete; 1 the broker does not answer, or a file cannot be copied; 2 the service uses servers of your own, or the
folder exists
"""


def add_backup_command(commands: Any, shared: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """Add `backup` to the subparsers of `server.py`, and return its parser."""
    backup: argparse.ArgumentParser = commands.add_parser(
        "backup",
        parents=[shared],
        help="copy the data folder, while the service runs",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    backup.add_argument("folder", type=Path, metavar="FOLDER", help="the copy; it must not exist")
    return backup


def back_up(settings: Settings, folder: Path) -> None:
    """Copy the data folder to `folder`, so that a service that starts with the copy finds every task that was accepted before.

    Queue and records come first. So the copy may have images and results of tasks that it does not know, which do no harm, but
    it has the image of every task that is open in it, and every result that its records take for delivered. Until it is complete,
    the name of the folder ends in `.partial`.

    Raises:
        ConfigurationError: the broker is not the embedded one, or `folder` exists or is in the data folder.
        ServiceUnavailable: the broker does not answer, its log is not rewritten in time, or a file cannot be copied.
    """
    if not settings.is_embedded:
        raise ConfigurationError(
            "backup copies the embedded broker; with servers of your own see docs/backup.md", field="broker.url"
        )
    data = settings.data_dir.resolve()
    if folder.resolve().is_relative_to(data):
        raise ConfigurationError(f"{folder} is in {data}, which is to be copied: name a folder elsewhere")
    target = folder.resolve()
    partial = target.with_name(f"{target.name}.partial")
    for path in (target, partial):
        if path.exists():
            raise ConfigurationError(f"{path} exists: remove it, or name a new folder")
    try:
        partial.mkdir(parents=True, mode=0o700)
        _copy_data(settings.data_dir, partial)
        partial.rename(target)
    except OSError as error:
        raise ServiceUnavailable(f"the backup is not complete: {error}", public="the backup is not complete") from error
    for elsewhere in _outside(settings):
        sys.stderr.write(f"warning: {elsewhere} is outside of {data}, and not in the backup: copy it after this command\n")


def _copy_data(data: Path, target: Path) -> None:
    with _log_at_rest(data):
        _copy(data / _BROKER / _LOG, target / _BROKER / _LOG)
    for path in data.iterdir():
        if path.name not in _LEFT_OUT:
            _copy(path, target / path.name)
    os.sync()


@contextmanager
def _log_at_rest(data_dir: Path) -> Iterator[None]:
    """Keep the broker from rewriting its append-only file, which would remove files while they are copied."""
    if _is_stopped(data_dir):
        yield
        return
    try:
        address, never = str(embedded_socket(data_dir)), Retry(NoBackoff(), 0)
        with redis.Redis(unix_socket_path=address, socket_timeout=_ANSWER_TIMEOUT_S, retry=never) as client:
            client.config_set(_REWRITE, 0)
            try:
                _wait_for_rewrite(client)
                yield
            finally:
                client.config_set(_REWRITE, _REWRITE_PERCENT)  # not the value before: a backup that was killed has left 0
    except redis.RedisError as error:
        public = "the embedded broker does not answer"
        raise ServiceUnavailable(f"{public}: {error}", public=public) from error


def _is_stopped(data_dir: Path) -> bool:
    """Return whether no broker listens. One that is busy, or still reads its file, listens."""
    with socket.socket(socket.AF_UNIX) as connection:
        try:
            connection.connect(str(embedded_socket(data_dir)))
        except (FileNotFoundError, ConnectionRefusedError):
            return True
    return False


def _wait_for_rewrite(client: redis.Redis) -> None:
    deadline = time.monotonic() + _REWRITE_TIMEOUT_S
    while True:
        state: Any = client.info("persistence")
        if not (state["aof_rewrite_in_progress"] or state["aof_rewrite_scheduled"]):
            return
        if time.monotonic() > deadline:
            raise ServiceUnavailable(f"the embedded broker has rewritten its append-only file for {_REWRITE_TIMEOUT_S} s")
        time.sleep(0.1)


def _copy(source: Path, target: Path) -> None:
    """Copy a file, or a folder with all that is in it. What vanishes meanwhile, as images do whose time is over, is left out."""
    if source.is_dir():
        target.mkdir(parents=True, exist_ok=True)
        with suppress(FileNotFoundError):
            for path in source.iterdir():
                _copy(path, target / path.name)
    elif source.is_file():
        with suppress(FileNotFoundError):
            shutil.copy2(source, target)


def _outside(settings: Settings) -> Iterator[Path]:
    """Yield the files and folders with data of the service that are elsewhere."""
    data = settings.data_dir.resolve()
    for path in (settings.uploads_path, settings.jsonl_path):
        if path.exists() and not path.resolve().is_relative_to(data):
            yield path.resolve()
