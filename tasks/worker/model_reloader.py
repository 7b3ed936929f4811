"""Reload of models after commands: the new model is loaded in a second process, which takes over between two batches.

proposal ──▶ load it in a second process, warm it up, report ──▶ committed: the second process serves, the first one ends
                                                           └──▶ withdrawn: the second process ends, nothing has changed
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import PurePath

from inference.domain import ModelRef
from inference.errors import ConfigurationError, InferenceError, InvalidModel, ServiceUnavailable
from inference.models.files import ModelFiles
from inference.models.predictor.versioned_predictor import Process, VersionedPredictor
from inference.models.registry import reference
from inference.models.spec import ModelSpec
from inference.rollout.desired_state import DesiredState, LoadReport, Proposal, RolloutStore
from inference.runtime.public_text import public_exception
from inference.settings.installation import COMMAND
from inference.task_store import RateChange
from tasks.pipeline.stage import RETRY_INTERVAL_S, Stage
from tasks.worker.queue_preparation import QueuePreparation, expected_change

logger = logging.getLogger(__name__)

#: Seconds between two reads of the desired state.
POLL_INTERVAL_S = 0.5
#: Seconds until models that could not be loaded are tried again.
_RELOAD_INTERVAL_S = 10.0
#: Limit of one step: it may fetch a model's files, and convert and load them.
_TURN_LIMIT_S = 3600.0

Specs = Mapping[str, ModelSpec]


@dataclass(frozen=True)
class _Candidate:
    """A second predictor process, and the models that it loads."""

    specs: Specs
    process: Process
    #: by queue, the change of its rate
    changes: Mapping[str, RateChange] = field(default_factory=dict)


class ModelReloader(Stage):
    """Keeps the predictor at the desired state.

    Args:
        specs: the worker's models as the configuration describes them, by name.
        make: returns a predictor process for these models, not started yet.
        preparation: announces a change to admission.
    """

    name = "models"

    def __init__(
        self,
        desired: RolloutStore,
        files: ModelFiles,
        predictor: VersionedPredictor,
        *,
        holder: str,
        specs: Specs,
        make: Callable[[Specs], Process],
        preparation: QueuePreparation,
    ) -> None:
        super().__init__(turn_limit_s=_TURN_LIMIT_S)
        self._desired = desired
        self._files = files
        self._predictor = predictor
        self._holder = holder
        self._configured = specs
        self._make = make
        self._preparation = preparation
        #: the desired state, as it was last read
        self.state = DesiredState()
        #: the models of the process that serves
        self._current = specs
        #: the last proposal that was answered, and the process that is warm for it
        self._answered = ""
        self._candidate: _Candidate | None = None
        self._reload_at = 0.0

    def start_predictor(self, should_stop: Callable[[], bool]) -> bool:
        """Start the predictor with the models of the desired state; return False if `should_stop` returned true before.

        Raises:
            ConfigurationError: a model cannot be loaded.
        """
        while (state := self._await_state(should_stop)) is not None:
            self.state = state
            if self._predictor.loaded and self._wanted(state) == self._predictor.references:
                return True
            if self._wanted(state) != self._predictor.references:
                self._current = self._resolve_or_end(state)
                self._predictor.switch_to(self._make(self._current))
            if not self._predictor.start(should_stop):
                return False
        return False

    def step(self) -> None:
        try:
            self._reconcile(*self._desired.read_with_proposal())
        except ServiceUnavailable as error:
            logger.warning("cannot read the desired state of the models: %s", error)
        except Exception:
            logger.exception("cannot reload the models; they stay as they are")
            self.stopping.wait(_RELOAD_INTERVAL_S)
        self.stopping.wait(POLL_INTERVAL_S)

    def end(self) -> None:
        self._end_candidate()

    def _reconcile(self, state: DesiredState, proposal: Proposal | None) -> None:
        self.state = state
        self._announce_candidate()
        if self._wanted(state) != self._predictor.references and time.monotonic() >= self._reload_at:
            self._switch(state)
        if self._candidate and (proposal is None or proposal.change_id != self._answered):
            logger.info("the change was withdrawn; the models stay as they are")
            self._end_candidate()
        if proposal is not None and proposal.change_id != self._answered and proposal.model in self._configured:
            self._prepare(proposal)

    def _switch(self, state: DesiredState) -> None:
        """Serve the desired models; if they cannot be loaded, keep the process that serves and try again later."""
        try:
            candidate = self._candidate_for(state)
            if not candidate.process.start(self.stopping.is_set):
                return
        except (InferenceError, OSError) as error:
            logger.critical("%s; this worker keeps its old models and tries again", error)
            self._end_candidate()
            self._reload_at = time.monotonic() + _RELOAD_INTERVAL_S
            return
        self._current, self._candidate = candidate.specs, None
        models = candidate.process.references.values()
        logger.info("switching to %s", ", ".join(f"{model.name} {model.version}" for model in models))
        self._predictor.switch_to(candidate.process)

    def _candidate_for(self, state: DesiredState) -> _Candidate:
        """Return the process that is warm for the desired models; a new one if this worker missed the proposal.

        Raises InferenceError.
        """
        if self._candidate and self._candidate.process.references == self._wanted(state):
            return self._candidate
        self._end_candidate()
        specs = self._resolve(state)
        return _Candidate(specs, self._make(specs))

    def _announce_candidate(self) -> None:
        for queue, change in self._candidate.changes.items() if self._candidate else ():
            self._preparation.announce(queue, change)

    def _end_candidate(self) -> None:
        if self._candidate:
            self._candidate.process.retire()
            self._candidate = None

    def _prepare(self, proposal: Proposal) -> None:
        """Load the proposed model in a second process, and report the result."""
        began = time.monotonic()
        try:
            model = self._load(proposal)
        except Exception as error:  # noqa: BLE001 files of any content must not end the worker
            refusal = _refusal(error)
            logger.warning("%s stays as it is, without %s: %s", proposal.model, proposal.files, refusal.detail)
            report = LoadReport(self._holder, error=refusal.to_dict())
        else:
            if model is None:  # the proposal was withdrawn meanwhile
                return
            report = LoadReport(self._holder, model, load_s=round(time.monotonic() - began, 3))
        self._answered = proposal.change_id
        self.until_available(lambda: self._desired.report(proposal.change_id, report), give_up=self.stopping.is_set)

    def _load(self, proposal: Proposal) -> ModelRef | None:
        spec = self._configured[proposal.model]
        if proposal.files is not None:
            spec = self._files.with_files(spec, **asdict(proposal.files))
        model = reference(spec)
        if model == self._predictor.references[proposal.model]:
            return model
        specs = {**self._current, proposal.model: spec}
        process = self._make(specs)
        logger.info("loading %s %s in a second process", model.name, model.version)
        try:
            is_started = process.start(lambda: self._gives_up(proposal))
        except ConfigurationError as error:
            error.public = _by_name(error.public, specs)
            raise
        if not is_started:
            return None
        now, coming = self._predictor.loaded.get(spec.name), process.loaded.get(spec.name)
        change = expected_change(model, now, coming, self._predictor.slowdown(spec.name))
        self._candidate = _Candidate(specs, process, {spec.queue: change})
        self._preparation.await_short_queue(spec.queue, change, give_up=lambda: self._gives_up(proposal))
        return model

    def _gives_up(self, proposal: Proposal) -> bool:
        self.watch.turn()
        return self.stopping.is_set() or not self._is_open(proposal)

    def _is_open(self, proposal: Proposal) -> bool:
        try:
            _, current = self._desired.read_with_proposal()
        except ServiceUnavailable:
            return True
        return current is not None and current.change_id == proposal.change_id

    def _await_state(self, should_stop: Callable[[], bool]) -> DesiredState | None:
        """Wait for the store and return the desired state; None if `should_stop` returned true before."""
        while not should_stop():
            try:
                return self._desired.read()
            except ServiceUnavailable as error:
                logger.info("waiting for the task store: %s", error)
                time.sleep(RETRY_INTERVAL_S)
        return None

    def _wanted(self, state: DesiredState) -> dict[str, ModelRef]:
        return {name: state.reference(spec) for name, spec in self._configured.items()}

    def _resolve(self, state: DesiredState) -> Specs:
        """Return every model with its desired files. Raises InferenceError."""
        specs = dict(self._configured)
        for name in state.models.keys() & specs.keys():
            changed = state.models[name]
            spec = self._files.with_files(specs[name], **asdict(changed.files))
            if spec.digest != changed.model.digest:
                raise ConfigurationError(
                    f"{name}: {changed.files.weights_file} has changed since a command loaded it: "
                    f"the digest is {spec.digest}, and was {changed.model.digest}"
                )
            specs[name] = spec.model_copy(update={"version": changed.model.version})
        return specs

    def _resolve_or_end(self, state: DesiredState) -> Specs:
        try:
            return self._resolve(state)
        except InferenceError as error:
            raise ConfigurationError(
                f"{error.detail}; a command chose these files: put them back, or return to the models of the configuration with "
                f"`{COMMAND} reset-models`"
            ) from error


def _by_name(text: str, specs: Specs) -> str:
    """Replace the locations of model files in `text` by their names: clients must not see the locations."""
    for file in (file for spec in specs.values() for file in spec.local_files.values()):
        text = text.replace(file.location, PurePath(file.location).name)
    return text


def _refusal(error: Exception) -> InferenceError:
    match error:
        case ConfigurationError():
            return InvalidModel(error.detail, public=error.public, field=error.field)
        case InferenceError():
            return error
    return InvalidModel(f"{type(error).__name__}: {error}", public=public_exception(error))
