"""The predictor process itself: what it answers, and how the worker's side sees it die, hang and refuse."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
from numpy.typing import NDArray
from support.metrics import Growth
from support.models import load_spec
from support.waiting import until

from inference.errors import ConfigurationError, PredictionFailed
from inference.models.predictor.arena import SlotArena
from inference.models.predictor.client import PredictorCrashed, PredictorNotRunning, PredictorProcess
from inference.models.spec import LocalFile, ModelSpec

pytestmark = pytest.mark.process

MODULE = "inference.models.predictor.process"
MAX_BATCH_SIZE = 8
PATIENCE_S = 30.0
#: predictions of one image in batches of other sizes differ by as much as the order of sums does
TOLERANCE = 1e-5


def never() -> bool:
    return False


@pytest.fixture(scope="module")
def digits(repository: Path) -> ModelSpec:
    return load_spec(repository / "models" / "digits")


@pytest.fixture(scope="module")
def arena(digits: ModelSpec) -> Iterator[SlotArena]:
    arena = SlotArena(digits.input, 2 * MAX_BATCH_SIZE)
    images = np.random.default_rng(3).uniform(0, 255, arena.images.shape)
    arena.images[:] = images
    yield arena
    assert arena._file is not None
    arena._file.close()


def predictor_of(models: dict[str, tuple[ModelSpec, SlotArena]], **options: float) -> PredictorProcess:
    limits = {"predict_timeout_s": PATIENCE_S, "load_timeout_s": 120.0} | options
    return PredictorProcess(models, max_batch_size=MAX_BATCH_SIZE, **limits)


@pytest.fixture(scope="module")
def temporary_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The process's own."""
    return tmp_path_factory.mktemp("temporary")


@pytest.fixture(scope="module")
def process(digits: ModelSpec, arena: SlotArena, temporary_folder: Path) -> Iterator[PredictorProcess]:
    predictor = predictor_of({digits.name: (digits, arena)})
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMPDIR", str(temporary_folder))
        patch.setenv("MONGODB_URL", "mongodb://me:a-secret@host")
        yield predictor
        predictor.stop()


@pytest.fixture
def predictor(process: PredictorProcess) -> PredictorProcess:
    """A running process; started again only after a test that ended it: TensorFlow takes seconds to load."""
    if process.pid is None or not process.loaded:
        assert process.start(never)
    return process


@pytest.fixture(scope="module")
def one_by_one(process: PredictorProcess, arena: SlotArena) -> NDArray[np.float32]:
    """Return the process's answers for each slot alone."""
    if not process.loaded:
        assert process.start(never)
    return np.concatenate([process.predict("digits", [slot]).values for slot in range(arena.slots)])


