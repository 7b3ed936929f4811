"""Form of a process's answers to probes, which the API, the worker and the relay share."""

from __future__ import annotations

from collections.abc import Mapping

#: Result of a check that found no problem.
OK = "ok"

#: Results of checks by name: `OK`, or the problem as one sentence.
Checks = Mapping[str, str]


def is_healthy(checks: Checks) -> bool:
    """Whether every check has succeeded."""
    return all(result == OK for result in checks.values())


def progress_check(stuck: Mapping[str, float]) -> str:
    """`OK`, or which loops have made no turn for how many seconds.

    Args:
        stuck: as `LoopWatch.stuck` returns it.
    """
    return "; ".join(f"{name} has made no progress for {seconds:.0f} s" for name, seconds in stuck.items()) or OK
