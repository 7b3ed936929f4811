"""The service as a user starts it: `python server.py --config FILE --port N`."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import yaml
from support.client import Client, free_port, wait_until
from support.model_cache import CACHE_VARIABLE

ROOT = Path(__file__).parent.parent.parent

#: For the processes of a service; they take precedence over its configuration. No proxy needs to learn that an API stops.
VARIABLES = CACHE_VARIABLE | {"INFERENCE_API__SHUTDOWN_DELAY_S": "0"}

#: Text of each part's command line that no other part's has.
_MARKS = {
    "broker": "valkey-server",
    "worker": "celery",
    "predictor": "inference.models.predictor.process",
    "relay": "relay",
    "api": "api",
}


class Service(Client):
    """One running server.py with a data folder of its own."""

    def __init__(
        self,
        folder: Path,
        settings: dict[str, Any],
        *,
        config: Path | None = None,
        variables: dict[str, str] | None = None,
        command: tuple[str, ...] = (),
        cwd: Path = ROOT,
    ) -> None:
        """`config` is used as it is, instead of `settings`; `variables` join the environment; `command` is a subcommand.

        Models are converted in a cache that all services of the tests share, unless `variables` names another.
        """
        super().__init__(free_port())
        self.data_dir = folder / "data"
        self.log_file = folder / "service.log"
        self.config = config or folder / "config.yaml"
        self._variables = variables or {}
        self._command = (str(ROOT / "server.py"), *command)
        self._cwd = cwd
        if config is None:
            self.config.write_text(yaml.safe_dump({"data_dir": str(self.data_dir)} | settings), encoding="utf-8")
        self.process: subprocess.Popen[bytes] | None = None
        #: every process that was ever seen below server.py
        self._seen: dict[int, psutil.Process] = {}

    @property
    def environment(self) -> dict[str, str]:
        """Environment for a command that is to find this service's configuration."""
        return os.environ | VARIABLES | self._variables | {"INFERENCE_CONFIG": str(self.config)}

    @property
    def log(self) -> str:
        return self.log_file.read_text(encoding="utf-8", errors="replace") if self.log_file.exists() else ""

    def start(self, *, wait: bool = True) -> None:
        with self.log_file.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, *self._command, "--config", str(self.config), "--port", str(self.port)],
                cwd=self._cwd,
                env=os.environ | VARIABLES | self._variables,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        if wait:
            self.wait_ready()

    def wait_ready(self, timeout_s: float = 90) -> None:
        def is_ready() -> bool:
            assert self.process is not None
            assert self.process.poll() is None, f"server.py ended:\n{self.log}"
            return self.is_ready()

        wait_until(is_ready, timeout_s=timeout_s, what="the service is ready")
        self.remember_processes()

    def remember_processes(self) -> None:
        assert self.process is not None
        below = psutil.Process(self.process.pid).children(recursive=True)
        self._seen |= {process.pid: process for process in below}

    def processes(self, part: str) -> list[psutil.Process]:
        """The running processes of a part, the oldest first."""
        self.remember_processes()
        found = [process for process in self._seen.values() if _is(process, part)]
        return sorted(found, key=lambda process: process.create_time())

    def survivors(self) -> list[str]:
        """Survivors among the processes that were ever seen."""
        left = []
        for process in self._seen.values():
            with contextlib.suppress(psutil.NoSuchProcess):
                if process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
                    left.append(" ".join(process.cmdline()))
        return left

    def kill(self, part: str) -> None:
        """SIGKILL to every process of a part."""
        for process in self.processes(part):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()

    def suspend_predictor(self) -> None:
        (predictor,) = self.processes("predictor")
        predictor.suspend()

    def stop(self, timeout_s: float = 60) -> int:
        """Stop the service like Ctrl-C; return the exit code."""
        assert self.process is not None
        if self.process.poll() is None:
            self.remember_processes()
            self.process.send_signal(signal.SIGINT)
        return self.process.wait(timeout_s)

    def end(self) -> None:
        """End it from any state: nothing is left afterwards."""
        if self.process is not None and self.process.poll() is None:
            try:
                self.stop()
            except subprocess.TimeoutExpired:
                self.process.kill()
        wait_until(lambda: not self.survivors(), timeout_s=60, what="every process has ended")


def _is(process: psutil.Process, part: str) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        command = process.cmdline()
        if process.status() == psutil.STATUS_ZOMBIE or not command:
            return False
        return _MARKS[part] in command or _MARKS[part] in Path(command[0]).name
    return False
