"""Fixtures that every kind of test uses."""

from __future__ import annotations

import gc
import subprocess
import sys
import tempfile
import threading
import uuid
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
import support.model_cache  # noqa: F401 before pytest-xdist starts its processes, which find the cache in their environment
from support.real_servers import NO_VERSITYGW

from inference.launcher import embedded_broker
from inference.runtime.redis import embedded_socket

ROOT = Path(__file__).parent.parent
_SERVERS = (sys.executable, "-m", "dev.servers")


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the checkout."""
    return ROOT


@pytest.fixture(scope="session")
def redis_url() -> Iterator[str]:
    """A real server of the Redis protocol (the embedded broker's binary), shared by the whole run."""
    with tempfile.TemporaryDirectory(prefix="inf-", dir="/tmp") as folder:  # short: a socket's path is limited
        data_dir = Path(folder)
        server = subprocess.Popen(embedded_broker.command(data_dir))
        try:
            assert embedded_broker.wait_for(data_dir, up=True, timeout_s=60), embedded_broker.log_tail(data_dir)
            yield f"unix://{embedded_socket(data_dir)}?db=0"
        finally:
            server.terminate()
            server.wait(10)


@pytest.fixture
def redis_client(redis_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_url, socket_timeout=5) as client:
        yield client


@pytest.fixture
def key_prefix() -> str:
    """Keys of one test alone, so that tests share a server."""
    return f"test-{uuid.uuid4().hex[:12]}"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave the sockets of a test's own clients to the garbage collector where the service runs in other processes.

    kombu and kafka-python forget some of them when a server goes away; they would be told of in any later test.
    """
    for item in items:
        if item.path.relative_to(ROOT / "tests").parts[0] in ("e2e", "faults"):
            item.add_marker(pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning"))


def pytest_collection_finish(session: pytest.Session) -> None:
    """Start the real servers if a test needs them; before the tests, since a first build takes longer than a test may."""
    if session.config.option.collectonly or not any(item.get_closest_marker("services") for item in session.items):
        return
    ran_before = subprocess.run([*_SERVERS, "status"], cwd=ROOT, capture_output=True, check=False).returncode == 0
    capture = session.config.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled():  # so that the progress is seen; a process of pytest-xdist has no stdout
        progress = subprocess.DEVNULL if ran_before else sys.__stderr__
        started = subprocess.run([*_SERVERS, "start"], cwd=ROOT, stdout=progress, check=False)
    if started.returncode != 0:
        pytest.exit("the real servers do not start; the reason is above", returncode=1)
    if ran_before:
        return
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["started_servers"] = True
    else:
        session.config.add_cleanup(_stop_servers)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Stop the servers that a process of pytest-xdist has started once all of its processes have ended: they share them."""
    if getattr(node, "workeroutput", {}).get("started_servers"):
        node.config.add_cleanup(_stop_servers)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say in red if the second S3 was not tested: a line among skipped tests is easily overlooked."""
    missing = sum(NO_VERSITYGW in str(report.longrepr) for report in terminalreporter.stats.get("skipped", ()))
    if missing:
        terminalreporter.section("NOT TESTED", red=True, bold=True)
        reason = f"{NO_VERSITYGW}; `make services ARGS=--no-docker` starts one"
        terminalreporter.line(f"{missing} tests of VersityGW: {reason}", red=True)


def _stop_servers() -> None:
    subprocess.run([*_SERVERS, "stop"], cwd=ROOT, capture_output=True, check=False)


@pytest.fixture(scope="session")
def services_env() -> dict[str, str]:
    """Addresses of the real servers, by variable; each test that uses it is marked `services`."""
    lines = (ROOT / "build" / "services.env").read_text(encoding="utf-8").splitlines()
    return dict(line.split("=", 1) for line in lines)


@pytest.fixture
def leave_no_sockets() -> Iterator[None]:
    """kafka-python leaves sockets that were refused to the garbage collector, which would complain in another test."""
    before = set(threading.enumerate())
    yield
    for thread in set(threading.enumerate()) - before:
        thread.join(10)  # a producer that was closed in a hurry still holds some
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()
