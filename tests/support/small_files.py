"""A process that may write small files only: the way to a disk that is full, for a test that may run as root."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

_LIMITED = """
import resource
resource.setrlimit(resource.RLIMIT_FSIZE, ({limit_bytes}, {limit_bytes}))
"""


def run_with_small_files(code: str, *, limit_bytes: int, folder: Path) -> str:
    """Run Python `code` in the checkout with `folder` as its last argument; a write past `limit_bytes` of a file fails.

    Return its output.
    """
    checkout = Path(__file__).parents[2]
    program = _LIMITED.format(limit_bytes=limit_bytes) + code
    done = subprocess.run([sys.executable, "-c", program, str(folder)], cwd=checkout, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout
