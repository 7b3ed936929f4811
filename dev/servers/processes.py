"""Server processes that outlive the command that started them: a later command finds and ends them and their children.

Linux only: it reads /proc.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

#: Variable in the environment of a server and its children, so that helpers that leave its session (epmd) are found too.
_MARK = "INFERENCE_SERVICE"
#: Variables that servers inherit. Others are not passed: RABBITMQ_..., MINIO_... and the like would change their settings.
_INHERITED = ("PATH", "LANG", "LC_ALL", "TZ", "TMPDIR", "JAVA_HOME", "USER", "LOGNAME")
_POLL_INTERVAL_S = 0.1


@dataclass(frozen=True)
class Launch:
    """Command and environment of a server."""

    command: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class _Stat:
    state: str
    session: int
    #: clock ticks since boot; together with the process id it identifies a process uniquely
    started: int


class ServerProcess:
    """Process of one server, running or not.

    Args:
        mark: unique for each server of this machine.
    """

    def __init__(self, mark: str, pid_file: Path) -> None:
        self._mark = mark
        self._pid_file = pid_file

    def pid(self) -> int | None:
        """Return its process id; None if it does not run."""
        try:
            note = json.loads(self._pid_file.read_text(encoding="utf-8"))
            pid, started = int(note["pid"]), int(note["started"])
        except (OSError, ValueError, KeyError, TypeError):
            return None
        stat = _stat(pid)
        return pid if stat and stat.started == started and stat.state != "Z" else None

    def spawn(self, launch: Launch, *, home: Path, log: Path) -> subprocess.Popen[bytes]:
        """Start it in a new session; the previous log is kept under another name."""
        inherited = {name: os.environ[name] for name in _INHERITED if name in os.environ}
        environment = {**inherited, "HOME": str(home), **launch.environment, _MARK: self._mark}
        if log.exists():
            log.replace(log.with_suffix(".previous.log"))
        with log.open("wb") as output:
            process = subprocess.Popen(  # noqa: S603 our own commands
                launch.command,
                cwd=home,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        stat = _stat(process.pid)
        self._pid_file.write_text(json.dumps({"pid": process.pid, "started": stat.started if stat else 0}), encoding="utf-8")
        return process

    def stop(self, timeout_s: float) -> bool:
        """End it with SIGTERM, then its remaining processes with SIGKILL; False if a process could not be ended."""
        _signal(self._leaders(), signal.SIGTERM)
        _wait(lambda: not self._leaders(), timeout_s)
        _signal(self._alive(), signal.SIGKILL)
        gone = _wait(lambda: not self._alive(), 5.0)
        if gone:
            self._pid_file.unlink(missing_ok=True)
        return gone

    def sweep(self) -> None:
        """End the processes that a dead server has left."""
        if self._marked():
            self.stop(timeout_s=5.0)

    def _leaders(self) -> set[int]:
        """Find the server itself, even without its pid file: it leads the session of its helpers."""
        return {pid for pid in self._alive() if (stat := _stat(pid)) and stat.session == pid}

    def _alive(self) -> set[int]:
        own = self.pid()
        return self._marked() | ({own} if own else set())

    def _marked(self) -> set[int]:
        mark = f"{_MARK}={self._mark}".encode()
        found = set()
        for folder in Path("/proc").iterdir():
            if folder.name.isdecimal():
                # Processes may end during the search, and those of other users are not readable.
                with contextlib.suppress(OSError):
                    if mark in (folder / "environ").read_bytes().split(b"\0"):
                        found.add(int(folder.name))
        return {pid for pid in found if (stat := _stat(pid)) and stat.state != "Z"}


def _stat(pid: int) -> _Stat | None:
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    # The second field is the name in parentheses, which may contain spaces and parentheses. See proc(5).
    fields = text[text.rindex(")") + 2 :].split()
    return _Stat(state=fields[0], session=int(fields[3]), started=int(fields[19]))


def _signal(pids: Iterable[int], number: int) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)


def _wait(condition: Callable[[], bool], timeout_s: float) -> bool:
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(_POLL_INTERVAL_S)
    return True
