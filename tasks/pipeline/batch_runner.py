"""Third stage: run batches on the predictor, and handle batches that fail."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

from inference.domain import Outcome, TaskStatus
from inference.errors import (
    ConfigurationError,
    DeadlineExceeded,
    InferenceError,
    PredictionFailed,
    TaskAlreadyFinished,
    TaskNotFound,
)
from inference.lifecycle.task_log import ExpiryLog, some_of
from inference.models.answers import AnswerBuilder
from inference.models.predictor.arena import SlotArena
from inference.models.predictor.client import BatchPredictions, Predictor, PredictorCrashed, PredictorNotRunning
from inference.models.predictor.protocol import CustomResult, Failed
from inference.models.probabilities import described
from inference.runtime.log_context import log_context
from inference.runtime.loop_watch import TURN_LIMIT_S
from tasks.pipeline.batcher import Batcher
from tasks.pipeline.commit import Committer, Finished
from tasks.pipeline.context import StageContext
from tasks.pipeline.fetch import Fetcher
from tasks.pipeline.jobs import Ending, ItemEnd, Job
from tasks.pipeline.stage import RETRY_INTERVAL_S, Stage
from tasks.pipeline.tracing import BatchSpan

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class BatchPolicy:
    max_batch_size: int
    max_batch_wait_ms: float = 0.0
    max_attempts: int = 3


class BatchRunner(Stage):
    """Runs batches without idle time: a predictor that is free runs the ready images at once.

    Args:
        committer: gets the outcomes; if a next batch is ready, they are committed in the round trip that starts it.
        move_to_dead_letters: gets jobs that are out of attempts.
    """

    name = "batch"

    def __init__(
        self,
        context: StageContext,
        *,
        predictor: Predictor,
        arena: SlotArena,
        fetcher: Fetcher,
        policy: BatchPolicy,
        committer: Committer,
        move_to_dead_letters: Callable[[Job], None],
        turn_limit_s: float = TURN_LIMIT_S,
    ) -> None:
        super().__init__(turn_limit_s=turn_limit_s)
        self.ready = Batcher()
        self._spec = context.spec
        self._answers = AnswerBuilder(context.spec)
        self._predictor = predictor
        self._arena = arena
        self._fetcher = fetcher
        self._store = context.store
        self._holder = context.holder
        self._held = context.held
        self._policy = policy
        self._committer = committer
        self._move_to_dead_letters = move_to_dead_letters
        self._clock = context.clock
        self._times = context.times
        self._tracer = context.tracer
        self._instruments = context.instruments
        self._expired = ExpiryLog()
        #: jobs that have ended and are not committed yet
        self._finished: list[Finished] = []

    def step(self) -> None:
        self._expired.flush()
        jobs = self._take()
        if self.stopping.is_set():
            self._free(jobs)
            return
        jobs = self._times.in_time(jobs, len(jobs), end=self._expire)
        if not jobs:
            self._commit_rest()
            return
        if jobs[0].isolated:
            self._run_isolated(jobs[0])
        else:
            self._run_batch(jobs)

    def end(self) -> None:
        self._commit_rest()

    def fail(self, job: Job, error: InferenceError) -> None:
        """End a job with an error. The record gets the public text, the log gets the details."""
        status = TaskStatus.EXPIRED if isinstance(error, DeadlineExceeded) else TaskStatus.FAILED
        if status is TaskStatus.EXPIRED:
            self._expired.note(job.task_id, job.log_fields, error.detail)
        else:
            with log_context(**job.log_fields):
                level = logging.INFO if error.detail == error.public else logging.WARNING
                logger.log(level, "task %s failed: %s", job.task_id, error.detail)
        outcome = Outcome.of_error(status, error, timings=job.timings, worker=self._holder)
        self._committer.inbox.put(Finished(job, outcome))

    def _take(self) -> list[Job]:
        """Take the next batch. Outcomes do not wait for it: they are committed with its start if it is ready, else at once."""
        policy = self._policy
        if policy.max_batch_wait_ms:
            self._commit_rest()
        timeout_s = 0.0 if self._finished else 0.5
        return self.ready.take_batch(policy.max_batch_size, fill_wait_s=policy.max_batch_wait_ms / 1000, timeout_s=timeout_s)

    def _expire(self, job: Job, error: DeadlineExceeded) -> None:
        self._free([job])
        self.fail(job, error)

    def _commit_rest(self) -> None:
        finished, self._finished = self._finished, []
        self._committer.commit_at_once(finished)

    def _run_batch(self, jobs: list[Job]) -> None:
        started = self._start(jobs)
        if not started:
            return
        try:
            predictions = self._predict(started)
        except PredictorCrashed as crash:
            self._after_crash(started, crash)
        except PredictorNotRunning:
            self._run_later(started)
        except PredictionFailed as error:
            if len(started) == 1:
                self._free(started)
                self.fail(started[0], error)
                return
            with self._batch_context(started):
                logger.warning("a batch of %d failed (%s); its images run one by one", len(started), error)
            for job in started:
                self._run_batch([job])
        else:
            self._finish_batch(started, predictions)

    def _run_isolated(self, job: Job) -> None:
        """Run one job, its attempt counted before the image is read: if the process dies, this job is the cause."""
        started = self._start([job])
        if not started:
            return
        try:
            if not self._fetcher.load(job, self, self._arena.reserved_slot):
                return
            predictions = self._predict(started)
        except PredictorCrashed as crash:
            self._after_crash(started, crash)
        except PredictorNotRunning:
            self._run_later(started)
        except InferenceError as error:
            self._free(started)
            self.fail(job, error)
        else:
            self._finish_batch(started, predictions)

    def _start(self, jobs: Sequence[Job]) -> list[Job]:
        """Start the jobs and return the ones that may run; the others were canceled, expired or lost to another worker."""
        jobs = [job for job in jobs if not self._revoked(job)]
        task_ids = [job.task_id for job in jobs]
        finished, self._finished = self._finished, []
        attempts = self.until_available(
            lambda: self._committer.commit_and_start(finished, task_ids), give_up=self.stopping.is_set
        )
        if attempts is None:
            self._committer.commit_later(finished)
        started: list[Job] = []
        for job, attempt in zip(jobs, attempts or [], strict=attempts is not None):
            if attempt is None:
                self._instruments.leases_lost.inc()
                self._free([job])
                self._held.drop(job, ItemEnd(Ending.DROPPED))
                continue
            job.attempt = attempt
            job.report_start()
            started.append(job)
        self._instruments.attempts.inc(len(started))
        return started

    def _revoked(self, job: Job) -> bool:
        """Cancel a job if Celery's remote control revoked every message of it; return whether it did."""
        if not all(delivery.is_revoked(job.task_id) for delivery in job.deliveries):
            return False
        with contextlib.suppress(TaskAlreadyFinished, TaskNotFound):
            if self.until_available(lambda: self._store.cancel(job.task_id), give_up=self.stopping.is_set):
                self._instruments.canceled.inc()
        self._free([job])
        self._held.drop(job, ItemEnd(Ending.DROPPED))
        return True

    def _predict(self, jobs: Sequence[Job]) -> BatchPredictions:
        self.watch.turn()
        now = time.monotonic()
        for job in jobs:
            job.timings["batch_wait_ms"] = (now - job.ready_at) * 1000
        slots = [job.slot for job in jobs if job.slot is not None]
        with nullcontext() if self._tracer is None else BatchSpan(self._tracer, self._spec.queue, jobs):
            predictions = self._predictor.predict(self._spec.name, slots)
        self._instruments.batch_size.observe(len(jobs))
        self._instruments.predict_duration.observe(predictions.predict_ms / 1000)
        self._times.note(predictions.model, len(jobs), predictions.predict_ms / 1000)
        if len(predictions.values) != len(jobs):
            raise PredictionFailed(f"the model returned {len(predictions.values)} predictions for a batch of {len(jobs)}")
        return predictions

    def _finish_batch(self, jobs: Sequence[Job], predictions: BatchPredictions) -> None:
        self._free(jobs)
        predicted_at_ms = self._clock.now_ms()
        good = self._answers.are_good(predictions.values, predictions.step)
        customs: Sequence[CustomResult] = predictions.custom or (None,) * len(jobs)
        for job, vector, is_good, custom in zip(jobs, predictions.values, good, customs, strict=True):
            job.timings["predict_ms"] = predictions.predict_ms
            if isinstance(custom, Failed):
                self.fail(job, PredictionFailed(custom.message, public=custom.public or custom.message))
                continue
            if not is_good:
                self.fail(
                    job, PredictionFailed(f"the model's answer is not what its description says: it has {described(vector)}")
                )
                continue
            outcome = Outcome(
                TaskStatus.SUCCEEDED,
                result=self._answers.build(vector, job.item.top_k, custom),
                model=predictions.model,
                batch_size=len(jobs),
                timings=job.timings,
                worker=self._holder,
                predicted_at_ms=predicted_at_ms,
            )
            self._finished.append(Finished(job, outcome))

    def _run_later(self, jobs: Sequence[Job]) -> None:
        """Queue jobs again that the process, which was down, never received: this counts as no crash."""
        for job in jobs:
            if job.isolated:
                self._free([job])
        self.ready.put(jobs)
        self._restart()

    def _after_crash(self, jobs: Sequence[Job], crash: PredictorCrashed) -> None:
        """Count the crash, queue each job to run isolated or make it a dead letter, and start a new process."""
        task_ids = [job.task_id for job in jobs]
        with self._batch_context(jobs):
            logger.error("%s, with a batch of %d, which run one by one: %s", crash, len(jobs), some_of(task_ids))
        self._free(jobs)
        deaths = self.until_available(lambda: self._store.note_death(self._holder, task_ids), give_up=self.stopping.is_set)
        for job, count in zip(jobs, deaths or [], strict=False):
            if count is None:
                self._held.drop(job, ItemEnd(Ending.DROPPED))
            elif count >= self._policy.max_attempts:
                self._move_to_dead_letters(job)
            else:
                job.isolated = True
                job.report_retry(str(crash))
                self.ready.put([job])
        self._restart()

    def _restart(self) -> None:
        while not self.stopping.is_set():
            self.watch.turn()
            try:
                self._predictor.start(self.stopping.is_set)
            except ConfigurationError as error:
                logger.critical("the predictor process does not start again: %s", error)
                self.stopping.wait(RETRY_INTERVAL_S * 4)
            else:
                logger.info("the predictor process has started again")
                return

    def _batch_context(self, jobs: Sequence[Job]) -> AbstractContextManager[None]:
        """Add the fields that the jobs of a batch share to the log lines of the block."""
        shared = [name for name, value in jobs[0].log_fields.items() if all(job.log_fields[name] == value for job in jobs)]
        return log_context(**{name: jobs[0].log_fields[name] for name in shared})

    def _free(self, jobs: Sequence[Job]) -> None:
        for job in jobs:
            if job.slot is not None:
                self._arena.release(job.slot)
                job.slot = None
