"""promtool, which checks what Prometheus would read."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from dev.servers.installing import debian_package
from dev.servers.layout import Layout


def _find() -> str | None:
    return shutil.which("promtool")


def promtool(root: Path) -> str:
    """The path of promtool, installed with Debian's package of Prometheus where there is none.

    Raises:
        ServicesError: it cannot be had, and why.
    """
    layout = Layout(root)
    layout.install_log("prometheus").parent.mkdir(parents=True, exist_ok=True)
    debian_package(layout, "prometheus", "prometheus", _find)
    return _find() or ""


def check_metrics(root: Path, text: bytes) -> None:
    """Check names and format of metrics."""
    done = subprocess.run([promtool(root), "check", "metrics"], input=text, capture_output=True, check=False)
    assert (done.returncode, done.stdout, done.stderr.strip()) == (0, b"", b"")
