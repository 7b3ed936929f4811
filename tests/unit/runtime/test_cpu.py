"""Number of cores of a process, by its affinity or a container's quota; and its scheduling policy."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from inference.runtime.cpu import usable_cores, use_batch_scheduling

ALLOWED = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="Linux's scheduling policies")


@pytest.mark.parametrize(
    ("cpu_max", "cores"),
    [
        ("max 100000", ALLOWED),
        ("100000 100000", 1),
        ("10000 100000", 1),
        (f"{ALLOWED * 100000} 100000", ALLOWED),
        (f"{2 * ALLOWED * 100000} 100000", ALLOWED),
    ],
)
def test_a_quota_takes_cores_and_gives_none(tmp_path: Path, cpu_max: str, cores: int) -> None:
    file = tmp_path / "cpu.max"
    file.write_text(cpu_max + "\n")
    assert usable_cores(file) == cores


def test_without_a_quota_the_affinity_counts(tmp_path: Path) -> None:
    assert usable_cores(tmp_path / "none") == ALLOWED


def policies_after(chosen: int) -> tuple[int, int]:
    """Return the policies of a thread that began with the policy `chosen`, and of a process that it starts."""

    def run() -> tuple[int, int]:
        os.sched_setscheduler(0, chosen, os.sched_param(0))
        use_batch_scheduling()
        child = subprocess.run(
            [sys.executable, "-c", "import os; print(os.sched_getscheduler(0))"], capture_output=True, text=True, check=True
        )
        return os.sched_getscheduler(0), int(child.stdout)

    with ThreadPoolExecutor(1) as thread:  # a policy is a thread's own: this test's stays as it is
        return thread.submit(run).result()


@linux_only
def test_a_process_that_is_started_has_the_policy_too() -> None:
    assert policies_after(os.SCHED_OTHER) == (os.SCHED_BATCH, os.SCHED_BATCH)


@linux_only
def test_a_policy_that_somebody_chose_stays() -> None:
    assert policies_after(os.SCHED_IDLE) == (os.SCHED_IDLE, os.SCHED_IDLE)


@linux_only
def test_a_sandbox_may_refuse(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_arguments: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    before = os.sched_getscheduler(0)
    monkeypatch.setattr(os, "sched_setscheduler", refuse)
    use_batch_scheduling()
    assert os.sched_getscheduler(0) == before
