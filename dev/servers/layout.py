"""Paths of the servers' files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

#: Files of Maven and Go that define the programs.
ASSETS = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Layout:
    """Folder of the servers; it may be removed while they are stopped.

    Args:
        root: root folder of the repository.
    """

    root: Path

    @property
    def base(self) -> Path:
        return self.root / "build" / "services"

    @property
    def addresses(self) -> Path:
        return self.root / "build" / "services.env"

    @property
    def ports(self) -> Path:
        return self.base / "ports.json"

    @property
    def programs(self) -> Path:
        return self.base / "bin"

    @property
    def libraries(self) -> Path:
        return self.base / "libs"

    @property
    def sources(self) -> Path:
        return self.base / "src"

    def stamp(self, server: str) -> Path:
        return self.base / "installed" / server

    def data(self, server: str) -> Path:
        return self.base / "data" / server

    def settings(self, server: str) -> Path:
        """Folder of the configuration files, which are written again at each start."""
        return self.base / "run" / server

    def pid_file(self, server: str) -> Path:
        return self.base / "run" / f"{server}.json"

    def log(self, server: str) -> Path:
        return self.base / "logs" / f"{server}.log"

    def install_log(self, server: str) -> Path:
        return self.base / "logs" / f"{server}-install.log"
