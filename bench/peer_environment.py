"""Separate environments of the peers, because their requirements conflict with each other and with ours."""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class PeerEnvironment:
    """Virtual environment with the packages of a requirements file, and our TensorFlow: all peers run the same build of it."""

    folder: Path
    requirements: Path

    @property
    def programs(self) -> Path:
        return self.folder / "bin"

    def make(self, title: str) -> None:
        """Create the environment, unless it exists with the same requirements.

        Raises:
            RuntimeError: it cannot be created, e.g. because pip finds no package; the message has the end of the output.
        """
        wanted = self.requirements.read_text(encoding="utf-8")
        stamp = self.folder / "made-from.txt"
        if not stamp.exists() or stamp.read_text(encoding="utf-8") != wanted:
            sys.stderr.write(f"creating the environment of {title} in {self.folder} …\n")
            shutil.rmtree(self.folder, ignore_errors=True)
            _run([sys.executable, "-m", "venv", str(self.folder)], title)
            pip = [str(self.programs / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
            _run([*pip, "-r", str(self.requirements)], title)
            stamp.write_text(wanted, encoding="utf-8")
        self._borrow_tensorflow()  # each time: the path of ours may have changed

    def _borrow_tensorflow(self) -> None:
        """Add our packages after its own, which take precedence."""
        own = sysconfig.get_path("purelib", "venv", {"base": str(self.folder)})
        (Path(own) / "tensorflow-of-the-service.pth").write_text(f"{sysconfig.get_path('purelib')}\n", encoding="utf-8")


def _run(command: list[str], title: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 our own commands
    if done.returncode != 0:
        raise RuntimeError(f"the environment of {title} cannot be created:\n{(done.stdout + done.stderr)[-3000:]}")
