"""Run a part of a test as a user who may write to nothing of ours."""

from __future__ import annotations

import os
import tempfile
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

NOBODY = 65534


@contextmanager
def folder_of_all() -> Iterator[Path]:
    """A folder that every user can look into; pytest's are for its own user."""
    with tempfile.TemporaryDirectory(prefix="inf-") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


def as_nobody(call: Callable[[], str]) -> str:
    """Run `call` in a child process of the user nobody, and give its answer. Needs root; `call` imports nothing new."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
            answer = call()
        except BaseException:  # noqa: BLE001 the parent shows it
            answer = traceback.format_exc()
        os.write(writing, answer.encode()[:60_000])
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, encoding="utf-8") as pipe:
        answer = pipe.read()
    os.waitpid(child, 0)
    return answer
