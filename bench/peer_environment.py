"""An environment of its own for each peer: their requirements contradict each other's and ours."""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class PeerEnvironment:
    """A virtual environment with what a requirements file names, and with our TensorFlow: each peer runs the same build of it."""

    folder: Path
    requirements: Path

    @property
    def programs(self) -> Path:
        return self.folder / "bin"

    def make(self, title: str) -> None:
        """Unless it was made from the same requirements before.

        Raises:
            RuntimeError: it cannot be made, e.g. since pip finds no package; with the end of what it printed.
        """
        wanted = self.requirements.read_text(encoding="utf-8")
        stamp = self.folder / "made-from.txt"
        if not stamp.exists() or stamp.read_text(encoding="utf-8") != wanted:
            sys.stderr.write(f"making the environment of {title} in {self.folder} …\n")
            shutil.rmtree(self.folder, ignore_errors=True)
            _run([sys.executable, "-m", "venv", str(self.folder)], title)
            pip = [str(self.programs / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
            _run([*pip, "-r", str(self.requirements)], title)
            stamp.write_text(wanted, encoding="utf-8")
        self._borrow_tensorflow()  # each time: ours may lie elsewhere by now

    def _borrow_tensorflow(self) -> None:
        """Our packages stand behind its own: what it has itself wins."""
        own = sysconfig.get_path("purelib", "venv", {"base": str(self.folder)})
        (Path(own) / "tensorflow-of-the-service.pth").write_text(f"{sysconfig.get_path('purelib')}\n", encoding="utf-8")


def _run(command: list[str], title: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 our own commands
    if done.returncode != 0:
        raise RuntimeError(f"the environment of {title} cannot be made:\n{(done.stdout + done.stderr)[-3000:]}")
