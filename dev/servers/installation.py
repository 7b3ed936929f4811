"""Installation of the servers' programs: downloads and builds, each done once; a stamp file names the installed version."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from dev.servers.console import ServicesError, log_tail, say
from dev.servers.layout import Layout

_PROGRESS_INTERVAL_S = 30.0
#: Environment of a step that downloads Go modules: `go` runs as many downloads as there are processors, and mostly waits.
GO_DOWNLOAD = {"CGO_ENABLED": "0", "GOMAXPROCS": str(max(16, os.cpu_count() or 1))}
#: Environment and options of a build with Go, without debugging information, which takes a tenth of the CPU time.
GO_BUILD = {"CGO_ENABLED": "0"}
GO_BUILD_OPTIONS = ("-ldflags=-s -w", "-gcflags=all=-dwarf=false")
#: Only one apt-get may run at a time.
_apt = threading.Lock()


def require_program(program: str, reason: str) -> str:
    """Find the path of a program. Raises ServicesError with the reason why it is needed."""
    found = shutil.which(program)
    if found is None:
        raise ServicesError(f"`{program}` is not installed: {reason}")
    return found


def install_once(
    layout: Layout, server: str, version: str, sources: Sequence[Path], install: Callable[[], None], *, makes: Path
) -> None:
    """Install, unless this version was installed from the same source files before and its file `makes` still exists."""
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()[:16]
    stamp = layout.stamp(server)
    wanted = f"{version} {digest}\n"
    if makes.exists() and stamp.exists() and stamp.read_text(encoding="utf-8") == wanted:
        return
    stamp.unlink(missing_ok=True)
    install()
    stamp.write_text(wanted, encoding="utf-8")


def run_step(
    layout: Layout,
    server: str,
    command: Sequence[str],
    *,
    doing: str,
    cwd: Path | None = None,
    environment: Mapping[str, str] | None = None,
) -> None:
    """Run one command of an installation with its output in the log. Raises ServicesError with the end of the log."""
    log = layout.install_log(server)
    started = time.monotonic()
    with log.open("ab") as output:
        process = subprocess.Popen(  # noqa: S603 our own commands
            command,
            cwd=cwd or layout.base,
            env={**os.environ, **(environment or {})},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        while True:
            try:
                code = process.wait(_PROGRESS_INTERVAL_S)
                break
            except subprocess.TimeoutExpired:
                say(f"{server}: still {doing} ({time.monotonic() - started:.0f} s)")
    if code != 0:
        raise ServicesError(f"{doing} failed (exit code {code}); {log_tail(log)}")


def debian_package(layout: Layout, server: str, package: str, find: Callable[[], str | None]) -> None:
    """Install Debian's package if `find` does not find its program and the user has the rights."""
    if find():
        return
    rights = _root_prefix()
    if rights is None or shutil.which("apt-get") is None:
        raise ServicesError(f"`{package}` is not installed; install it (Debian: sudo apt-get install {package})")
    with _apt:
        say(f"{server}: installing Debian's {package}")
        get = [*rights, "env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-q", "-o", "DPkg::Lock::Timeout=120"]
        run_step(layout, server, [*get, "update"], doing="updating the list of packages")
        run_step(layout, server, [*get, "install", "-y", "--no-install-recommends", package], doing=f"installing {package}")
    if not find():
        raise ServicesError(f"{package} was installed, but its program is missing; {log_tail(layout.install_log(server))}")


def _root_prefix() -> list[str] | None:
    """Find the prefix of a command that needs root; None if the user has no rights."""
    if os.geteuid() == 0:
        return []
    sudo = shutil.which("sudo")
    if sudo is None:
        return None
    asked = subprocess.run([sudo, "-n", "true"], capture_output=True, check=False)  # noqa: S603
    return [sudo, "-n"] if asked.returncode == 0 else None
