"""Clients that send the next request when they have the answer to the last: wrk, a process of its own."""

from __future__ import annotations

import math
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

_SCRIPT = Path(__file__).parent / "load.lua"


@dataclass(frozen=True)
class Load:
    """Figures of one run."""

    requests: int
    seconds: float
    p50_ms: float
    p99_ms: float
    errors: int


def wrk() -> str:
    """Where it is. Raises RuntimeError when it is not there."""
    found = shutil.which("wrk")
    if found is None:
        raise RuntimeError("the load generator `wrk` is not installed (Debian: apt-get install wrk)")
    return found


def run(url: str, body: Path, content_type: str, *, clients: int, seconds: float) -> Load:
    """Raises RuntimeError when wrk is not there or fails. It takes whole seconds: a part of one counts as one."""
    command = [wrk(), "-t1", f"-c{clients}", f"-d{math.ceil(seconds)}s", "--timeout", "60s", "-s", str(_SCRIPT), url]
    environment = os.environ | {"BODY": str(body), "CONTENT_TYPE": content_type}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)  # noqa: S603
    line = next((line for line in done.stdout.splitlines() if line.startswith("FIGURES")), None)
    if line is None:
        raise RuntimeError(f"wrk failed: {done.stderr or done.stdout}")
    requests, took_s, p50_ms, p99_ms, errors = line.split()[1:]
    return Load(int(requests), float(took_s), float(p50_ms), float(p99_ms), int(errors))
