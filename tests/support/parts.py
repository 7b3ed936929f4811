"""The service as an installation of many processes runs it: each API, worker and relay started by its own command."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import psutil
from support.client import Client, free_port, wait_until
from support.service import ROOT, VARIABLES

#: Far longer than any of them takes, also on a machine that has much else to do.
READY_TIMEOUT_S = 240
_STOP_TIMEOUT_S = 90


class Parts(Client):
    """Processes by name, on one configuration.

    Args:
        folder: for their logs.
        variables: added to the environment.
    """

    def __init__(self, folder: Path, config: Path, variables: dict[str, str]) -> None:
        super().__init__(free_port())
        self.config = config
        self.environment = os.environ | VARIABLES | variables | {"INFERENCE_CONFIG": str(config)}
        self._folder = folder
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def start_broker(self) -> None:
        self.start("broker", "server.py", "broker")

    def start_api(self) -> None:
        self.start("api", "server.py", "api", "--port", str(self.port))

    def start_worker(self, name: str, *options: str) -> None:
        self.start(name, "-m", "celery", "-A", "tasks", "worker", "-n", f"{name}@%h", *options)

    def start_relay(self, name: str) -> None:
        self.start(name, "server.py", "relay")

    def start(self, name: str, *command: str, **variables: str) -> None:
        with (self._folder / f"{name}.log").open("wb") as log:
            self._running[name] = subprocess.Popen(
                [sys.executable, *command], cwd=ROOT, env=self.environment | variables, stdout=log, stderr=subprocess.STDOUT
            )

    def wait_ready(self) -> None:
        def is_ready() -> bool:
            self.assert_running()
            return self.is_ready()

        wait_until(is_ready, timeout_s=READY_TIMEOUT_S, what="the parts are ready")

    def assert_running(self) -> None:
        """None has ended by itself."""
        for name, process in self._running.items():
            assert process.poll() is None, f"{name} ended:\n{self.log(name)}"

    def runs(self, name: str) -> bool:
        return self._running[name].poll() is None

    def pid(self, name: str) -> int:
        return self._running[name].pid

    def predictor(self, worker: str) -> psutil.Process:
        """The predictor process of a worker."""
        below = psutil.Process(self.pid(worker)).children(recursive=True)
        (predictor,) = (process for process in below if "inference.models.predictor.process" in process.cmdline())
        return predictor

    def log(self, name: str) -> str:
        return (self._folder / f"{name}.log").read_text(encoding="utf-8", errors="replace")

    def kill(self, name: str) -> None:
        process = self._running.pop(name)
        process.kill()
        process.wait()

    def wait_killed(self, name: str) -> None:
        """It kills itself."""
        assert self._running.pop(name).wait(_STOP_TIMEOUT_S) == -9, self.log(name)

    def stop(self, *names: str) -> None:
        """Stop all parts like SIGTERM; each must end as it should."""
        stopping = {name: self._running.pop(name) for name in names}
        for process in stopping.values():
            process.terminate()
        codes = {name: _end(process) for name, process in stopping.items()}
        for name, code in codes.items():
            assert code == 0, f"{name}: exit code {code}\n{self.log(name)}"

    def stop_all(self) -> None:
        """The broker last, which the others need to end well."""
        try:
            self.stop(*(self._running.keys() - {"broker"}))
        finally:
            self.stop(*self._running)


def _end(process: subprocess.Popen[bytes]) -> int:
    """The exit code; nothing is left of it afterwards."""
    try:
        return process.wait(_STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()
