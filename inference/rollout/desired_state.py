"""Desired state in Redis, for every process: models' files, the default model and the ensemble mode that commands have set.

    propose ──▶ each worker loads it in a second process and reports ──▶ commit: the new desired state
                                                                   └──▶ withdraw, or the proposal expires: nothing changes

Only one proposal is open at a time. Every change of the desired state is one atomic step.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import orjson
import redis

from inference.domain import ModelRef
from inference.errors import ChangeInProgress
from inference.models.registry import reference
from inference.models.spec import ModelSpec
from inference.runtime.documents import known_members
from inference.runtime.redis import unavailable_when_down

#: Life of a proposal without `keep_alive`, seconds: the death of the API process blocks later proposals no longer than this.
PROPOSAL_TTL_S = 10.0
_REPORTS_TTL_S = 3600

_SERVED, _ENSEMBLE, _MODEL = "served", "ensemble", "model:"


@dataclass(frozen=True)
class NewFiles:
    """Places of a model's new files that a command names: a path on the worker's host, or ``s3://BUCKET/KEY``."""

    weights_file: str
    #: None: the model keeps its architecture
    architecture_file: str | None = None


@dataclass(frozen=True)
class ChangedModel:
    """Files of a model that differ from the configuration's, and the version that they are."""

    files: NewFiles
    model: ModelRef


@dataclass(frozen=True)
class DesiredState:
    """Differences from the configuration; without a command there are none."""

    served: str | None = None
    ensemble: bool | None = None
    models: Mapping[str, ChangedModel] = field(default_factory=dict)

    def reference(self, spec: ModelSpec) -> ModelRef:
        """Return the version of this model that is served."""
        changed = self.models.get(spec.name)
        return changed.model if changed else reference(spec)


@dataclass(frozen=True)
class Proposal:
    """Change of one model's files, which takes effect once every worker has loaded them."""

    change_id: str
    model: str
    #: None: the files of the configuration
    files: NewFiles | None
    #: whether it becomes the default model too
    serve: bool = False


@dataclass(frozen=True)
class LoadReport:
    """Result of one worker that loaded a proposal's model, or failed to."""

    worker: str
    #: the version that is loaded now; None after an error
    model: ModelRef | None = None
    #: `InferenceError.to_dict()` after an error
    error: dict[str, Any] | None = None
    #: duration of the load, seconds
    load_s: float = 0.0


class RolloutStore:
    """The desired state and the proposal on a Redis server. Every method raises ServiceUnavailable."""

    def __init__(self, client: redis.Redis, key_prefix: str) -> None:
        self._redis = client
        self._prefix = key_prefix
        self._change = client.register_script(_CHANGE)
        self._extend = client.register_script(_EXTEND)

    def read(self) -> DesiredState:
        return self.read_with_proposal()[0]

    def read_with_proposal(self) -> tuple[DesiredState, Proposal | None]:
        """Read the state and the open proposal, consistently at one moment."""
        with unavailable_when_down(), self._redis.pipeline(transaction=True) as pipe:
            pipe.hgetall(f"{self._prefix}:desired")
            pipe.get(f"{self._prefix}:proposal")
            fields, proposal = pipe.execute()
        return _state(fields), _proposal(proposal) if proposal else None

    def propose(self, proposal: Proposal) -> None:
        """Open a proposal; call `keep_alive` from now on. Raises ChangeInProgress."""
        with unavailable_when_down():
            opened = self._redis.set(
                f"{self._prefix}:proposal", orjson.dumps(asdict(proposal)), nx=True, px=round(PROPOSAL_TTL_S * 1000)
            )
        if not opened and not self.keep_alive(proposal.change_id):  # it is open if the answer to a first call was lost
            raise ChangeInProgress("another command changes a model at the moment", retry_after_s=PROPOSAL_TTL_S)

    def keep_alive(self, change_id: str) -> bool:
        """Keep the proposal open for another `PROPOSAL_TTL_S`; False if it is no longer open."""
        return self._extend_for(change_id, round(PROPOSAL_TTL_S * 1000))

    def withdraw(self, change_id: str) -> None:
        self._extend_for(change_id, 0)

    def report(self, change_id: str, report: LoadReport) -> None:
        key = self._reports_key(change_id)
        with unavailable_when_down(), self._redis.pipeline(transaction=True) as pipe:
            pipe.hset(key, report.worker, orjson.dumps(asdict(report)).decode())
            pipe.expire(key, _REPORTS_TTL_S)
            pipe.execute()

    def reports(self, change_id: str) -> dict[str, LoadReport]:
        """Return the reports so far, by worker."""
        with unavailable_when_down():
            found: Any = self._redis.hgetall(self._reports_key(change_id))
        return {worker.decode(): _report(orjson.loads(report)) for worker, report in found.items()}

    def commit(self, proposal: Proposal, model: ModelRef) -> bool:
        """Make the proposal the desired state; False if it is no longer open. The call may be repeated: it takes effect once."""
        changed = ChangedModel(proposal.files, model) if proposal.files else None
        fields = {_MODEL + proposal.model: orjson.dumps(asdict(changed)).decode() if changed else ""}
        if proposal.serve:
            fields[_SERVED] = proposal.model
        return self._write(fields, change_id=proposal.change_id)

    def serve(self, model: str) -> None:
        """Make `model` the default model."""
        self._write({_SERVED: model})

    def set_ensemble(self, ensemble: bool) -> None:
        """Send the results of tasks accepted from now on to Kafka, or to MongoDB."""
        self._write({_ENSEMBLE: str(int(ensemble))})

    def reset(self) -> None:
        """Remove all changes of commands: the configuration applies again."""
        state = self.read()
        self._write(dict.fromkeys((_SERVED, _ENSEMBLE, *(_MODEL + name for name in state.models)), ""))

    def _write(self, fields: Mapping[str, str], *, change_id: str = "") -> bool:
        arguments = [change_id, *(part for pair in fields.items() for part in pair)]
        with unavailable_when_down():
            return bool(self._change(keys=[self._prefix], args=arguments))

    def _extend_for(self, change_id: str, ttl_ms: int) -> bool:
        with unavailable_when_down():
            return bool(self._extend(keys=[self._prefix], args=[change_id, ttl_ms]))

    def _reports_key(self, change_id: str) -> str:
        return f"{self._prefix}:proposal:{change_id}"


