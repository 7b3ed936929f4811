"""A worker and the models that are wanted of it: good files, bad ones, changes that are withdrawn or were missed."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from pipeline_rig import OWNER, Outage, wait_until
from support.fake_process import FakeProcess

from inference.domain import ModelRef
from inference.errors import ConfigurationError
from inference.models.files import ModelFiles
from inference.models.predictor.versioned_predictor import VersionedPredictor
from inference.models.registry import reference
from inference.models.spec import ModelSpec
from inference.rollout.desired_state import LoadReport, NewFiles, Proposal, RolloutStore
from inference.settings import Settings
from inference.task_store import QueueLoad, RateChange
from tasks.worker import model_reloader
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
        self.changer = ModelReloader(
            self.desired,
            self.files,
            self.predictor,
            holder=OWNER,
            specs=specs,
            make=self.make,
            preparation=QueuePreparation(self.queue),  # type: ignore[arg-type]
        )
        self.changer._on_fault = lambda: self.faults.append("models")
        self._changes = 0

    def make(self, specs: Specs) -> FakeProcess:
        references = {name: reference(spec) for name, spec in specs.items()}
        process = FakeProcess(references, fails=self.fails, images_per_s=self.images_per_s)
        if not self.gate_is_open:
            process.gate.clear()
        self.processes.append(process)
        return process

    def start(self) -> World:
        assert self.changer.start_predictor(lambda: False)
        self.changer.start()
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


@pytest.fixture
def desired(redis_client: redis.Redis, key_prefix: str) -> RolloutStore:
    return RolloutStore(redis_client, key_prefix)


@pytest.fixture
def world(digits: ModelSpec, desired: RolloutStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    monkeypatch.setattr(model_reloader, "POLL_INTERVAL_S", 0.01)
    world = World(digits, desired, tmp_path)
    yield world
    world.changer.stop()
    for process in world.processes:
        process.gate.set()
    assert world.changer.join(10)
    assert world.faults == []


def test_without_a_command_the_configurations_models_run(world: World, digits: ModelSpec) -> None:
    world.start()
    assert world.current == reference(digits)
    assert len(world.running) == 1


def test_a_good_file_is_loaded_in_addition_to_the_old_and_reported(world: World, digits: ModelSpec) -> None:
    world.start()
    report = world.report(world.propose(world.file("new")))
    assert report.error is None
    assert report.model is not None
    assert report.model.version.startswith(f"{digits.version}+")
    assert report.model.digest != digits.digest
    assert world.current == reference(digits)
    assert len(world.running) == 2
    assert world.predictor.predict("digits", [0]).model == reference(digits)


def test_once_committed_it_serves_and_the_old_one_ends(world: World) -> None:
    world.start()
    model = world.change(world.file("new"))
    wait_until(lambda: world.current == model, "the switch")
    wait_until(lambda: len(world.running) == 1, "the end of the old process")
    assert world.running == [world.processes[-1]]


def test_a_slower_version_is_announced_and_waits_until_the_queue_is_short(world: World) -> None:
    world.start()
    world.queue.open_tasks = 300
    world.images_per_s = 25.0
    proposal = world.propose(world.file("slow"))
    wait_until(lambda: RateChange(world.processes[-1].references["digits"], 0.25) in world.queue.changes, "the announcement")
    world.queue.open_tasks = 101
    looks = len(world.queue.changes)
    wait_until(lambda: len(world.queue.changes) > looks + 1, "two more looks at the queue")
    assert world.desired.reports(proposal.change_id) == {}
    world.queue.open_tasks = 100
    assert world.report(proposal).model == world.processes[-1].references["digits"]


def test_a_slower_version_that_waits_is_given_up_once_it_is_withdrawn(world: World, digits: ModelSpec) -> None:
    world.start()
    world.queue.open_tasks = 300
    world.images_per_s = 25.0
    proposal = world.propose(world.file("slow"))
    wait_until(lambda: bool(world.queue.changes), "the announcement")
    world.desired.withdraw(proposal.change_id)
    wait_until(lambda: len(world.running) == 1, "the end of the candidate")
    assert world.current == reference(digits)


def test_withdrawn_it_ends_and_the_old_one_stays(world: World, digits: ModelSpec) -> None:
    world.start()
    proposal = world.propose(world.file("new"))
    world.report(proposal)
    world.desired.withdraw(proposal.change_id)
    wait_until(lambda: len(world.running) == 1, "the end of the candidate")
    assert world.current == reference(digits)


def test_withdrawn_while_it_loads_it_is_given_up(world: World) -> None:
    world.start()
    world.gate_is_open = False
    proposal = world.propose(world.file("new"))
    wait_until(lambda: len(world.processes) == 2, "the candidate")
    world.desired.withdraw(proposal.change_id)
    world.gate_is_open = True
    assert world.change(world.file("newer")).digest == world.processes[-1].references["digits"].digest
    assert world.desired.reports(proposal.change_id) == {}


def test_what_does_not_load_is_reported_with_its_reason(world: World, digits: ModelSpec) -> None:
    world.start()
    world.fails = "digits: Keras cannot read bad.keras"
    report = world.report(world.propose(world.file("bad")))
    assert report.model is None
    assert report.error == {"code": "invalid_model", "detail": "digits: Keras cannot read bad.keras"}
    assert world.current == reference(digits)
    assert len(world.running) == 1


def test_a_report_says_not_where_the_file_is(world: World, caplog: pytest.LogCaptureFixture) -> None:
    world.start()
    file = world.file("bad")
    world.fails = f"digits: the model in {file} takes [1, 1]"
    report = world.report(world.propose(file))
    assert report.error == {"code": "invalid_model", "detail": "digits: the model in bad.keras takes [1, 1]"}
    assert str(file) in caplog.text


def test_a_missing_file_is_reported_as_such(world: World) -> None:
    world.start()
    report = world.report(world.propose(world.folder / "missing.keras"))
    assert report.error is not None
    assert report.error["code"] == "object_not_found"
    assert "missing.keras" in report.error["detail"]


def test_whatever_the_files_break_the_worker_goes_on(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.start()

    def broken(*_: Any, **__: Any) -> ModelSpec:
        raise PermissionError("no right to read it")

    monkeypatch.setattr(world.changer._files, "with_files", broken)
    report = world.report(world.propose(world.file("new")))
    assert report.error is not None
    assert report.error["code"] == "invalid_model"
    assert "no right to read it" in report.error["detail"]
    monkeypatch.undo()
    world.desired.withdraw("change-1")
    assert world.change(world.file("new"))


def test_another_workers_model_is_not_answered(world: World) -> None:
    world.start()
    proposal = world.propose(world.file("new"), model="another")
    wait_until(lambda: not world.desired.keep_alive("change-0"), "a look at it")
    world.desired.withdraw(proposal.change_id)
    world.change(world.file("new"))
    assert world.desired.reports(proposal.change_id) == {}


def test_files_that_run_already_need_no_process(world: World) -> None:
    world.start()
    model = world.change(world.file("new"))
    wait_until(lambda: world.current == model, "the switch")
    made = len(world.processes)
    again = world.report(world.propose(world.file("new")))
    assert again.model == model
    assert len(world.processes) == made


def test_a_command_may_go_back_to_the_configurations_files(world: World, digits: ModelSpec) -> None:
    world.start()
    world.change(world.file("new"))
    assert world.change(None) == reference(digits)
    wait_until(lambda: world.current == reference(digits), "the switch")


def test_a_reset_goes_back_by_itself(world: World, digits: ModelSpec) -> None:
    world.start()
    model = world.change(world.file("new"))
    wait_until(lambda: world.current == model, "the switch")
    world.desired.reset()
    wait_until(lambda: world.current == reference(digits), "the switch back")


class TestStartingLater:
    def commanded(self, world: World, file: Path) -> ModelRef:
        """A command that other workers answered."""
        spec = world.files.with_files(world.digits, weights_file=str(file))
        proposal = world.propose(file)
        assert world.desired.commit(proposal, reference(spec))
        return reference(spec)

    def test_it_comes_up_with_the_changed_model(self, world: World) -> None:
        model = self.commanded(world, world.file("new"))
        world.start()
        assert world.current == model
        assert len(world.running) == 1

    def test_the_version_is_the_one_that_was_agreed_on(self, world: World) -> None:
        """Though the configuration's version is another since."""
        file = world.file("new")
        agreed = ModelRef("digits", "0+abc", self.commanded(world, file).digest)
        proposal = world.propose(file)
        world.desired.commit(proposal, agreed)
        world.start()
        assert world.current == agreed

    def test_a_file_that_is_gone_ends_the_start_with_what_to_do(self, world: World) -> None:
        file = world.file("new")
        self.commanded(world, file)
        file.unlink()
        with pytest.raises(ConfigurationError, match=r"new\.keras.*reset-models"):
            world.changer.start_predictor(lambda: False)

    def test_a_file_that_has_changed_since_is_told(self, world: World) -> None:
        file = world.file("new")
        self.commanded(world, file)
        file.write_text("newer")
        with pytest.raises(ConfigurationError, match="has changed since a command loaded it"):
            world.changer.start_predictor(lambda: False)

    def test_a_store_that_is_down_is_waited_for(self, world: World) -> None:
        world.desired.take_down("read")
        started = threading.Thread(target=world.start, daemon=True)
        started.start()
        wait_until(lambda: world.desired.refused["read"], "a refused reading")
        assert world.running == []
        world.desired.bring_up()
        started.join(10)
        assert len(world.running) == 1

    def test_who_is_told_to_stop_does_not_wait(self, world: World) -> None:
        world.desired.take_down("read")
        assert not world.changer.start_predictor(lambda: bool(world.desired.refused["read"]))

    def test_a_change_while_it_came_up_is_loaded_before_it_takes_tasks(self, world: World) -> None:
        world.gate_is_open = True
        file = world.file("new")
        models: list[ModelRef] = []

        def command_comes() -> None:
            if world.processes[0].is_running and not models:
                models.append(self.commanded(world, file))

        world.desired.before["read"] = command_comes
        world.start()
        assert [world.current] == models

    def test_a_change_that_was_missed_is_loaded(self, world: World) -> None:
        """Other workers were ready, and this one had not said a word."""
        world.start()
        world.desired.take_down("read_with_proposal")
        model = self.commanded(world, world.file("new"))
        world.desired.bring_up()
        wait_until(lambda: world.current == model, "the switch")
        wait_until(lambda: len(world.running) == 1, "the end of the old process")

    def test_what_cannot_be_loaded_afterwards_leaves_the_old_one(
        self, world: World, digits: ModelSpec, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(model_reloader, "_RELOAD_INTERVAL_S", 0.05)
        world.start()
        world.desired.take_down("read_with_proposal")
        world.fails = "no memory"
        model = self.commanded(world, world.file("new"))
        world.desired.bring_up()
        wait_until(lambda: len(world.processes) >= 3, "a second try")
        assert world.current == reference(digits)
        world.fails = ""
        wait_until(lambda: world.current == model, "the switch")


class TestNeverMoreThanTwoProcesses:
    @pytest.fixture(autouse=True)
    def most(self, world: World) -> Iterator[None]:
        counts: list[int] = []
        make = world.changer._make

        def counted(specs: Specs) -> Any:
            process = make(specs)
            counts.append(len(world.running) + 1)  # with this one, which is about to be started
            return process

        world.changer._make = counted
        yield
        assert max(counts) == 2

    def test_while_one_change_follows_another(self, world: World) -> None:
        world.start()
        models = [world.change(world.file(f"new-{number}")) for number in range(3)]
        wait_until(lambda: world.current == models[-1], "the last switch")
        assert world.running == [world.processes[-1]]

    def test_while_something_else_counts_than_what_was_proposed(self, world: World) -> None:
        """The state was reset, or another model's changed, while a proposal was open."""
        world.start()
        old = world.change(world.file("old"))
        wait_until(lambda: world.current == old, "the switch")
        proposal = world.propose(world.file("new"))
        model = world.report(proposal).model
        world.desired.reset()
        wait_until(lambda: world.current == reference(world.digits), "the switch back")
        assert model is not None
        assert world.desired.commit(proposal, model)
        wait_until(lambda: world.current == model, "the switch")


def test_a_candidate_that_died_is_started_again_before_it_serves(world: World) -> None:
    """Else the next batch would be the one that finds out."""
    world.start()
    proposal = world.propose(world.file("new"))
    model = world.report(proposal).model
    assert model is not None
    candidate = world.running[-1]
    candidate.stop()
    assert world.desired.commit(proposal, model)
    wait_until(lambda: world.current == model, "the switch")
    assert candidate.is_running
    assert candidate.starts == 2


def test_a_stop_ends_the_candidate(world: World) -> None:
    world.start()
    world.report(world.propose(world.file("new")))
    world.changer.stop()
    assert world.changer.join(10)
    assert world.running == [world.processes[0]]


def test_a_store_that_is_down_changes_nothing(world: World, digits: ModelSpec) -> None:
    world.start()
    world.desired.take_down("read_with_proposal")
    wait_until(lambda: world.desired.refused["read_with_proposal"] > 3, "refused reads")
    assert world.current == reference(digits)
    world.desired.bring_up()
    model = world.change(world.file("new"))
    wait_until(lambda: world.current == model, "the switch")


def test_a_report_waits_for_the_store(world: World) -> None:
    world.start()
    world.desired.take_down("report")
    proposal = world.propose(world.file("new"))
    wait_until(lambda: world.desired.refused["report"], "a refused report")
    world.desired.bring_up()
    assert world.report(proposal).model is not None
