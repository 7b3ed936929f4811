"""Files are written on real threads where gevent runs greenlets, and in place elsewhere."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest

from inference.runtime.gevent import run_blocking


def fail() -> None:
    raise OSError("the disk is full")


def test_without_gevent_it_is_a_call() -> None:
    assert run_blocking(threading.get_ident) == threading.get_ident()
    with pytest.raises(OSError, match="full"):
        run_blocking(fail)


def test_under_gevent_uploads_go_side_by_side_and_the_loop_goes_on(repository: Path, tmp_path: Path) -> None:
    """Four greenlets put an object each: every fsync waits until all four are there, and meanwhile another greenlet runs."""
    script = textwrap.dedent(
        """
        from gevent import monkey
        monkey.patch_all()
        import os, sys, gevent
        from pathlib import Path
        from api.acceptance.thread_pool import BoundedThreadPool
        from inference.storage.local import LocalObjectStore

        lock, sleep = monkey.get_original("_thread", "allocate_lock")(), monkey.get_original("time", "sleep")
        there, turns = [], []

        def fsync(_):
            with lock:
                there.append(monkey.get_original("_thread", "get_ident")())
            while len(there) < 4 or not turns:
                sleep(0.001)

        os.fsync = fsync
        store = LocalObjectStore(Path(sys.argv[1]))
        other = gevent.spawn(lambda: (gevent.sleep(0.01), turns.append(1)))
        BoundedThreadPool(4).map(lambda number: store.put(str(number), b"bytes"), range(4), timeout_s=60)
        print(len(set(there)), [store.get(str(number)) for number in range(4)])
        """
    )
    command = [sys.executable, "-W", "error", "-c", script, str(tmp_path)]
    done = subprocess.run(command, cwd=repository, capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout == f"4 {[b'bytes'] * 4}\n", done.stderr


def test_under_gevent_what_fails_is_raised_and_nothing_of_its_arguments_is_printed(repository: Path) -> None:
    script = textwrap.dedent(
        """
        from gevent import monkey
        monkey.patch_all()
        from functools import partial
        from inference.runtime.gevent import run_blocking

        def fail(image):
            raise OSError(28, "No space left on device")

        try:
            run_blocking(partial(fail, b"secret" * 1000))
        except OSError as error:
            print(error.strerror)
        """
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=repository, capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout, done.stderr) == ("No space left on device\n", "")
