"""Where everything of the servers lies."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

#: Definitions that are not code: Maven's and Go's.
ASSETS = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Layout:
    """The one folder of the servers; all of it may be removed while they are stopped.

    Args:
        root: of the repository.
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
        """The folder of what is written anew at each start: configuration files."""
        return self.base / "run" / server

    def pid_file(self, server: str) -> Path:
        return self.base / "run" / f"{server}.json"

    def log(self, server: str) -> Path:
        return self.base / "logs" / f"{server}.log"

    def install_log(self, server: str) -> Path:
        return self.base / "logs" / f"{server}-install.log"
