"""Start of a worker after commands that changed its models, or while one does."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from pipeline_rig import wait_until
from reloader_rig import World

from inference.domain import ModelRef
from inference.errors import ConfigurationError
from inference.models.registry import reference
from inference.models.spec import ModelSpec
from tasks.worker import model_reloader


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
            world.reloader.start_predictor(lambda: False)

    def test_a_file_that_has_changed_since_is_told(self, world: World) -> None:
        file = world.file("new")
        self.commanded(world, file)
        file.write_text("newer")
        with pytest.raises(ConfigurationError, match="has changed since a command loaded it"):
            world.reloader.start_predictor(lambda: False)

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
        assert not world.reloader.start_predictor(lambda: bool(world.desired.refused["read"]))

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
