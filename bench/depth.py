"""Cost of a task while few or very many others wait: time, and CPU of all our processes.

Each depth has an embedded service of its own, at first without a worker. `inference.lifecycle.enqueue.accept_batch` fills the
queue, as in the API: many tasks per call, but one message for each, as for single requests; all tasks name the same stored
image. Then the worker starts, and for each task that starts another one is accepted, so that the depth is constant.
"""

from __future__ import annotations

import itertools
import statistics
import sys
import time
import uuid
from dataclasses import dataclass
from pathlib import Path

from bench import workload
from bench.contenders import Ours
from bench.processes import Processes, cpu_ms_each
from bench.report import Row, row
from bench.workload import Workload
from inference.container import Services
from inference.domain import BatchRequest, QueueItem, TaskSubmission
from inference.imaging import ImageLimits, inspect
from inference.launcher import embedded_broker
from inference.lifecycle.enqueue import accept_batch
from inference.models.registry import reference
from inference.settings import load_settings

DEPTHS = (100, 1_000, 100_000)
#: Tasks before the measurement, and during it.
_WARM_TASKS = 1_000
_WINDOW_TASKS = 4_000
_TASKS_A_CALL = 500
_LOOK_INTERVAL_S = 0.005
_START_TIMEOUT_S = 120.0
_DEADLINE_S = 3_600.0
_SETTINGS = {"limits": {"max_queue_depth": 200_000}}
_IMAGE_KEY = "uploads/bench"


@dataclass(frozen=True)
class _Window:
    """Figures of `_WINDOW_TASKS` tasks."""

    ms_per_task: float
    #: CPU milliseconds per task, by process
    cpu_ms_per_task: dict[str, float]


def measure(rounds: int) -> list[Row]:
    """Measure a row for each depth, medians over the rounds. Raises RuntimeError if tasks do not end."""
    (work,) = workload.prepare(["tiny"])
    windows: dict[int, list[_Window]] = {depth: [] for depth in DEPTHS}
    for _, depth in itertools.product(range(rounds), DEPTHS):
        windows[depth].append(_window(work, depth))
    return [_row(depth, found) for depth, found in windows.items()]


def _row(depth: int, windows: list[_Window]) -> Row:
    ms = statistics.median(window.ms_per_task for window in windows)
    by_process = {
        role: statistics.median(window.cpu_ms_per_task.get(role, 0.0) for window in windows)
        for role in windows[0].cpu_ms_per_task
    }
    return row(
        "embedded",
        "ours",
        "tiny",
        "queue depth",
        queue_depth=depth,
        images_per_s=1000 / ms,
        ms_per_image=ms,
        cpu_ms_per_image=sum(by_process.values()),
        cpu_ms_by_process=by_process,
    )


def _window(work: Workload, depth: int) -> _Window:
    service = Ours("depth", {}, _SETTINGS)
    with service.folder(work) as folder:
        return _window_in(folder, service.write_config(work, folder), work, depth)


def _window_in(folder: Path, config: Path, work: Workload, depth: int) -> _Window:
    with Processes({"INFERENCE_CONFIG": str(config)}, folder / "log") as processes:
        processes.start([sys.executable, "server.py", "broker"])
        settings = load_settings(config)
        if not embedded_broker.wait_for(settings.data_dir, up=True, timeout_s=_START_TIMEOUT_S):
            raise RuntimeError(f"the broker does not start:\n{embedded_broker.log_tail(settings.data_dir)}")
        processes.start([sys.executable, "server.py", "relay"])
        queue = _Queue(Services(settings), work)
        queue.fill(depth)
        processes.start([sys.executable, "-m", "celery", "--quiet", "-A", "tasks", "worker"])
        queue.keep(depth, starts=_WARM_TASKS)
        before, began = processes.cpu_s(), time.monotonic()
        started = queue.keep(depth, starts=_WINDOW_TASKS)
        took_s = time.monotonic() - began
        return _Window(took_s * 1000 / started, cpu_ms_each(before, processes.cpu_s(), started))


class _Queue:
    """Queue of the model, kept at a constant depth."""

    def __init__(self, services: Services, work: Workload) -> None:
        spec = services.models.get()
        data = work.image.read_bytes()
        services.objects.put(_IMAGE_KEY, data)
        self._services = services
        self._queue = spec.queue
        self._model = reference(spec)
        self._header = inspect(
            data,
            shape=list(spec.input.shape),
            dtype=spec.input.dtype,
            content_type=None,
            spec=spec.input,
            limits=ImageLimits(services.settings.limits.max_pixels),
        )
        self._accepted = 0

    def fill(self, depth: int) -> None:
        while (missing := depth - self._waiting()) > 0:
            self._accept(min(missing, _TASKS_A_CALL))

    def keep(self, depth: int, *, starts: int) -> int:
        """Keep the depth until at least `starts` tasks have started; returns their number. Raises RuntimeError on a timeout."""
        before = self._accepted - self._waiting()
        deadline = time.monotonic() + _START_TIMEOUT_S
        while (started := self._accepted - self._waiting() - before) < starts:
            if time.monotonic() > deadline:
                raise RuntimeError(f"{started} of {starts} tasks started in {_START_TIMEOUT_S:g} s")
            self.fill(depth)
            time.sleep(_LOOK_INTERVAL_S)
        return started

    def _waiting(self) -> int:
        return self._services.store.get_queue_stats(self._queue).depth

    def _accept(self, count: int) -> None:
        batch = BatchRequest(uuid.uuid4().hex, tuple(self._request() for _ in range(count)))
        accept_batch(self._services.store, self._services.broker, batch, max_message_items=1)
        self._accepted += count

    def _request(self) -> TaskSubmission:
        task_id = uuid.uuid4().hex
        return TaskSubmission(
            task_id=task_id,
            request_id=task_id,
            model=self._model,
            queue=self._queue,
            item=QueueItem(task_id, _IMAGE_KEY, self._header),
            deadline_s=_DEADLINE_S,
            sinks=self._services.settings.sinks,
        )
