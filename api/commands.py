"""Commands: every worker applies the change, or nothing changes."""

from __future__ import annotations

import contextlib
import logging
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, TypeVar

from api.forms.command import ChangeEnsembleMode, Command, LoadNewModel, LoadNewWeights, ReloadModel
from inference.domain import ModelRef
from inference.errors import InferenceError, InvalidModel, ModelNotFound, ServiceUnavailable, SinkNotConfigured
from inference.models.files import ModelFiles
from inference.models.spec import ModelSpec
from inference.rollout.desired_state import DesiredState, LoadReport, NewFiles, Proposal, RolloutStore
from inference.rollout.runtime_config import READING_AGE_S, ConfigSnapshot, RuntimeConfig
from inference.rollout.worker_registry import LoadedModelInfo, WorkerPresence
from inference.settings.schema import ensemble_sinks

logger = logging.getLogger(__name__)

#: Seconds between two readings of the workers' reports.
_POLL_INTERVAL_S = 0.2
#: Seconds that an answer waits for workers that have not switched, such as a worker that started during the command.
_SWITCH_TIMEOUT_S = 10.0
_NO_WORKER_RETRY_AFTER_S = 5.0
#: Seconds for which a change is repeated while the store does not answer, and between two tries.
_REPEAT_TIMEOUT_S, _REPEAT_INTERVAL_S = 10.0, 0.2

T = TypeVar("T")
_Answer = dict[str, Any]


class Commands:
    """Changes the desired state, and reports the result of each worker."""

    def __init__(
        self,
        configuration: RuntimeConfig,
        desired: RolloutStore,
        presence: WorkerPresence,
        files: ModelFiles,
        *,
        load_timeout_s: float,
    ) -> None:
        self._configuration = configuration
        self._desired = desired
        self._presence = presence
        self._files = files
        self._load_timeout_s = load_timeout_s

    def run(self, command: Command) -> _Answer:
        """Run the command; returns the answer.

        Raises:
            InferenceError: nothing has changed; `workers` has the reason of each worker.
        """
        self._configuration.refresh()
        match command:
            case ChangeEnsembleMode():
                self._change_ensemble_mode(command.ensemble_mode)
                answer: _Answer = {"workers": []}
            case LoadNewModel():
                answer = self._load_new_model(command.model_id)
            case ReloadModel():
                answer = self._reload_model(command.model)
            case LoadNewWeights():
                answer = self._load_new_weights(command)
        snapshot = self._snapshot_after(command)
        return answer | {
            "served_model": snapshot.default_name,
            "ensemble_mode": snapshot.ensemble_mode,
            "sinks": snapshot.sinks,
        }

    def _snapshot_after(self, command: Command) -> ConfigSnapshot:
        """Read the configuration again; if the store does not answer, return the last known one with the command's change."""
        try:
            self._configuration.refresh()
            return self._configuration.now()
        except ServiceUnavailable:
            last = self._configuration.last_known()
            return replace(last, state=_with_change(last.state, command))

    def _change_ensemble_mode(self, ensemble: bool) -> None:
        """Set the ensemble mode. Workers do nothing: a task's sinks are fixed when it is accepted."""
        settings = self._configuration.now().settings
        missing = set(ensemble_sinks(ensemble)) - set(settings.possible_sinks)
        if missing:
            raise SinkNotConfigured(
                f"no relay delivers to {', '.join(missing)} here",
                field="ensemble_mode",
                expected="a configuration with `ensemble: true` or `false`, or with `sinks: [kafka, mongodb]`",
            )
        _repeat_until_answered(lambda: self._desired.set_ensemble(ensemble))
        self._wait_until_in_effect()

    def _load_new_model(self, model_id: str) -> _Answer:
        spec = self._spec(model_id)
        if spec.name in self._configuration.now().state.models:  # back to its configured files
            return self._change(Proposal(uuid.uuid4().hex, spec.name, files=None, serve=True))
        loaded = self._require_workers(spec.name)
        _repeat_until_answered(lambda: self._desired.serve(spec.name))
        self._wait_until_in_effect()
        return _answer({worker: LoadReport(worker, _reference(model)) for worker, model in loaded.items()})

    def _reload_model(self, name: str) -> _Answer:
        spec = self._spec(name)
        if spec.name in self._configuration.now().state.models:  # back to its configured files
            return self._change(Proposal(uuid.uuid4().hex, spec.name, files=None))
        self._require_workers(spec.name)
        return {"workers": []}

    def _load_new_weights(self, command: LoadNewWeights) -> _Answer:
        spec = self._spec(command.model)
        locate = (lambda name: name) if command.local_file else self._files.in_bucket
        architecture = command.architecture_url
        files = NewFiles(locate(command.weights_url), locate(architecture) if architecture else None)
        return self._change(Proposal(uuid.uuid4().hex, spec.name, files))

    def _spec(self, name: str | None) -> ModelSpec:
        try:
            return self._configuration.now().model(name)
        except ModelNotFound as error:
            error.field = "model_id"
            raise

    def _change(self, proposal: Proposal) -> _Answer:
        """Have every worker with this model load the proposal; commit it when all of them are ready."""
        expected = set(self._require_workers(proposal.model))
        self._desired.propose(proposal)
        try:
            reports = self._await_reports(proposal, expected)
            model = self._commit(proposal, reports)
        except BaseException:
            with contextlib.suppress(ServiceUnavailable):
                self._desired.withdraw(proposal.change_id)
            raise
        self._wait_until_in_effect(model)
        return {"model": model.to_dict()} | _answer(reports)

    def _commit(self, proposal: Proposal, reports: Mapping[str, LoadReport]) -> ModelRef:
        models = {report.model for report in reports.values() if report.model is not None}
        if len(models) > 1:
            raise _rejection(proposal, InvalidModel("the files are not the same on every worker's host"), reports)
        (model,) = models
        if not _repeat_until_answered(lambda: self._desired.commit(proposal, model)):
            raise _rejection(proposal, ServiceUnavailable("the command took too long", retry_after_s=1), reports)
        return model

    def _require_workers(self, model: str) -> dict[str, LoadedModelInfo]:
        """The workers with this model, and their loaded versions of it. Raises ServiceUnavailable: there is no such worker."""
        workers = self._workers(model)
        if not workers:
            raise ServiceUnavailable(
                f"no worker has {model} loaded, so the change cannot be tried",
                expected=f"a running worker: celery -A tasks worker -Q predict.{model}",
                retry_after_s=_NO_WORKER_RETRY_AFTER_S,
            )
        return workers

    def _workers(self, model: str) -> dict[str, LoadedModelInfo]:
        return {worker.worker: loaded for worker in self._presence.workers() for loaded in worker.models if loaded.name == model}

    def _await_reports(self, proposal: Proposal, expected: set[str]) -> Mapping[str, LoadReport]:
        """Wait until every worker has loaded the proposal, including workers that start meanwhile.

        Raises:
            InferenceError: a worker could not load it, stopped, or took too long.
        """
        deadline = time.monotonic() + self._load_timeout_s
        while True:
            reports = self._desired.reports(proposal.change_id)
            live = self._workers(proposal.model).keys()
            expected = expected | live
            missing = expected - reports.keys()
            failed = next((InferenceError.from_dict(report.error) for report in reports.values() if report.error), None)
            if failed is not None:
                raise _rejection(proposal, failed, reports)
            if missing - live:
                gone = ", ".join(sorted(missing - live))
                raise _rejection(proposal, ServiceUnavailable(f"{gone} went away while it loaded", retry_after_s=1), reports)
            if not missing:
                return reports
            if time.monotonic() > deadline or not self._desired.keep_alive(proposal.change_id):
                late = ServiceUnavailable(f"{', '.join(sorted(missing))} did not load it in time", retry_after_s=1)
                raise _rejection(proposal, late, reports)
            time.sleep(_POLL_INTERVAL_S)

    def _wait_until_in_effect(self, model: ModelRef | None = None) -> None:
        """Wait until a change is in effect in every API process and worker, so that it holds for requests after the answer.

        Args:
            model: the version to which workers switch; None if the change does not concern them.
        """
        deadline = time.monotonic() + _SWITCH_TIMEOUT_S
        time.sleep(READING_AGE_S)
        while model and not self._has_switched(model):
            if time.monotonic() > deadline:
                logger.warning("not every worker has switched to %s %s yet", model.name, model.version)
                return
            time.sleep(_POLL_INTERVAL_S)

    def _has_switched(self, model: ModelRef) -> bool:
        """Whether every worker serves this version; False if the store does not answer."""
        try:
            return all(_reference(loaded) == model for loaded in self._workers(model.name).values())
        except ServiceUnavailable:
            return False


