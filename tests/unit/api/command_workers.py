"""Workers that answer the proposals of commands."""

from __future__ import annotations

import threading
from collections.abc import Callable

import redis
from api_rig import services_of
from flask import Flask

from inference.domain import ModelRef
from inference.rollout.desired_state import DesiredState, LoadReport, Proposal
from inference.rollout.worker_registry import LoadedModelInfo, WorkerInfo

NEW = ModelRef("digits", "1+ab", "sha256:ab")


class Workers:
    """Live workers with the digits model, each answering proposals as it is told, and switching to what counts."""

    def __init__(self, app: Flask, client: redis.Redis) -> None:
        self._app = app
        self._redis = client
        self._prefix = services_of(app).settings.task_store.key_prefix
        #: by worker, its report of a proposal; None: nothing
        self.answers: dict[str, Callable[[str], LoadReport] | None] = {}
        self.seen: list[Proposal] = []
        self.switches = True
        self._served = DesiredState()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def add(self, name: str, answer: Callable[[str], LoadReport] | None) -> None:
        self.answers[name] = answer
        self._announce(name)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        if self._thread.ident is not None:
            self._thread.join(10)

    def _announce(self, name: str) -> None:
        model = self._served.reference(services_of(self._app).models.get("digits"))
        info = LoadedModelInfo(model.name, model.version, model.digest, 0.5)
        services_of(self._app).presence.announce(WorkerInfo(name, (info,)))

    def _run(self) -> None:
        desired = services_of(self._app).desired
        while not self._stopping.wait(0.01):
            state, proposal = desired.read_with_proposal()
            if self.switches and state != self._served:
                self._served = state
                for name in list(self.answers):
                    self._announce(name)
            if proposal is None or (self.seen and self.seen[-1] == proposal):
                continue
            self.seen.append(proposal)
            for name, answer in list(self.answers.items()):
                if answer is not None:
                    desired.report(proposal.change_id, answer(name))


def ready(worker: str) -> LoadReport:
    return LoadReport(worker, NEW, load_s=1.5)
