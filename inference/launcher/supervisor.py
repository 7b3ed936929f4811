"""Supervisor of the service's child processes: starts and stops them in order, and restarts any that die."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from inference.errors import ConfigurationError

logger = logging.getLogger(__name__)

#: Interval between two checks of the children, seconds.
_CHECK_INTERVAL_S = 0.2
#: A child that ran for this time is restarted at once.
_STABLE_AFTER_S = 30.0
_MAX_BACKOFF_S = 15.0


@dataclass
class _Child:
    name: str
    command: Sequence[str]
    stop_timeout_s: float
    process: subprocess.Popen[bytes] | None = None
    started_at: float = 0.0
    #: deaths in a row, each soon after its start
    quick_deaths: int = 0
    restart_at: float = field(default=0.0)


class Supervisor:
    """Children by name, in the order of their start.

    Args:
        environment: variables of the children, in addition to those of this process.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        self.stopping = threading.Event()
        self._environment = {**os.environ, **environment}
        self._children: list[_Child] = []
        with _cannot_start("guard"):
            self._guard = subprocess.Popen(
                [sys.executable, "-m", "inference.launcher.guard"],
                stdin=subprocess.PIPE,
                start_new_session=True,
                env=self._environment,
            )

    def start(self, name: str, command: Sequence[str], *, stop_timeout_s: float) -> None:
        """Start a child process. Raises ConfigurationError if the system cannot start it."""
        child = _Child(name, command, stop_timeout_s)
        self._children.append(child)
        with _cannot_start(name):
            self._spawn(child)

    def first_dead(self) -> tuple[str, int] | None:
        """Return name and exit code of the first child that has ended; None if all run."""
        for child in self._children:
            code = child.process.poll() if child.process else None
            if code is not None:
                return child.name, code
        return None

    def watch(self) -> None:
        """Restart children that die, until `stopping` is set."""
        while not self.stopping.wait(_CHECK_INTERVAL_S):
            for child in self._children:
                self._restart_if_dead(child)

    def stop(self) -> None:
        """End the children, the last started first; a child that exceeds its stop timeout is killed."""
        for child in reversed(self._children):
            if child.process is not None:
                self._end(child, child.process)
        if self._guard.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self._guard.stdin.close()
        self._guard.wait()

    def kill(self) -> None:
        """Kill all children at once."""
        for child in reversed(self._children):
            if child.process is not None:
                _signal_group(child.process, signal.SIGKILL)

    def _spawn(self, child: _Child) -> None:
        # A session of its own: only this process gets a Ctrl-C from the terminal, and it ends the children in order.
        child.process = subprocess.Popen(  # noqa: S603 our own commands
            child.command, stdin=subprocess.DEVNULL, start_new_session=True, env=self._environment
        )
        child.started_at = time.monotonic()
        self._tell_guard(f"+{child.process.pid}")

    def _restart_if_dead(self, child: _Child) -> None:
        process = child.process
        if process is not None and process.poll() is not None:
            # Processes that it left in its session are killed too: they may hold files or ports that the new child needs.
            _signal_group(process, signal.SIGKILL)
            self._tell_guard(f"-{process.pid}")
            child.process = None
            stable = time.monotonic() - child.started_at > _STABLE_AFTER_S
            child.quick_deaths = 0 if stable else child.quick_deaths + 1
            pause_s = min(_MAX_BACKOFF_S, 0.5 * 2**child.quick_deaths - 0.5)
            child.restart_at = time.monotonic() + pause_s
            logger.error("%s ended (%s); restarting it in %.1f s", child.name, _end_cause(process), pause_s)
        elif process is None and time.monotonic() >= child.restart_at:
            try:
                self._spawn(child)
            except OSError as error:  # no memory, process or file available: the other children continue
                child.restart_at = time.monotonic() + _MAX_BACKOFF_S
                logger.warning("cannot start %s: %s; retrying in %g s", child.name, error.strerror, _MAX_BACKOFF_S)

    def _end(self, child: _Child, process: subprocess.Popen[bytes]) -> None:
        process.terminate()
        try:
            process.wait(child.stop_timeout_s)
        except subprocess.TimeoutExpired:
            logger.warning("%s did not end within %g s; killing it", child.name, child.stop_timeout_s)
        _signal_group(process, signal.SIGKILL)
        process.wait()
        self._tell_guard(f"-{process.pid}")

    def _tell_guard(self, line: str) -> None:
        if self._guard.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self._guard.stdin.write(f"{line}\n".encode())
                self._guard.stdin.flush()


@contextlib.contextmanager
def _cannot_start(name: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ConfigurationError(f"cannot start the {name}: {error.strerror}") from error


def _signal_group(process: subprocess.Popen[bytes], number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)


def _end_cause(process: subprocess.Popen[bytes]) -> str:
    code = process.returncode
    return f"signal {-code}" if code < 0 else f"exit code {code}"
