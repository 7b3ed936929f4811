"""promtool, which checks files for Prometheus."""

from __future__ import annotations

import subprocess
from pathlib import Path

from support.installed import installed


def promtool(root: Path) -> str:
    """The path of promtool, installed with Debian's package of Prometheus where there is none. Raises ServicesError."""
    return installed(root, "prometheus", "promtool")


def check_metrics(root: Path, text: bytes) -> None:
    """Check names and format of metrics."""
    done = subprocess.run([promtool(root), "check", "metrics"], input=text, capture_output=True, check=False)
    assert (done.returncode, done.stdout, done.stderr.strip()) == (0, b"", b"")
