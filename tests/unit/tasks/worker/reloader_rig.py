"""Rig of the model reloader's tests: a worker's models, its predictor processes as fakes, and commands."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipeline_rig import OWNER, Outage, wait_until
from support.fake_process import FakeProcess

from inference.domain import ModelRef
from inference.models.files import ModelFiles
from inference.models.predictor.versioned_predictor import VersionedPredictor
from inference.models.registry import reference
from inference.models.spec import ModelSpec
from inference.rollout.desired_state import LoadReport, NewFiles, Proposal, RolloutStore
from inference.settings import Settings
from inference.task_store import QueueLoad, RateChange
from tasks.worker.model_reloader import ModelReloader, Specs
from tasks.worker.queue_preparation import QueuePreparation


class FakeQueue:
    """Store with one queue, of as many open tasks as a test says."""

    def __init__(self) -> None:
        self.open_tasks = 0
        self.changes: list[RateChange] = []

    def get_queue_load(self, _queue: str) -> QueueLoad:
        return QueueLoad(self.open_tasks, 0)

    def expect_change(self, queue: str, change: RateChange) -> None:
        assert queue == "predict.digits"
        self.changes.append(change)


class World:
    """A worker's models, its predictor processes as fakes, and the commands that come."""

    def __init__(self, digits: ModelSpec, desired: RolloutStore, folder: Path) -> None:
        self.digits = digits
        self.desired: Any = Outage(desired)
        self.folder = folder
        self.processes: list[FakeProcess] = []
        #: what processes made from now on say when they are started
        self.fails = ""
        self.images_per_s = 100.0
        self.gate_is_open = True
        self.faults: list[str] = []
        specs = {"digits": digits}
        self.files = ModelFiles(Settings(model_files={"allowed_folders": [folder]}))
        self.predictor = VersionedPredictor(self.make(specs))
        self.queue = FakeQueue()
        self.reloader = ModelReloader(
            self.desired,
            self.files,
            self.predictor,
            holder=OWNER,
            specs=specs,
            make=self.make,
            preparation=QueuePreparation(self.queue),  # type: ignore[arg-type]
        )
        self.reloader._on_fault = lambda: self.faults.append("models")
        self._changes = 0

    def make(self, specs: Specs) -> FakeProcess:
        references = {name: reference(spec) for name, spec in specs.items()}
        process = FakeProcess(references, fails=self.fails, images_per_s=self.images_per_s)
        if not self.gate_is_open:
            process.gate.clear()
        self.processes.append(process)
        return process

    def start(self) -> World:
        assert self.reloader.start_predictor(lambda: False)
        self.reloader.start()
        return self

    def file(self, content: str) -> Path:
        path = self.folder / f"{content}.keras"
        path.write_text(content)
        return path

    def propose(self, file: Path | None, model: str = "digits") -> Proposal:
        self._changes += 1
        files = None if file is None else NewFiles(str(file))
        proposal = Proposal(f"change-{self._changes}", model, files)
        self.desired.propose(proposal)
        return proposal

    def report(self, proposal: Proposal) -> LoadReport:
        report: LoadReport = wait_until_given(lambda: self.desired.reports(proposal.change_id).get(OWNER), "the worker's report")
        return report

    def change(self, file: Path | None) -> ModelRef:
        """A command that goes well, up to its commit."""
        proposal = self.propose(file)
        model = self.report(proposal).model
        assert model is not None
        assert self.desired.commit(proposal, model)
        return model

    @property
    def current(self) -> ModelRef:
        return self.predictor.references["digits"]

    @property
    def running(self) -> list[FakeProcess]:
        return [process for process in self.processes if process.is_running]


def wait_until_given(condition: Callable[[], Any], what: str) -> Any:
    answers: list[Any] = []

    def ask() -> bool:
        answers.append(condition())
        return answers[-1] is not None

    wait_until(ask, what)
    return answers[-1]
