"""Published figures are those that were measured: page, tables and plots come from the committed rows."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from bench import page, plots, report
from bench.report import Row, row


def test_the_published_pages_are_those_of_the_committed_rows(repository: Path, tmp_path: Path) -> None:
    """After a change of the rows or of how they are shown: `make bench ARGS=--render`."""
    results, docs = shutil.copytree(repository / "bench/results", tmp_path / "results"), tmp_path / "docs"
    docs.mkdir()
    shutil.copy(repository / "docs/performance.md", docs)

    written = page.render(results, docs)

    committed = {results: repository / "bench/results", docs: repository / "docs"}
    assert [file.name for file in written if file.read_bytes() != (committed[file.parent] / file.name).read_bytes()] == []
    assert {file.name for file in docs.iterdir()} == {file.name for file in (repository / "docs").glob("performance*")}


def test_rows_are_read_as_they_were_written(tmp_path: Path) -> None:
    table = [
        row("embedded", "ours", "tiny", "closed loop", clients=64, images_per_s=1234567.8, cpu_ms_by_process={"api": 1 / 3}),
        row("embedded-2-workers", "ours", "tiny", "two workers", shares_of_rate_alone=[0.5, 0.25]),
    ]

    page.save(table, "a machine", tmp_path)

    again = report.read_json(tmp_path / "bench.json")
    assert [one | {"images_per_s": None, "cpu_ms_by_process": None} for one in again] == [
        one | {"images_per_s": None, "cpu_ms_by_process": None} for one in table
    ]
    assert (again[0]["images_per_s"], again[0]["cpu_ms_by_process"]) == (1234570.0, {"api": 0.333333})


def measured(contender: str, kind: str, per_s: float, cpu_ms: float, p99_ms: float) -> list[Row]:
    figures: dict[str, Any] = {"images_per_s": per_s, "p50_ms": p99_ms / 2, "p99_ms": p99_ms}
    closed = {"clients": 64, "cpu_ms_per_image": cpu_ms, "cpu_ms_by_process": {"api": cpu_ms}}
    return [
        row(contender, kind, "tiny", "closed loop", **figures, **closed),
        row(contender, kind, "tiny", "open loop", **figures, share_of_highest_load=0.8),
    ]


def test_titles_compare_with_the_fastest_peer_and_with_the_one_that_takes_least_cpu(tmp_path: Path) -> None:
    table = [
        *measured("embedded", "ours", 300.0, 3.0, 50.0),
        *measured("naive", "naive", 900.0, 0.5, 5.0),
        *measured("mosec", "peer", 600.0, 6.0, 200.0),
        *measured("litserve", "peer", 100.0, 2.0, 25.0),
    ]

    throughput, latency, cpu = (file.read_text(encoding="utf-8") for file in plots.draw(table, tmp_path))

    assert ("tiny: 0.5x the best peer" in throughput, "300/s, Mosec 600/s" in throughput) == (True, True)
    assert ("tiny: 0.25x the best peer" in latency, "p99 50 ms, Mosec p99 200 ms" in latency) == (True, True)
    assert ("tiny: 1.5x the best peer" in cpu, "3 ms, LitServe 2 ms" in cpu) == (True, True)
