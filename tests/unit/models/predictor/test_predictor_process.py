"""End of the predictor process when the worker goes away. Without models it needs no TensorFlow."""

from __future__ import annotations

import socket
import subprocess
import sys
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from inference.models.predictor.protocol import Load, Ready

pytestmark = pytest.mark.process

MODULE = "inference.models.predictor.process"
PATIENCE_S = 30.0


def test_it_ends_when_the_workers_end_of_the_socket_is_closed(repository: Path) -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        process = subprocess.Popen(
            [sys.executable, "-m", MODULE, str(theirs.fileno())], pass_fds=[theirs.fileno()], cwd=repository
        )
    with Connection(ours.detach()) as connection:
        connection.send(Load((), 1))
        assert connection.poll(PATIENCE_S)
        assert connection.recv() == Ready(())
        assert process.poll() is None
    assert process.wait(PATIENCE_S) == 0


def test_it_ends_with_a_killed_worker_though_the_socket_is_still_open(repository: Path) -> None:
    """A call that hangs does not look at the socket: the parent is watched as well."""
    ours, theirs = socket.socketpair()
    code = f"""
import subprocess, sys, time
subprocess.Popen([sys.executable, "-m", "{MODULE}", "{theirs.fileno()}"], pass_fds=[{theirs.fileno()}])
time.sleep(600)
"""
    with theirs:
        worker = subprocess.Popen([sys.executable, "-c", code], pass_fds=[theirs.fileno()], cwd=repository)
    with Connection(ours.detach()) as connection:
        connection.send(Load((), 1))
        assert connection.poll(PATIENCE_S)
        connection.recv()
        worker.kill()
        worker.wait(PATIENCE_S)
        assert connection.poll(PATIENCE_S)
        with pytest.raises((EOFError, ConnectionError)):
            connection.recv()
