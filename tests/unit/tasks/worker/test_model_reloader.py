"""A worker and the models that are wanted of it: good files, bad ones, changes that are withdrawn or were missed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from pipeline_rig import wait_until
from reloader_rig import World

from inference.models.registry import reference
from inference.models.spec import ModelSpec
from inference.task_store import RateChange
from tasks.worker.model_reloader import Specs


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

    monkeypatch.setattr(world.reloader._files, "with_files", broken)
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


class TestNeverMoreThanTwoProcesses:
    @pytest.fixture(autouse=True)
    def most(self, world: World) -> Iterator[None]:
        counts: list[int] = []
        make = world.reloader._make

        def counted(specs: Specs) -> Any:
            process = make(specs)
            counts.append(len(world.running) + 1)  # with this one, which is about to be started
            return process

        world.reloader._make = counted
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
    world.reloader.stop()
    assert world.reloader.join(10)
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
