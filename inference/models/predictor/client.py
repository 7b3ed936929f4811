"""Worker's side of the predictor process: start it, call it, and end it if it hangs."""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from inference.domain import ModelRef
from inference.errors import ConfigurationError, PredictionFailed
from inference.metrics.worker import predictor_restarts
from inference.models.predictor.arena import SlotArena
from inference.models.predictor.device_lock import GpuLock, gpu_index, gpu_lock, host_has_gpu
from inference.models.predictor.environment import predictor_environment
from inference.models.predictor.native_stderr import pass_on
from inference.models.predictor.protocol import CustomResult, Failed, Load, Loaded, LoadModel, Predict, Predicted, Progress, Ready
from inference.models.registry import reference
from inference.models.spec import ModelSpec
from inference.runtime.log import current_log_setup
from inference.settings import GpuSettings

logger = logging.getLogger(__name__)

_MODULE = "inference.models.predictor.process"
#: Interval in seconds of the checks for a stop while the models load.
_POLL_INTERVAL_S = 0.2


class PredictorCrashed(Exception):
    """The process died or hung while it had the batch. Start it again before the next batch."""


class PredictorNotRunning(Exception):
    """The process was down before it got the batch. Start it again before the next batch."""


@dataclass(frozen=True)
class BatchPredictions:
    #: (batch, classes) float32
    values: NDArray[np.float32]
    #: milliseconds within the predictor process
    predict_ms: float
    #: the model and version that ran
    model: ModelRef
    #: difference between two of the values, if the model's output is quantised
    step: float = 0.0
    #: one for each image of a model with code, else empty
    custom: tuple[CustomResult, ...] = ()


class Predictor(Protocol):
    """Interface that runs a worker's batches: see `versioned.VersionedPredictor`."""

    def start(self, should_stop: Callable[[], bool]) -> bool: ...

    def predict(self, model: str, slots: Sequence[int]) -> BatchPredictions: ...

    def stop(self) -> None: ...

    @property
    def loaded(self) -> Mapping[str, Loaded]: ...

    @property
    def references(self) -> Mapping[str, ModelRef]: ...


