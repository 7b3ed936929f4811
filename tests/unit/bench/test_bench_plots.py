"""The pictures can be committed: the same rows make the same small file."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench import plots
from bench.report import Row, row

_MAX_SVG_BYTES = 120_000


def table() -> list[Row]:
    rows = [row("in process, batch 32", "limit", "tiny", "in process", clients=1, images_per_s=9000.0)]
    for contender, kind, images, per_s in (("embedded", "ours", 1, 400.0), ("embedded-batches", "ours", 32, 2000.0)):
        for clients in (1, 8) if images > 1 else (1, 8, 64, 256):
            cpu_ms = {"api": 1.0, "worker": 2.0 / images}
            rows.append(
                row(
                    contender,
                    kind,
                    "tiny",
                    "closed loop",
                    clients=clients,
                    images_per_request=images,
                    images_per_s=per_s * clients**0.2,
                    cpu_ms_by_process=cpu_ms,
                )
            )
        rows += [
            row(
                contender,
                kind,
                "tiny",
                "open loop",
                share_of_highest_load=share,
                images_per_s=per_s * share,
                p50_ms=9.0 * share,
                p99_ms=40.0 * share,
            )
            for share in (0.5, 0.8)
        ]
    rows.append(row("naive", "naive", "tiny", "failed", error="it does not answer"))
    return rows


@pytest.mark.parametrize("rows", [table(), [one for one in table() if one["load"] != "open loop"]], ids=["whole", "no open loop"])
def test_a_picture_for_each_model_the_same_each_time(tmp_path: Path, rows: list[Row]) -> None:
    folders = [tmp_path / name for name in ("one", "other")]
    for folder in folders:
        folder.mkdir()
    first, again = (plots.draw(rows, "a machine of 2 cores", folder) for folder in folders)

    assert [file.name for file in first] == ["performance-tiny.png", "performance-tiny.svg"]
    assert [file.read_bytes() for file in first] == [file.read_bytes() for file in again]
    svg = first[1].read_text(encoding="utf-8")
    assert len(svg) < _MAX_SVG_BYTES
    assert "a machine of 2 cores" in svg
