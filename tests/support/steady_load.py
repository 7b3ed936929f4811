"""Requests that come in all the time, while a test does something to the service; and their results."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterable
from typing import Any, Self

import requests
from support.client import Client, wait_until
from support.digits import METADATA
from support.unsupervised import IMAGE

_INTERVAL_S = 0.05


class SteadyLoad:
    """Asynchronous requests, each to one of the APIs of a list, which may change meanwhile.

    The APIs are chosen at random: waiting workers are served in turns, and would otherwise meet the messages of one API each.
    """

    def __init__(self, *apis: Client) -> None:
        self.apis = list(apis)
        #: ids of the tasks whose acceptance was answered
        self.accepted: list[str] = []
        #: answers with an error
        self.refused: list[str] = []
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._send)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join(60)

    def wait_more(self, count: int) -> None:
        """Wait until so many more are accepted."""
        wanted = len(self.accepted) + count
        wait_until(lambda: len(self.accepted) >= wanted, timeout_s=60, what="more requests are accepted")

    def _send(self) -> None:
        choose = random.Random(0).choice  # noqa: S311 no secret
        while not self._stopping.wait(_INTERVAL_S):
            try:
                answer = choose(self.apis).post(IMAGE, metadata=METADATA, mode="async")
            except requests.ConnectionError:
                continue  # the API was stopped: nothing is accepted
            if answer.status_code == requests.codes.accepted:
                self.accepted.append(answer.json()["task_id"])
            else:
                self.refused.append(answer.text)


def wait_delivered(api: Client, task_ids: Iterable[str]) -> list[dict[str, Any]]:
    """Wait until every task has succeeded, and its sink has the result; return the tasks."""
    tasks = []
    for task_id in task_ids:

        def delivered(task_id: str = task_id) -> dict[str, Any] | None:
            task = api.task(task_id)
            is_done = task["status"] == "succeeded" and task["deliveries"][0]["status"] == "delivered"
            return task if is_done else None

        tasks.append(wait_until(delivered, timeout_s=90, what="a task has ended and is delivered"))
    return tasks