class PredictorProcess:
    """Runs models in a process of its own. One call at a time; safe to share between threads.

    Args:
        models: by name, each with the arena of its images.
        predict_timeout_s: limit of a call, after which the process is ended; a model may have its own limit.
        load_timeout_s: limit of loading and warming up.
    """

    def __init__(
        self,
        models: Mapping[str, tuple[ModelSpec, SlotArena]],
        *,
        max_batch_size: int,
        predict_timeout_s: float,
        load_timeout_s: float,
        gpu: GpuSettings | None = None,
    ) -> None:
        self._models = models
        self._gpu = gpu or GpuSettings()
        #: by name, the version that the process loads
        self.references: Mapping[str, ModelRef] = {name: reference(spec) for name, (spec, _) in models.items()}
        self._max_batch_size = max_batch_size
        self._predict_timeout_s = predict_timeout_s
        self._own_timeouts_s = {name: spec.predict_timeout_s for name, (spec, _) in models.items()}
        self._load_timeout_s = load_timeout_s
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: Connection | None = None
        self._loaded: Mapping[str, Loaded] = {}

    @property
    def loaded(self) -> Mapping[str, Loaded]:
        """Models that are warm, by name; empty while the process is down."""
        return self._loaded

    @property
    def is_running(self) -> bool:
        """Whether the process was started and has not ended since."""
        return self._connection is not None and self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    def start(self, should_stop: Callable[[], bool]) -> bool:
        """Start the process and wait until its models are warm; False if `should_stop` returned True first.

        A running process is not started again: another model's batcher may have started it.

        Raises:
            ConfigurationError: a model cannot be loaded, or the process cannot start or died while loading.
        """
        with self._lock:
            if self.is_running:
                return True
            is_restart = self._process is not None
            self._end()
            try:
                answer = self._wait_until_loaded(self._spawn(), should_stop)
            except BaseException as error:
                self._end()  # otherwise it would count as running
                if isinstance(error, OSError):
                    summary = "cannot start the predictor process"
                    raise ConfigurationError(f"{summary}: {error.strerror or error}", public=summary) from error
                raise
            if not isinstance(answer, Ready):
                self._end()
            if isinstance(answer, Failed):
                summary = "the model cannot be loaded"
                raise ConfigurationError(f"{summary}: {answer.message}", public=f"{summary}: {answer.public or answer.message}")
            if answer is not None and is_restart:
                predictor_restarts.inc()
            self._loaded = {model.model: model for model in answer.models} if answer else {}
            return answer is not None

    def predict(self, model: str, slots: Sequence[int]) -> BatchPredictions:
        """Predict the images in `slots` of the model's arena.

        Raises:
            PredictionFailed: the model raised, or did not return one prediction for each image.
            PredictorCrashed: the process died or exceeded its time limit.
            PredictorNotRunning: the process was down already.
        """
        with self._lock:
            connection = self._connection
            if connection is None:
                raise PredictorNotRunning("the predictor process is not running")
            timeout_s = self._own_timeouts_s.get(model) or self._predict_timeout_s
            try:
                return self._call(connection, Predict(model, tuple(slots)), timeout_s)
            except TimeoutError as error:  # a subclass of OSError
                self._end()
                raise PredictorCrashed(f"the predictor process hung for {timeout_s:g} s") from error
            except (EOFError, OSError) as error:
                self._end()
                raise PredictorCrashed(f"the predictor process died: {self._exit_text()}") from error

    def stop(self) -> None:
        """End the process; a running call raises PredictorCrashed."""
        process = self._process
        if process is not None:
            process.kill()  # without the lock, which a hanging call holds
        with self._lock:
            self._end()

    def retire(self) -> None:
        """End the process after the running call has its answer; later calls raise PredictorNotRunning."""
        with self._lock:
            self._end()

    def _call(self, connection: Connection, call: Predict, timeout_s: float) -> BatchPredictions:
        connection.send(call)
        _wait_for_answer(connection, timeout_s)
        answer: Predicted | Failed = connection.recv()
        if isinstance(answer, Failed):
            public = f"the model raised {answer.public or answer.message}"
            raise PredictionFailed(f"the model raised {answer.message}", public=public)
        _wait_for_answer(connection, timeout_s)
        values = np.frombuffer(connection.recv_bytes(), "<f4")
        if values.size == 0 or values.size % len(call.slots):
            raise PredictionFailed(f"the model returned {values.size} values for {len(call.slots)} images")
        values = values.reshape(len(call.slots), -1)
        step = self._loaded[call.model].output_step
        return BatchPredictions(values, answer.predict_ms, self.references[call.model], step, answer.custom)

    def _spawn(self) -> Connection:
        own_end, process_end = socket.socketpair()
        connection: Connection[Any, Any] = Connection(own_end.detach())
        self._connection = connection
        with process_end:
            locks = self._gpu_locks()
            arenas = [arena for _, arena in self._models.values()]
            shared = [arena.descriptor for arena in arenas] + [lock.descriptor for lock in locks.values()]
            descriptors = (process_end.fileno(), *shared)
            self._process = subprocess.Popen(  # noqa: S603 our own module
                [sys.executable, "-m", _MODULE, str(process_end.fileno())],
                pass_fds=descriptors,
                stdin=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                env=predictor_environment(os.environ),
            )
        if self._process.stderr is not None:
            pass_on(self._process.stderr)
        loads = (LoadModel(spec, arena.descriptor, arena.slots) for spec, arena in self._models.values())
        connection.send(Load(tuple(loads), self._max_batch_size, self._gpu, locks, current_log_setup()))
        return connection

    def _gpu_locks(self) -> dict[int, GpuLock]:
        indices = {gpu_index(spec.device) for spec, _ in self._models.values()} if host_has_gpu() else set()
        return {index: gpu_lock(index, self._gpu.lock_dir) for index in indices if index is not None}

    def _wait_until_loaded(self, connection: Connection, should_stop: Callable[[], bool]) -> Ready | Failed | None:
        deadline = time.monotonic() + self._load_timeout_s
        while True:
            while not connection.poll(_POLL_INTERVAL_S):
                if should_stop():
                    return None
                if time.monotonic() > deadline:
                    return Failed(f"loading took more than {self._load_timeout_s:g} s")
            try:
                answer: Progress | Ready | Failed = connection.recv()
            except (EOFError, OSError):
                self._end()
                return Failed(f"the predictor process ended: {self._exit_text()}")
            if not isinstance(answer, Progress):
                return answer
            logger.info(answer.message)

    def _end(self) -> None:
        self._loaded = {}
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
        if self._process is not None:
            self._process.wait()

    def _exit_text(self) -> str:
        code = self._process.returncode if self._process else None
        return f"signal {-code}" if code is not None and code < 0 else f"exit code {code}"


def _wait_for_answer(connection: Connection, timeout_s: float) -> None:
    if not connection.poll(timeout_s):
        raise TimeoutError