_IS_OPEN = """
local function is_open(change_id)
  local proposal = redis.call('GET', KEYS[1] .. ':proposal')
  return proposal and cjson.decode(proposal).change_id == change_id
end
"""

#: Arguments: change id (empty: the change needs no proposal), then pairs of field and value (empty: as configured).
_CHANGE = f"""{_IS_OPEN}
local desired = KEYS[1] .. ':desired'
if ARGV[1] ~= '' then
  if redis.call('HGET', desired, 'committed') == ARGV[1] then return 1 end
  if not is_open(ARGV[1]) then return 0 end
  redis.call('HSET', desired, 'committed', ARGV[1])
  redis.call('DEL', KEYS[1] .. ':proposal')
end
for i = 2, #ARGV, 2 do
  if ARGV[i + 1] == '' then
    redis.call('HDEL', desired, ARGV[i])
  else
    redis.call('HSET', desired, ARGV[i], ARGV[i + 1])
  end
end
return 1
"""

#: Arguments: change id, milliseconds for which it stays open from now on.
_EXTEND = f"""{_IS_OPEN}
if not is_open(ARGV[1]) then return 0 end
redis.call('PEXPIRE', KEYS[1] .. ':proposal', ARGV[2])
return 1
"""


def _state(fields: Mapping[bytes, bytes]) -> DesiredState:
    texts = {name.decode(): value.decode() for name, value in fields.items()}
    ensemble = texts.get(_ENSEMBLE)
    return DesiredState(
        served=texts.get(_SERVED),
        ensemble=None if ensemble is None else ensemble == "1",
        models={name.removeprefix(_MODEL): _changed(value) for name, value in texts.items() if name.startswith(_MODEL)},
    )


def _changed(text: str) -> ChangedModel:
    document = orjson.loads(text)
    return ChangedModel(_files(document["files"]), _reference(document["model"]))


def _proposal(data: bytes) -> Proposal:
    document = orjson.loads(data)
    members = known_members(Proposal, document)
    return Proposal(**members | {"files": _files(document["files"]) if document["files"] else None})


def _report(document: dict[str, Any]) -> LoadReport:
    members = known_members(LoadReport, document)
    return LoadReport(**members | {"model": _reference(document["model"]) if document["model"] else None})


def _files(document: Mapping[str, Any]) -> NewFiles:
    return NewFiles(**known_members(NewFiles, document))


def _reference(document: Mapping[str, Any]) -> ModelRef:
    return ModelRef(**known_members(ModelRef, document))