def _repeat_until_answered(change: Callable[[], T]) -> T:
    """Repeat an idempotent change while the store does not answer: only the answer may have been lost.

    Raises:
        ServiceUnavailable: the store refuses the change, or does not answer in time.
    """
    deadline = time.monotonic() + _REPEAT_TIMEOUT_S
    while True:
        try:
            return change()
        except ServiceUnavailable as error:
            if error.is_refusal or time.monotonic() > deadline:
                raise
        time.sleep(_REPEAT_INTERVAL_S)


def _with_change(state: DesiredState, command: Command) -> DesiredState:
    """Return the state with the served model and the ensemble mode that the command sets."""
    match command:
        case ChangeEnsembleMode():
            return replace(state, ensemble=command.ensemble_mode)
        case LoadNewModel():
            return replace(state, served=command.model_id)
        case LoadNewWeights() | ReloadModel():
            return state


def _reference(loaded: LoadedModelInfo) -> ModelRef:
    return ModelRef(loaded.name, loaded.version, loaded.digest)


def _answer(reports: Mapping[str, LoadReport]) -> _Answer:
    workers = [
        {"worker": worker, "status": "ready", "model": report.model.to_dict(), "load_s": report.load_s}
        for worker, report in sorted(reports.items())
        if report.model is not None
    ]
    return {"workers": workers}


def _rejection(proposal: Proposal, error: InferenceError, reports: Mapping[str, LoadReport]) -> InferenceError:
    """Complete `error` as the answer: the old model stays, with the result of each worker."""
    error.add_prefix(f"{proposal.model} stays as it is")
    error.workers = {
        worker: str(report.error["detail"]) if report.error else "it had loaded the new files, and continues with the old ones"
        for worker, report in reports.items()
    }
    return error
