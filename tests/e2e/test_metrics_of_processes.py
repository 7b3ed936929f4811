"""/metrics of an API with two processes: one answers for both, also after one has died."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from support.api_process import ApiProcess, get
from support.client import wait_until
from support.metrics import Metrics
from support.promtool import check_metrics

pytestmark = [pytest.mark.process, pytest.mark.skipif(sys.platform != "linux", reason="shared memory")]

#: Digits at the begin of the request ids that a process makes.
_PROCESS_DIGITS = 16
_LAST = b"Connection: close\r\n"


class Api(ApiProcess):
    """An API with two processes."""

    def __init__(self, folder: Path, redis_url: str) -> None:
        super().__init__(folder, redis_url, workers=2)
        #: requests to /health/live
        self.asked = 0

    @property
    def workers(self) -> dict[int, psutil.Process]:
        return {worker.pid: worker for worker in psutil.Process(self.process.pid).children()}

    def text(self) -> bytes:
        with self.connect() as connection:
            return connection.ask(get(_LAST, target=b"/metrics")).body

    def value(self, name: str, **labels: str) -> float:
        return Metrics(self.text().decode()).value(name, **labels)

    def answered(self) -> float:
        return self.value("http_requests_total", route="/health/live", method="GET", code="200")

    def ask(self) -> str:
        """Ask for /health/live; gives the name of the process that has answered."""
        with self.connect() as connection:
            self.asked += 1
            return connection.ask(get(_LAST)).headers["x-request-id"][:_PROCESS_DIGITS]

    def ask_until_all_have_answered(self, processes: int, *, known: set[str]) -> set[str]:
        """Ask until so many processes have answered, with those that are known."""
        names = set(known)

        def have_answered() -> bool:
            names.add(self.ask())
            return len(names) == processes

        wait_until(have_answered, timeout_s=60, what=f"{processes} processes have answered")
        return names

    def folders(self) -> list[Path]:
        """The folder with the values of its processes, while there is one."""
        return list(Path("/dev/shm").glob(f"inference-metrics-{self.process.pid}-*"))  # noqa: S108 where the API has it

    def files(self) -> set[str]:
        (folder,) = self.folders()
        return {file.name for file in folder.glob("*.db")}


@pytest.fixture
def api(tmp_path: Path, redis_url: str) -> Iterator[Api]:
    process = Api(tmp_path, redis_url)
    yield process
    process.end()


def test_one_process_answers_for_all(api: Api, repository: Path) -> None:
    api.wait()
    before = api.answered()

    names = api.ask_until_all_have_answered(2, known=set())
    assert api.answered() - before == api.asked
    assert api.value("processes") == 3

    victim, *_ = api.workers
    api.workers[victim].kill()
    wait_until(lambda: victim not in api.workers and len(api.workers) == 2, timeout_s=60, what="another process has begun")
    wait_until(lambda: f"counter_{victim}.db" not in api.files(), timeout_s=60, what="its counters are those of the API")
    assert api.answered() - before == api.asked
    api.ask_until_all_have_answered(3, known=names)
    assert api.answered() - before == api.asked
    assert api.value("http_request_duration_seconds_count", route="/health/live") == api.answered()
    assert not [name for name in api.files() if f"_{victim}." in name]
    wait_until(lambda: api.value("http_requests_in_flight") <= 1, timeout_s=60, what="only this request is in flight")
    check_metrics(repository, api.text())

    api.stop()
    assert api.folders() == []