class TestRunning:
    def test_it_says_what_it_has_loaded(self, predictor: PredictorProcess) -> None:
        loaded = predictor.loaded["digits"]
        assert (loaded.model, loaded.output_size) == ("digits", 10)
        assert loaded.predict_ms > 0

    def test_it_knows_no_secret_of_the_worker(self, predictor: PredictorProcess) -> None:
        process = psutil.Process(predictor.pid)
        assert "a-secret" not in repr((process.environ(), process.cmdline()))

    @pytest.mark.parametrize("size", [*range(1, MAX_BATCH_SIZE + 1)])
    def test_a_batch_of_any_size_is_answered_as_its_images_are_one_by_one(
        self, predictor: PredictorProcess, one_by_one: NDArray[np.float32], size: int
    ) -> None:
        predictions = predictor.predict("digits", list(range(size)))
        assert predictions.values.shape == (size, 10)
        assert predictions.values.dtype == np.float32
        assert predictions.predict_ms > 0
        np.testing.assert_allclose(predictions.values, one_by_one[:size], atol=TOLERANCE)
        np.testing.assert_allclose(predictions.values.sum(axis=1), 1, atol=TOLERANCE)

    def test_answers_come_in_the_order_of_the_slots(self, predictor: PredictorProcess, one_by_one: NDArray[np.float32]) -> None:
        slots = [13, 2, 2, 7, 0]
        values = predictor.predict("digits", slots).values
        np.testing.assert_allclose(values, one_by_one[slots], atol=TOLERANCE)
        assert np.ptp(one_by_one, axis=0).max() > 0.1  # the images are told apart

    def test_an_image_written_after_the_start_is_the_one_that_is_seen(
        self, predictor: PredictorProcess, arena: SlotArena, repository: Path
    ) -> None:
        from PIL import Image  # noqa: PLC0415

        kept = arena.images[5].copy()
        with Image.open(repository / "samples" / "digit_7.png") as picture:
            arena.images[5] = np.asarray(picture, np.float32).reshape(8, 8, 1)
        (vector,) = predictor.predict("digits", [5]).values
        arena.images[5] = kept
        assert vector.argmax() == 7
        assert vector.max() > 0.9

    def test_a_model_that_raises_is_not_the_end_of_the_process(
        self, predictor: PredictorProcess, one_by_one: NDArray[np.float32]
    ) -> None:
        pid = predictor.pid
        with pytest.raises(PredictionFailed, match="the model raised"):
            predictor.predict("digits", list(range(MAX_BATCH_SIZE + 1)))
        assert predictor.pid == pid
        np.testing.assert_allclose(predictor.predict("digits", [3]).values, one_by_one[3:4], atol=TOLERANCE)

    def test_threads_that_call_at_the_same_time_get_their_own_answers(
        self, predictor: PredictorProcess, one_by_one: NDArray[np.float32]
    ) -> None:
        wrong: list[int] = []

        def call(slot: int) -> None:
            for _ in range(20):
                values = predictor.predict("digits", [slot]).values
                if not np.allclose(values, one_by_one[slot : slot + 1], atol=TOLERANCE):
                    wrong.append(slot)

        threads = [threading.Thread(target=call, args=(slot,)) for slot in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE_S)
        assert wrong == []

    def test_a_second_start_leaves_a_running_process_alone(self, predictor: PredictorProcess) -> None:
        """Two models share the process, and each one's batcher starts it after a crash."""
        pid = predictor.pid
        assert predictor.start(never)
        assert predictor.pid == pid

    def test_signals_to_the_group_leave_it_running(self, predictor: PredictorProcess) -> None:
        assert predictor.pid is not None
        for number in (signal.SIGINT, signal.SIGTERM):
            os.kill(predictor.pid, number)
        assert predictor.predict("digits", [0]).values.shape == (1, 10)


class TestDying:
    """Deaths in this order: killed, killed again, refused, started again."""

    def test_a_killed_process_is_a_crash(self, predictor: PredictorProcess) -> None:
        assert predictor.pid is not None
        os.kill(predictor.pid, signal.SIGKILL)
        with pytest.raises(PredictorCrashed, match="signal 9"):
            predictor.predict("digits", [0])
        assert predictor.loaded == {}

    def test_it_leaves_no_files_behind(self, predictor: PredictorProcess, temporary_folder: Path) -> None:
        assert predictor.pid is not None
        assert psutil.Process(predictor.pid).environ()["TMPDIR"] == str(temporary_folder)
        os.kill(predictor.pid, signal.SIGKILL)
        with pytest.raises(PredictorCrashed):
            predictor.predict("digits", [0])
        assert list(temporary_folder.iterdir()) == []

    def test_until_it_is_started_again_every_call_is_refused(self, process: PredictorProcess) -> None:
        assert process.loaded == {}
        with pytest.raises(PredictorNotRunning, match="not running"):
            process.predict("digits", [0])

    def test_a_new_process_answers_as_the_old_one_did(self, process: PredictorProcess, one_by_one: NDArray[np.float32]) -> None:
        assert process.start(never)
        np.testing.assert_allclose(process.predict("digits", [4, 1]).values, one_by_one[[4, 1]], atol=TOLERANCE)
        assert set(process.loaded) == {"digits"}

    def test_a_start_after_a_death_is_counted_once(self, predictor: PredictorProcess) -> None:
        growth = Growth()
        assert predictor.pid is not None
        os.kill(predictor.pid, signal.SIGKILL)
        with pytest.raises(PredictorCrashed):
            predictor.predict("digits", [0])
        assert predictor.start(never)
        assert predictor.start(never)
        assert growth.of("predictor_restarts_total") == 1


