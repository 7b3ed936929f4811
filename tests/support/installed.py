"""Programs of Debian's packages that tests run."""

from __future__ import annotations

import shutil
from pathlib import Path

from dev.servers.installation import debian_package
from dev.servers.layout import Layout


def installed(root: Path, package: str, *names: str) -> str:
    """The path of a program, installed with Debian's package where there is none.

    Args:
        names: of the program; the first that there is counts.

    Raises:
        ServicesError: it cannot be had, and why.
    """

    def find() -> str | None:
        return next(filter(None, map(shutil.which, names)), None)

    layout = Layout(root)
    layout.install_log(package).parent.mkdir(parents=True, exist_ok=True)
    debian_package(layout, package, package, find)
    return find() or ""
