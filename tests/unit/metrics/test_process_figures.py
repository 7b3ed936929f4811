"""Figures of a part's processes: sums over the main process and its children, those that have ended included."""

from __future__ import annotations

import os
import subprocess
import sys

import psutil
import pytest
from support.waiting import until

from inference.metrics.process_figures import ProcessFigures

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="there is no /proc")

#: Uses 0.3 s of CPU time and opens files, says so, and ends with its input.
_CHILD = """
import sys, time
files = [open("/dev/null") for _ in range(50)]
while time.process_time() < 0.3: pass
print("ready", flush=True)
sys.stdin.read()
"""


def figures() -> dict[str, float]:
    return {sample.name: sample.value for family in ProcessFigures(os.getpid()).collect() for sample in family.samples}


def test_children_count_while_they_run_and_their_cpu_time_afterwards() -> None:
    before = figures()
    child = subprocess.Popen([sys.executable, "-c", _CHILD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    assert child.stdout.readline() == "ready\n"
    meanwhile = figures()
    child.communicate()
    after = figures()

    assert meanwhile["inference_processes"] - before["inference_processes"] == 1
    assert meanwhile["process_open_fds"] - before["process_open_fds"] >= 50
    assert meanwhile["process_cpu_seconds_total"] - before["process_cpu_seconds_total"] >= 0.25
    assert after["inference_processes"] == before["inference_processes"]
    assert after["process_cpu_seconds_total"] >= meanwhile["process_cpu_seconds_total"]
    assert after["process_max_fds"] > 0


def test_start_and_memory_are_those_of_the_system() -> None:
    process, found = psutil.Process(), figures()
    assert found["process_start_time_seconds"] == pytest.approx(process.create_time(), abs=1.5)
    assert found["process_resident_memory_bytes"] >= process.memory_info().rss * 0.5
    assert found["inference_build_info"] == 1


def test_a_process_that_has_ended_has_no_figures() -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    until(lambda: not psutil.pid_exists(child.pid), "the process is gone", timeout_s=10)
    names = {family.name for family in ProcessFigures(child.pid).collect()}
    assert names == {"inference_build_info"}
