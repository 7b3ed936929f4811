"""Getting the servers' programs: downloads and builds, each done once and remembered by a stamp that names what was done."""

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

_STILL_EVERY_S = 30.0
#: Environment of a step that downloads Go modules: `go` downloads as many at a time as it has processors, and mostly waits.
GO_DOWNLOAD = {"CGO_ENABLED": "0", "GOMAXPROCS": str(max(16, os.cpu_count() or 1))}
#: Environment and options of a build with Go, without debugging information, which takes a tenth of the CPU time.
GO_BUILD = {"CGO_ENABLED": "0"}
GO_BUILD_OPTIONS = ("-ldflags=-s -w", "-gcflags=all=-dwarf=false")
#: apt-get runs once at a time.
_apt = threading.Lock()


def need(program: str, reason: str) -> str:
    """The path of a program. Raises ServicesError that says what it is for."""
    found = shutil.which(program)
    if found is None:
        raise ServicesError(f"`{program}` is not installed: {reason}")
    return found


def once(layout: Layout, server: str, version: str, sources: Sequence[Path], install: Callable[[], None], *, makes: Path) -> None:
    """Install, unless this version was installed from these source files before and what that `makes` is still there."""
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
    """Run one command of an installation, its output in the installation's log. Raises ServicesError with the log's end."""
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
                code = process.wait(_STILL_EVERY_S)
                break
            except subprocess.TimeoutExpired:
                say(f"{server}: still {doing} ({time.monotonic() - started:.0f} s)")
    if code != 0:
        raise ServicesError(f"{doing} failed (exit code {code}); {log_tail(log)}")


def debian_package(layout: Layout, server: str, package: str, find: Callable[[], str | None]) -> None:
    """Install Debian's package when `find` does not find its program and we may."""
    if find():
        return
    rights = _rights()
    if rights is None or shutil.which("apt-get") is None:
        raise ServicesError(f"`{package}` is not installed; install it (Debian: sudo apt-get install {package})")
    with _apt:
        say(f"{server}: installing Debian's {package}")
        get = [*rights, "env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-q", "-o", "DPkg::Lock::Timeout=120"]
        run_step(layout, server, [*get, "update"], doing="updating the list of packages")
        run_step(layout, server, [*get, "install", "-y", "--no-install-recommends", package], doing=f"installing {package}")
    if not find():
        raise ServicesError(f"{package} was installed, yet its program is not there; {log_tail(layout.install_log(server))}")


def _rights() -> list[str] | None:
    """What goes before a command that only root may run; None when we cannot."""
    if os.geteuid() == 0:
        return []
    sudo = shutil.which("sudo")
    if sudo is None:
        return None
    asked = subprocess.run([sudo, "-n", "true"], capture_output=True, check=False)  # noqa: S603
    return [sudo, "-n"] if asked.returncode == 0 else None
