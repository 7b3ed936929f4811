"""The supervisor goes on, whatever becomes of one child."""

from __future__ import annotations

import errno
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.waiting import until

from inference.launcher import supervisor
from inference.launcher.supervisor import Supervisor

pytestmark = pytest.mark.process


@pytest.fixture
def watched() -> Iterator[Supervisor]:
    one = Supervisor({})
    yield one
    one.stop()


def test_a_child_that_cannot_be_started_again_ends_nothing_and_is_tried_later(
    watched: Supervisor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(supervisor, "_MAX_BACKOFF_S", 0.1)
    start, refusals = subprocess.Popen, [OSError(errno.EMFILE, "Too many open files"), OSError(errno.ENOMEM, "No memory")]

    def refuse(*arguments: Any, **options: Any) -> Any:
        if refusals:
            raise refusals.pop(0)
        return start(*arguments, **options)

    starts = tmp_path / "starts"
    script = f"open({str(starts)!r}, 'a').write('x')"
    watched.start("child", [sys.executable, "-c", script], stop_timeout_s=5)
    until(starts.exists, "the first start")
    monkeypatch.setattr(subprocess, "Popen", refuse)
    thread = threading.Thread(target=watched.watch)
    thread.start()
    try:
        until(lambda: len(starts.read_text()) > 1, "another start")
    finally:
        watched.stopping.set()
        thread.join(10)
    assert not thread.is_alive()
    assert caplog.text.count("cannot be started") == 2
