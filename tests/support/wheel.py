"""The wheel, installed in a virtual environment that finds the other packages where the tests have them."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Iterator
from pathlib import Path

import psutil
from support.client import Client, wait_until
from support.service import ROOT

#: of a user's folder: one that is imported ends the program
_SHADOW = "raise SystemExit(f'{__file__} was imported')\n"
_READY_TIMEOUT_S = 120
_STOP_TIMEOUT_S = 60
_SHADOW_NAMES = ("tasks", "inference", "keras", "celery", "redis")


def build_wheel(folder: Path, source: str = ".") -> Path:
    """Build the wheel as `make wheel` does, or that of another folder; its file in `folder`."""
    command = [sys.executable, "-m", "build", "--wheel", "--outdir", str(folder), source]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = folder.glob("*.whl")
    return wheel


def install_wheel(wheel: Path, environment: Path) -> Path:
    """Make a virtual environment with the wheel, which finds other packages where the tests have them; its packages' folder."""
    venv.create(environment)
    pip = [sys.executable, "-m", "pip", "--python", str(environment / "bin" / "python"), "--disable-pip-version-check"]
    install = [*pip, "install", "--no-deps", "--no-index", str(wheel)]
    done = subprocess.run(install, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (packages,) = environment.glob("lib/python*/site-packages")
    (packages / "others.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
    return packages


class Installation:
    """A virtual environment with the wheel, and an empty folder in which its command is used."""

    def __init__(self, wheel: Path, folder: Path) -> None:
        environment = folder / "environment"
        self.packages = install_wheel(wheel, environment)
        self.command = environment / "bin" / "rohe-inference-service"
        self.working_folder = folder / "work"
        self.working_folder.mkdir()
        for name in _SHADOW_NAMES:
            (self.working_folder / f"{name}.py").write_text(_SHADOW, encoding="utf-8")
        self.state = folder / "state"
        left_out = ("PYTHONPATH", "INFERENCE_")
        self.environment = {name: value for name, value in os.environ.items() if not name.startswith(left_out)}
        self.environment["XDG_STATE_HOME"] = str(self.state)
        self.environment["PATH"] = f"{environment / 'bin'}{os.pathsep}{os.environ['PATH']}"

    def run(self, *arguments: str) -> str:
        """Run the command to its end; return its output."""
        done = subprocess.run(
            [str(self.command), *arguments],
            cwd=self.working_folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    @contextlib.contextmanager
    def service(self, client: Client, *arguments: str, folder: Path | None = None) -> Iterator[Path]:
        """Start the service by this command, on the client's port; return the file with its output. Ctrl-C leaves nothing."""
        log = self.state.parent / f"{client.port}.log"
        with log.open("wb") as file:
            service = subprocess.Popen(
                [str(self.command), *arguments, "--port", str(client.port)],
                cwd=folder or self.working_folder,
                env=self.environment,
                stdout=file,
                stderr=subprocess.STDOUT,
            )

        def is_ready() -> bool:
            assert service.poll() is None, log.read_text(encoding="utf-8")
            return client.is_ready()

        try:
            wait_until(is_ready, timeout_s=_READY_TIMEOUT_S, what="the service is ready")
            yield log
        finally:
            parts = psutil.Process(service.pid).children(recursive=True) if service.poll() is None else []
            service.send_signal(signal.SIGINT)
            service.wait(_STOP_TIMEOUT_S)
            assert psutil.wait_procs(parts, timeout=_STOP_TIMEOUT_S)[1] == []
