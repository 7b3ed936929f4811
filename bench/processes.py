"""Processes of one contender and of the real servers that it uses: start, CPU and memory, end."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Self

import psutil

from bench.workload import ROOT

#: Variable in the environment of every process of a contender.
_MARK = "ROHE_BENCH_RUN"
_END_TIMEOUT_S = 40.0
#: Part of the command line by role of a process; the first match counts.
_ROLES = {
    "predictor": "predictor.process",
    "relay": "server.py relay",
    "api": "server.py api",
    "worker": "celery",
    "broker": "valkey",
    "web": "gunicorn",
    "supervisor": "server.py",
}


class Processes:
    """Processes and their children; they are ended after the block.

    Args:
        environment: variables in addition to ours.
        log: file for their output.
        servers: real servers that they use and that ran before, by name: their CPU counts too.
        tree: folder with their code.
    """

    def __init__(
        self,
        environment: Mapping[str, str],
        log: Path,
        servers: Mapping[str, psutil.Process] | None = None,
        tree: Path = ROOT,
    ) -> None:
        self._mark = uuid.uuid4().hex
        self._tree = tree
        self._environment = {**os.environ, _MARK: self._mark, "PYTHONPATH": str(tree), **environment}
        self._servers = servers or {}
        self._started: list[psutil.Popen] = []
        self.log = log

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self._end()

    def start(self, command: Sequence[str]) -> psutil.Popen:
        with self.log.open("ab") as log:
            process = psutil.Popen(
                command,
                cwd=self._tree,
                env=self._environment,
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        self._started.append(process)
        return process

    def cpu_s(self) -> dict[str, float]:
        """Sum the CPU seconds so far, by role of the process."""
        used: dict[str, float] = {}
        for role, process in [*self._own(), *self._servers.items()]:
            with contextlib.suppress(psutil.Error):
                times = process.cpu_times()
                used[role] = used.get(role, 0.0) + times.user + times.system
        return used

    def memory_mb(self) -> dict[str, float]:
        """Find the resident memory of the largest process by role, without the real servers, which others use too."""
        used: dict[str, float] = {}
        for role, process in self._own():
            with contextlib.suppress(psutil.Error):
                used[role] = max(used.get(role, 0.0), process.memory_info().rss / 1e6)
        return used

    def _own(self) -> Iterator[tuple[str, psutil.Process]]:
        for process in self._alive():
            with contextlib.suppress(psutil.Error):
                yield _role(process), process

    def _alive(self) -> list[psutil.Process]:
        """Find started and marked processes and their children (a server that sets its title overwrites its environment)."""
        found: dict[int, psutil.Process] = {}
        for process in [*self._started, *_marked(self._mark)]:
            with contextlib.suppress(psutil.Error):
                found |= {one.pid: one for one in (process, *process.children(recursive=True))}
        return [process for process in found.values() if _is_running(process)]

    def _end(self) -> None:
        """Send SIGTERM to the processes without a parent among them, wait, and send SIGKILL to the rest."""
        processes = self._alive()
        own = {process.pid for process in processes}
        for process in processes:
            with contextlib.suppress(psutil.Error):
                if process.ppid() not in own:
                    process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + _END_TIMEOUT_S
        while (left := self._left_of(processes)) and time.monotonic() < deadline:
            time.sleep(0.2)
        for process in left:
            with contextlib.suppress(psutil.Error):
                process.kill()
        for process in self._started:
            process.wait()

    def _left_of(self, processes: Sequence[psutil.Process]) -> set[psutil.Process]:
        """Find the processes that still run, with all that they have started since."""
        return {process for process in (*processes, *self._alive()) if _is_running(process)}


def cpu_ms_each(before: Mapping[str, float], after: Mapping[str, float], count: int) -> dict[str, float]:
    """Compute the CPU milliseconds per item of `count`, by role of the process, from two `Processes.cpu_s`."""
    return {role: (used - before.get(role, 0.0)) * 1000 / count for role, used in after.items()}


def _role(process: psutil.Process) -> str:
    command = " ".join(process.cmdline())
    return next((role for role, part in _ROLES.items() if part in command), "other")


def _marked(mark: str) -> Iterator[psutil.Process]:
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get(_MARK) == mark:
                yield process


def _is_running(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.Error):
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    return False
