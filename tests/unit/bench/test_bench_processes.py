"""CPU time of each process of a contender, and no process stays behind."""

from __future__ import annotations

import sys
from pathlib import Path

import psutil
import pytest
from support.waiting import until

from bench.processes import Processes, cpu_ms_each

#: Has a child, which outlives it, and burns CPU.
PARENT = """
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)", "predictor" + ".process"])
print(child.pid, flush=True)
while True: sum(range(10000))
"""


@pytest.mark.parametrize("before", [[], ["env", "-i"]], ids=["", "without the mark, as a server that sets its title"])
def test_a_process_and_its_child_are_counted_by_role_and_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: list[str]
) -> None:
    log = tmp_path / "log"
    monkeypatch.setattr("bench.processes._END_TIMEOUT_S", 1.0)
    with Processes({}, log) as processes:
        processes.start([*before, sys.executable, "-c", PARENT, "celery"])
        child = psutil.Process(int(until(lambda: log.read_text(encoding="utf-8").strip(), "the child")))
        until(lambda: processes.cpu_s().get("worker", 0) > 0.1, "CPU that is counted")

        assert processes.memory_mb().keys() == {"worker", "predictor"}
    until(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE, "the child's end")


def test_the_real_servers_count_too_under_their_names(tmp_path: Path) -> None:
    with Processes({}, tmp_path / "log", {"redis": psutil.Process()}) as processes:
        used = processes.cpu_s()

        assert used.keys() == {"redis"}
        assert used["redis"] > 0
        assert processes.memory_mb() == {}


def test_cpu_of_a_span_is_shared_out() -> None:
    assert cpu_ms_each({"api": 1.0}, {"api": 3.0, "worker": 0.5}, 100) == {"api": 20.0, "worker": 5.0}
