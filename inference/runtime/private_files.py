"""Files and folders that no other user of the host may read, change or replace."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path

#: Permission bits that files and folders are made without: all of other users.
_UMASK = 0o077
_OTHERS = 0o077
_OTHERS_WRITE = 0o022
_ROOT = 0


def write_privately() -> None:
    """Make what this process and its children write readable for its own user alone. Called once, as a process starts."""
    os.umask(_UMASK)


def make_private_folder(folder: Path) -> str | None:
    """Make `folder`, in a place that all users may share, or check the one that is there.

    Returns:
        Why other users could read or replace what is in it; None: they cannot.
    """
    with suppress(FileExistsError):
        os.mkdir(folder, 0o700)  # noqa: PTH102 without parents, and an error where anything has this name
    return shared_folder_problem(folder)


def shared_folder_problem(folder: Path) -> str | None:
    """As `make_private_folder`, but only look: a folder that is missing is no problem."""
    if is_open_to_others(folder.parent):
        return f"other users can replace folders in {folder.parent}, which has no sticky bit"
    if folder.parent.stat().st_uid not in {_ROOT, os.geteuid()}:
        return f"{folder.parent} belongs to another user"
    return _own_problem(folder) if os.path.lexists(folder) else None


def _own_problem(folder: Path) -> str | None:
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode):
        return f"{folder} is no folder"
    if found.st_uid != os.geteuid():
        return f"{folder} belongs to another user"
    if found.st_mode & _OTHERS:
        return f"{folder} is open to other users (mode {stat.S_IMODE(found.st_mode):04o}, not 0700)"
    return None


def close_to_others(folder: Path) -> None:
    """Take the rights of other users from a folder of ours; another user's stays as it is."""
    found = folder.stat()
    if found.st_uid == os.geteuid() and found.st_mode & _OTHERS:
        folder.chmod(stat.S_IMODE(found.st_mode) & ~_OTHERS)


def is_open_to_others(folder: Path) -> bool:
    """Whether other users may remove or replace what is in `folder`; False where it is missing."""
    try:
        mode = folder.stat().st_mode
    except OSError:
        return False
    return bool(mode & _OTHERS_WRITE) and not mode & stat.S_ISVTX
