"""Closed loop: clients that send the next request after the answer to the previous one (wrk, a separate process)."""

from __future__ import annotations

import math
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bench.contenders import Request

_SCRIPT = Path(__file__).parent / "load.lua"


@dataclass(frozen=True)
class Load:
    """Figures of one load."""

    requests: int
    seconds: float
    p50_ms: float
    p99_ms: float
    errors: int


def wrk() -> str:
    """Find the program wrk. Raises RuntimeError if it is not installed."""
    found = shutil.which("wrk")
    if found is None:
        raise RuntimeError("the load generator `wrk` is not installed (Debian: apt-get install wrk)")
    return found


def run(request: Request, *, clients: int, seconds: float) -> Load:
    """Run a load for `seconds`, rounded up to whole seconds. Raises RuntimeError if wrk is missing or fails."""
    command = [wrk(), "-t1", f"-c{clients}", f"-d{math.ceil(seconds)}s", "--timeout", "60s", "-s", str(_SCRIPT)]
    command += [*(f"-H{name}: {value}" for name, value in request.headers.items()), request.url]
    environment = os.environ | {"BODY": str(request.body), "CONTENT_TYPE": request.content_type}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)  # noqa: S603
    line = next((line for line in done.stdout.splitlines() if line.startswith("FIGURES")), None)
    if line is None:
        raise RuntimeError(f"wrk failed: {done.stderr or done.stdout}")
    requests, took_s, p50_ms, p99_ms, errors = line.split()[1:]
    return Load(int(requests), float(took_s), float(p50_ms), float(p99_ms), int(errors))
