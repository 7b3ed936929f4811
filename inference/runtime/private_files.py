"""Files and folders that no other user of the host may read, change or replace."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path

#: Permission bits that new files and folders do not get: all bits of other users.
_UMASK = 0o077
_OTHERS = 0o077
_OTHERS_WRITE = 0o022
_ROOT = 0


def write_privately() -> None:
    """Let only the own user read files that this process and its children create. Call it once, at the start of a process."""
    os.umask(_UMASK)


def make_private_folder(folder: Path) -> str | None:
    """Create `folder`, whose parent may be shared by all users, or check the existing one.

    Returns:
        The reason for which other users could read or replace its content; None if they cannot.
    """
    with suppress(FileExistsError):
        os.mkdir(folder, 0o700)  # noqa: PTH102 without parents, and an error if the name exists
    return shared_folder_problem(folder)


def shared_folder_problem(folder: Path) -> str | None:
    """Check as `make_private_folder` does, without creating the folder: a missing folder is not a problem."""
    if is_open_to_others(folder.parent):
        return f"other users can replace folders in {folder.parent}, which has no sticky bit"
    if folder.parent.stat().st_uid not in {_ROOT, os.geteuid()}:
        return f"{folder.parent} belongs to another user"
    return _own_problem(folder) if os.path.lexists(folder) else None


def _own_problem(folder: Path) -> str | None:
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode):
        return f"{folder} is not a folder"
    if found.st_uid != os.geteuid():
        return f"{folder} belongs to another user"
    if found.st_mode & _OTHERS:
        return f"{folder} is open to other users (mode {stat.S_IMODE(found.st_mode):04o}, not 0700)"
    return None


def close_to_others(folder: Path) -> None:
    """Remove the rights of other users from a folder of our own; a folder of another user stays unchanged."""
    found = folder.stat()
    if found.st_uid == os.geteuid() and found.st_mode & _OTHERS:
        folder.chmod(stat.S_IMODE(found.st_mode) & ~_OTHERS)


def is_open_to_others(folder: Path) -> bool:
    """Whether other users may remove or replace files in `folder`; False if it is missing."""
    try:
        mode = folder.stat().st_mode
    except OSError:
        return False
    return bool(mode & _OTHERS_WRITE) and not mode & stat.S_ISVTX
