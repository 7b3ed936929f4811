"""A contender that fails takes nobody's rows with it, and the run says so."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import bench.__main__ as command
from bench.closed_loop import Load
from bench.contenders import Contender, Running
from bench.rounds import Measurement, Plan, measure
from bench.workload import Workload

WORK = Workload("tiny", Path("folder"), Path("image"), side=32)
_RUNS: dict[str, Any] = {size: {"images_per_s": 100.0, "p50_ms": 1.0, "p99_ms": 2.0} for size in ("1", "8", "32")}
LIMIT = _RUNS | {"litert": _RUNS}


class Broken(Contender):
    """Does not start."""

    def __init__(self, error: Exception) -> None:
        super().__init__("broken", {})
        self._error = error

    @contextmanager
    def run(self, workload: Workload) -> Iterator[Running]:
        raise self._error
        yield


@pytest.mark.parametrize(
    ("error", "said"), [(RuntimeError("no answer"), "no answer"), (KeyError("prediction"), "KeyError('prediction')")]
)
def test_what_a_contender_raises_is_its_error(error: Exception, said: str) -> None:
    found = measure(Broken(error), WORK, Plan(), LIMIT)

    assert (found.contender, found.kind, found.closed, found.error) == ("broken", "peer", {}, said)


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """The contenders in the order of their rounds, where the one named "bad" fails in its second."""
    order: list[str] = []

    def fake_measure(contender: Contender, work: Workload, plan: Plan, limit: dict[str, Any]) -> Measurement:
        order.append(contender.name)
        found = Measurement(contender.name, contender.kind, work.name, 1, limit, start_s=1.0)
        if contender.name == "bad" and order.count("bad") > 1:
            found.error = "it broke"
        else:
            found.closed, found.cpu_ms = {64: Load(10, 1.0, 2.0, 3.0, 0)}, {64: {"api": 1.0}}
        return found

    monkeypatch.setattr(command, "_contenders", lambda _services, **_: [Contender("good", {}), Contender("bad", {})])
    monkeypatch.setattr(command, "_services", dict)
    monkeypatch.setattr(command, "_OTHERS", {})
    monkeypatch.setattr(command, "_JSON", tmp_path / "bench.json")
    monkeypatch.setattr(command, "limit", lambda _work: LIMIT)
    monkeypatch.setattr(command, "measure", fake_measure)
    monkeypatch.setattr(command.workload, "prepare", lambda _names: [WORK])
    monkeypatch.setattr(command.closed_loop.shutil, "which", lambda name: f"/usr/bin/{name}")
    return order


def test_the_others_go_on_and_the_exit_code_tells(runs: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["--models", "tiny"]) == 1

    assert runs == ["good", "bad", "good", "bad", "good"]
    table = json.loads((tmp_path / "bench.json").read_text(encoding="utf-8"))
    assert [(row["contender"], row["load"]) for row in table[6:]] == [
        ("good", "closed loop"),
        ("bad", "closed loop"),
        ("bad", "failed"),
    ]
    assert "FAILED: bad with tiny: it broke" in capsys.readouterr().err


def test_a_part_that_fails_is_a_row(runs: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def fails(plan: Plan) -> list[Any]:
        raise ValueError("of another kind")

    monkeypatch.setattr(command, "_OTHERS", {"queue-depth": fails, "two-workers": lambda _plan: []})

    assert command.main(["--only", "queue-depth", "two-workers"]) == 1

    (row,) = json.loads((tmp_path / "bench.json").read_text(encoding="utf-8"))
    assert (row["contender"], row["error"]) == ("queue-depth", "ValueError('of another kind')")


def test_a_run_without_failures_ends_well(runs: list[str]) -> None:
    assert command.main(["--models", "tiny", "--only", "good"]) == 0
    assert runs == ["good"] * 3


def test_a_name_that_nothing_has_is_refused(runs: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["--only", "good", "litserv"]) == 1
    assert "--only: unknown: litserv" in capsys.readouterr().err
    assert runs == []


def test_without_the_load_generator_nothing_begins(
    runs: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command.closed_loop.shutil, "which", lambda _name: None)
    assert command.main(["--models", "tiny"]) == 1
    assert "`wrk` is not installed" in capsys.readouterr().err
    assert runs == []