@pytest.fixture
def make() -> Iterator[Callable[..., PredictorProcess]]:
    """Makes predictors that are ended after the test."""
    made: list[PredictorProcess] = []

    def make(models: dict[str, tuple[ModelSpec, SlotArena]], **options: float) -> PredictorProcess:
        made.append(predictor_of(models, **options))
        return made[-1]

    yield make
    for predictor in made:
        predictor.stop()


Make = Callable[..., PredictorProcess]


class TestHanging:
    """Without models the process needs no TensorFlow; while it is stopped it answers nothing."""

    @pytest.fixture
    def hanging(self, make: Make) -> Iterator[Callable[[float], PredictorProcess]]:
        """Makes a stopped process whose calls may take so many seconds."""
        processes: list[subprocess.Popen[bytes]] = []

        def make_hanging(predict_timeout_s: float) -> PredictorProcess:
            predictor = make({}, predict_timeout_s=predict_timeout_s)
            assert predictor.start(never)
            assert predictor._process is not None
            processes.append(predictor._process)
            os.kill(predictor._process.pid, signal.SIGSTOP)
            return predictor

        yield make_hanging
        for process in processes:
            process.kill()  # so that no stop waits for it

    def test_a_process_that_hangs_is_a_crash_and_is_ended(self, hanging: Callable[[float], PredictorProcess]) -> None:
        predictor = hanging(0.2)
        process = predictor._process
        assert process is not None
        with pytest.raises(PredictorCrashed):
            predictor.predict("digits", [0])
        assert process.poll() == -signal.SIGKILL
        assert predictor.loaded == {}

    def test_a_hang_is_told_from_a_death(self, hanging: Callable[[float], PredictorProcess]) -> None:
        with pytest.raises(PredictorCrashed, match=r"hung for 0\.2 s"):
            hanging(0.2).predict("digits", [0])

    def test_a_stop_does_not_wait_for_a_call_that_hangs(self, hanging: Callable[[float], PredictorProcess]) -> None:
        predictor = hanging(10 * PATIENCE_S)
        errors: list[Exception] = []

        def call() -> None:
            try:
                predictor.predict("digits", [0])
            except PredictorCrashed as error:
                errors.append(error)

        calling = threading.Thread(target=call, daemon=True)
        calling.start()
        until(predictor._lock.locked, "the call", timeout_s=PATIENCE_S)
        stopping = threading.Thread(target=predictor.stop, daemon=True)
        stopping.start()
        stopping.join(PATIENCE_S)
        assert not stopping.is_alive()
        calling.join(PATIENCE_S)
        assert len(errors) == 1


