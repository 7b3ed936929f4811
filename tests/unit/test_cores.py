"""How many cores a process has: its affinity, or a container's quota."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from inference.cores import usable_cores

ALLOWED = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


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
