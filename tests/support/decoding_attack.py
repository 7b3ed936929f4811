"""A fetch stage with images that are small files and large in memory: `python -m support.decoding_attack SIDE COUNT BUDGET_MB`.

Prints as JSON by how many bytes the process grew at most, how many of them it kept, and the images in the order in which they
were decoded; the small picture came last.
"""

from __future__ import annotations

import io
import json
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from inference.domain import ImageFormat, ImageHeader, QueueItem
from inference.imaging import ImageLimits
from inference.models.predictor.arena import SlotArena
from inference.models.spec import InputSpec, ModelSpec
from inference.runtime.memory import return_large_blocks
from inference.storage.local import LocalObjectStore
from tasks.pipeline.decode_memory import DecodeMemory
from tasks.pipeline.fetch import Fetcher, FetchStage
from tasks.pipeline.jobs import Job

_THREADS = 4
_SPEC = InputSpec(shape=(224, 224, 3), dtype="uint8", raw="pixels", resize="stretch", interpolation="bicubic")


def png(side: int, mode: str = "RGBA") -> bytes:
    file = io.BytesIO()
    Image.new(mode, (side, side), (9, 8, 7, 100)[: len(mode)]).save(file, "PNG")
    return file.getvalue()


def _resident(field: str) -> int:
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith(field)) * 1024


def run(side: int, count: int, budget_mb: int, folder: Path) -> dict[str, int | list[str]]:
    objects, large, small = LocalObjectStore(folder), png(side), png(64)
    images = {f"large-{number}": large for number in range(count)} | {"small": small}
    for key, data in images.items():
        objects.put(key, data, is_durable=False)
    spec = ModelSpec(name="m", version="1", file="m.keras", input=_SPEC, local_files={}, digest="")
    memory = DecodeMemory(budget_mb * 2**20, max_large=_THREADS - 1)
    fetcher = Fetcher(objects, spec, SlotArena(_SPEC, count + 2), ImageLimits(50_000_000), memory=memory)
    return_large_blocks(from_bytes=8 * 2**20, kept_bytes=32 * 2**20)
    done, all_done = list[str](), threading.Event()

    def pass_on(jobs: Sequence[Job]) -> None:
        done.extend(job.task_id for job in jobs)
        if len(done) == len(images):
            all_done.set()

    stage = FetchStage(fetcher, threads=_THREADS, pass_on=pass_on, fail=lambda job, error: sys.exit(f"{job.task_id}: {error}"))
    header = ImageHeader(ImageFormat.PNG)
    jobs = [Job(QueueItem(key, key, header), [], isolated=False, attempt=0, deadline_at=time.monotonic() + 600) for key in images]
    Path("/proc/self/clear_refs").write_text("5")
    before = _resident("VmRSS")
    stage.start()
    stage.take(jobs)
    all_done.wait(120)
    grown = _resident("VmHWM") - before
    stage.stop()
    stage.join(10)
    return {
        "grown": grown,
        "kept": _resident("VmRSS") - before,
        "decoded": done,
    }


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        sys.stdout.write(json.dumps(run(*map(int, sys.argv[1:4]), folder=Path(folder))))