class TestLoading:
    def test_a_file_that_is_no_model_is_a_configuration_error(
        self, make: Make, digits: ModelSpec, arena: SlotArena, tmp_path: Path
    ) -> None:
        bad_file = tmp_path / "digits.keras"
        bad_file.write_bytes(b"not a zip archive")
        bad = digits.model_copy(update={"local_files": {"file": LocalFile("digits.keras", bad_file, "")}, "digest": "sha256:0"})
        predictor = make({"digits": (bad, arena)})
        with pytest.raises(ConfigurationError, match=r"digits: .*digits\.keras.* Keras"):
            predictor.start(never)
        assert predictor.loaded == {}
        assert predictor._process is not None
        assert predictor._process.poll() is not None

    def test_who_is_told_to_stop_stops_loading(self, make: Make, digits: ModelSpec, arena: SlotArena) -> None:
        predictor = make({"digits": (digits, arena)})
        asked: list[bool] = []

        def should_stop() -> bool:
            asked.append(predictor.pid is not None)
            if predictor.pid is not None:
                os.kill(predictor.pid, signal.SIGSTOP)  # or it may have loaded its model before it is asked again
            return len(asked) == 2

        assert not predictor.start(should_stop)
        assert asked == [True, True]
        assert predictor.loaded == {}
        assert predictor._process is not None
        assert predictor._process.poll() == -signal.SIGKILL

    def test_an_error_of_ours_leaves_no_process_that_would_be_taken_for_one_that_is_ready(
        self, make: Make, digits: ModelSpec, arena: SlotArena
    ) -> None:
        predictor = make({"digits": (digits, arena)})

        def fail() -> bool:
            raise RuntimeError("no")

        with pytest.raises(RuntimeError, match="no"):
            predictor.start(fail)
        assert not predictor.is_running
        assert predictor._process is not None
        assert predictor._process.poll() == -signal.SIGKILL

    def test_a_host_that_starts_no_process_is_a_configuration_error(
        self, make: Make, digits: ModelSpec, arena: SlotArena, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse(*_: object, **__: object) -> None:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

        monkeypatch.setattr(subprocess, "Popen", refuse)
        predictor = make({"digits": (digits, arena)})
        with pytest.raises(ConfigurationError, match="cannot start the predictor process: Too many open files"):
            predictor.start(never)
        assert not predictor.is_running

    def test_loading_that_takes_too_long_is_a_configuration_error(self, make: Make, digits: ModelSpec, arena: SlotArena) -> None:
        predictor = make({"digits": (digits, arena)}, load_timeout_s=0.01)
        with pytest.raises(ConfigurationError, match=r"more than 0\.01 s"):
            predictor.start(never)
        assert predictor._process is not None
        assert predictor._process.poll() is not None

    def test_a_process_that_dies_while_it_loads_is_a_configuration_error(
        self, make: Make, digits: ModelSpec, arena: SlotArena
    ) -> None:
        predictor = make({"digits": (digits, arena)})

        def kill() -> bool:
            assert predictor.pid is not None
            os.kill(predictor.pid, signal.SIGKILL)
            return False

        with pytest.raises(ConfigurationError, match="ended: signal 9"):
            predictor.start(kill)

    @pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs Linux's /proc to see what is loaded")
    def test_what_a_library_says_before_it_aborts_is_passed_on(
        self,
        make: Make,
        digits: ModelSpec,
        arena: SlotArena,
        monkeypatch: pytest.MonkeyPatch,
        capfd: pytest.CaptureFixture[str],
    ) -> None:
        """A failed check of CUDA aborts like this; without the text the operator has the number of a signal."""
        monkeypatch.setenv("PYTHONFAULTHANDLER", "1")
        predictor = make({"digits": (digits.model_copy(update={"litert": False}), arena)})

        def abort_once_it_loads() -> bool:
            assert predictor.pid is not None
            if "tensorflow" in Path(f"/proc/{predictor.pid}/maps").read_text():
                os.kill(predictor.pid, signal.SIGABRT)
            return False

        with pytest.raises(ConfigurationError, match="ended: signal 6"):
            predictor.start(abort_once_it_loads)
        said = ""
        deadline = time.monotonic() + 3
        while "Fatal Python error: Aborted" not in said:
            assert time.monotonic() < deadline, said
            said += capfd.readouterr().err
            time.sleep(0.01)

    def test_a_process_that_was_never_started_does_not_run(self, make: Make) -> None:
        predictor = make({})
        with pytest.raises(PredictorNotRunning, match="not running"):
            predictor.predict("digits", [0])
        predictor.stop()
        assert predictor.pid is None

    def test_a_stopped_process_is_gone(self, make: Make) -> None:
        predictor = make({})  # without models it needs no TensorFlow
        assert predictor.start(never)
        predictor.stop()
        assert predictor._process is not None
        assert predictor._process.poll() is not None
        predictor.stop()
