"""Command line of the real servers: `python -m dev.servers start | stop | status`."""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from dev.servers.addresses import write_private
from dev.servers.console import ServicesError, say
from dev.servers.docker import ComposeServers
from dev.servers.layout import Layout
from dev.servers.local import LocalServers


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; the exit code is 0, 1 if a server is down or does not start, 130 after Ctrl-C."""
    parser = argparse.ArgumentParser(prog="python -m dev.servers", description="Real servers to try and test the service with.")
    parser.add_argument("command", choices=["start", "stop", "status"])
    parser.add_argument("--no-docker", action="store_true", help="use processes of this machine even if there is a docker engine")
    parser.add_argument("--timeout-s", type=float, default=120.0, help="time for a server to answer (default: %(default)g)")
    options = parser.parse_args(arguments)
    layout = Layout(Path(__file__).resolve().parents[2])
    try:
        return _run(options, layout)
    except ServicesError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    except KeyboardInterrupt:
        return 130


def _run(options: argparse.Namespace, layout: Layout) -> int:
    compose = ComposeServers(layout.root)
    local = LocalServers(layout)
    use_docker = not options.no_docker and compose.usable()
    if not use_docker and not sys.platform.startswith("linux"):
        raise ServicesError("without a docker engine the servers run only on Linux: install docker, or use Linux")
    servers = compose if use_docker else local
    if options.command == "status":
        return 0 if servers.status() else 1
    with _exclusive(layout):
        if options.command == "start":
            _start(layout, servers, options.timeout_s)
        else:
            layout.addresses.unlink(missing_ok=True)
            if use_docker:
                compose.stop()
            if sys.platform.startswith("linux"):  # also servers that were started before the engine was installed
                local.stop()
    return 0


def _start(layout: Layout, servers: ComposeServers | LocalServers, timeout_s: float) -> None:
    try:
        addresses = servers.start(timeout_s)
    except ServicesError:
        layout.addresses.unlink(missing_ok=True)  # clients must not use outdated addresses
        raise
    text = "".join(f"{name}={value}\n" for name, value in addresses.items())
    write_private(layout.addresses, text)
    say(f"all servers are up; addresses in {layout.addresses.relative_to(layout.root)}:\n{text.rstrip()}")


@contextlib.contextmanager
def _exclusive(layout: Layout) -> Iterator[None]:
    """Wait until no other command changes the servers, and exclude others during the block."""
    layout.base.mkdir(parents=True, exist_ok=True)
    with (layout.base / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("waiting for another `make services`")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


if __name__ == "__main__":
    sys.exit(main())
