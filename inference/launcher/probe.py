"""`server.py probe PART`: ask a part of the service on this machine whether it is live, or whether it is ready.

Made for health checks that run a command, every few seconds: only the standard library is imported if variables or options name
the address. Otherwise the configuration is read, which takes several times as long.
"""

from __future__ import annotations

import argparse
import os
import socket
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from inference.errors import InferenceError

#: Variables of the settings of host and port by part, and the setting of the port.
_PARTS = {
    "api": ("INFERENCE_API__HOST", "INFERENCE_API__PORT", "api.port"),
    "worker": ("INFERENCE_MONITORING__HOST", "INFERENCE_MONITORING__WORKER_PORT", "monitoring.worker_port"),
    "relay": ("INFERENCE_MONITORING__HOST", "INFERENCE_MONITORING__RELAY_PORT", "monitoring.relay_port"),
}
_LOOPBACK = "127.0.0.1"
#: Addresses of all interfaces, and the one to connect to.
_REACHABLE = {"": _LOOPBACK, "0.0.0.0": _LOOPBACK, "::": "::1"}  # noqa: S104 compared only
_MAX_ANSWER_BYTES = 2**16
_HEALTHY, _UNHEALTHY, _WRONG_USE = 0, 1, 2
_EPILOG = (
    "Exit codes: 0 healthy; 1 not healthy, or no answer; 2 wrong use, or the part has no port. The worker and the relay listen "
    "at monitoring.host and monitoring.worker_port or monitoring.relay_port. With the variables of host and port set, or with "
    "--port, the configuration is not read."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.epilog = _EPILOG
    parser.add_argument("part", choices=list(_PARTS), help="the part to ask")
    parser.add_argument("--ready", action="store_true", help="ask whether it is ready, not only whether it is live")
    parser.add_argument("--host", dest="probe_host", help="address that it listens on; default: the setting's")
    parser.add_argument("--port", dest="probe_port", type=int, help="port that it listens on; default: the setting's")
    parser.add_argument("--timeout", type=float, default=5.0, metavar="SECONDS", help="default 5")


def main(arguments: Sequence[str]) -> int:
    """Run the command with the arguments after `probe`; returns the exit code."""
    parser = argparse.ArgumentParser(prog="server.py probe")
    parser.add_argument("--config", "--conf", type=Path, help="the configuration")
    add_arguments(parser)
    try:
        return run_probe(parser.parse_args(arguments))
    except InferenceError as error:
        sys.stderr.write(f"error: {error.detail}\n")
        return _WRONG_USE


def run_probe(options: argparse.Namespace) -> int:
    """Ask the part; print the reason if it is not healthy. Returns the exit code."""
    address = _named_address(options) or _configured_address(options)
    if address is None:
        setting = _PARTS[options.part][2]
        sys.stderr.write(f"error: {setting} is not set, so the {options.part} has no probes; set it, or name --port\n")
        return _WRONG_USE
    host, port = address
    path = "/health/ready" if options.ready else "/health/live"
    try:
        status, body = _get(_REACHABLE.get(host, host), port, path, options.timeout)
    except (OSError, ValueError) as error:
        sys.stdout.write(f"the {options.part} at {host} port {port} does not answer: {error}\n")
        return _UNHEALTHY
    if status == 200:  # noqa: PLR2004 http.HTTPStatus would be a further import
        return _HEALTHY
    sys.stdout.write(f"{status} {body.decode(errors='replace').strip()}\n")
    return _UNHEALTHY


def _named_address(options: argparse.Namespace) -> tuple[str, int] | None:
    """Return the address that options or variables name; None if the configuration must be read for it."""
    host_variable, port_variable, _ = _PARTS[options.part]
    port = os.environ.get(port_variable, "")
    if options.probe_port is not None:
        return options.probe_host or _LOOPBACK, options.probe_port
    host = options.probe_host or os.environ.get(host_variable)
    return (host.strip("[]"), int(port)) if host is not None and port.isascii() and port.isdigit() else None


def _configured_address(options: argparse.Namespace) -> tuple[str, int] | None:
    """Return the address of the configuration; None if the part has no port. Raises ConfigurationError."""
    from inference.settings import config_path, load_settings  # noqa: PLC0415 takes most of the command's time

    settings = load_settings(config_path(getattr(options, "config", None)))
    monitoring = settings.monitoring
    ports = {"api": settings.api.port, "worker": monitoring.worker_port, "relay": monitoring.relay_port}
    port = ports[options.part]
    host = settings.api.host if options.part == "api" else monitoring.host
    return None if port is None else (options.probe_host or host, port)


def _get(host: str, port: int, path: str, timeout_s: float) -> tuple[int, bytes]:
    """Return status and body of an answer. Raises OSError; ValueError: it is not HTTP."""
    deadline = time.monotonic() + timeout_s
    authority = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    with socket.create_connection((host, port), timeout_s) as connection:
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: {authority}\r\nConnection: close\r\n\r\n".encode())
        answer = b""
        while len(answer) < _MAX_ANSWER_BYTES:
            connection.settimeout(max(0.001, deadline - time.monotonic()))
            chunk = connection.recv(_MAX_ANSWER_BYTES)
            if not chunk:
                break
            answer += chunk
    head, _, body = answer.partition(b"\r\n\r\n")
    words = head.split(maxsplit=2)
    if len(words) < 2 or not words[0].startswith(b"HTTP/"):  # noqa: PLR2004 version and status
        raise ValueError("no answer in HTTP")
    return int(words[1]), body
