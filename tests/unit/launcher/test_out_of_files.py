"""No file can be opened any more: one sentence, and it goes on when there are some again."""

from __future__ import annotations

import errno
import logging
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pytest

from inference.errors import ConfigurationError
from inference.launcher import supervisor
from inference.launcher.supervisor import Supervisor
from inference.runtime.log import configure_logging
from inference.settings import LogSettings

TOO_MANY = OSError(errno.EMFILE, os.strerror(errno.EMFILE))


def failing_first(times: int, then: Callable[..., Any]) -> Callable[..., Any]:
    """A function that raises `TOO_MANY` so many times, and then does as `then`."""
    left = [TOO_MANY] * times

    def call(*args: Any, **options: Any) -> Any:
        if left:
            raise left.pop()
        return then(*args, **options)

    return call


def test_a_part_that_cannot_be_started_at_first_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    running = Supervisor({})
    try:
        monkeypatch.setattr("subprocess.Popen", failing_first(1, lambda: None))
        with pytest.raises(ConfigurationError, match=r"^cannot start the worker: Too many open files$"):
            running.start("worker", ["true"], stop_timeout_s=1)
    finally:
        running.stop()


def test_a_part_that_cannot_be_started_again_is_tried_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    monkeypatch.setattr(supervisor, "_MAX_BACKOFF_S", 0.1)
    running = Supervisor({})
    mark = tmp_path / "mark"
    running.start("worker", ["sh", "-c", f"echo >> {mark}"], stop_timeout_s=1)
    monkeypatch.setattr("subprocess.Popen", failing_first(2, supervisor.subprocess.Popen))
    watching = threading.Thread(target=running.watch)
    watching.start()
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and (not mark.exists() or len(mark.read_text(encoding="utf-8")) < 2):
        time.sleep(0.05)
    running.stopping.set()
    watching.join()
    running.stop()
    assert len(mark.read_text(encoding="utf-8")) >= 2
    assert [record for record in caplog.records if record.exc_info] == []
    assert "cannot start worker: Too many open files; retrying in 0.1 s" in caplog.text


@pytest.mark.parametrize("form", ["text", "json"])
def test_whoever_logs_it_writes_one_line(form: Literal["text", "json"], capsys: pytest.CaptureFixture[str]) -> None:
    """Celery logs the end of its connection with the traceback of three libraries."""
    before = logging.root.handlers[:], logging.root.level
    try:
        configure_logging(LogSettings(format=form), "worker")
        for error in (TOO_MANY, OSError(errno.EACCES, "no right")):
            wrapped = RuntimeError("no connection")
            wrapped.__cause__ = error
            logging.getLogger("celery.worker").critical("Unrecoverable error: %r", "it", exc_info=wrapped)
    finally:
        logging.root.handlers, logging.root.level = before
    lines = capsys.readouterr().err.splitlines()
    assert "Unrecoverable error: 'it': Too many open files" in lines[0]
    assert "RuntimeError" not in lines[0]
    assert "RuntimeError: no connection" in "".join(lines[1:])
