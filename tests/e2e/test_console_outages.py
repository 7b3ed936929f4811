"""The console while parts of the service die and come back, and while a command changes a model."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import psutil
import pytest
from playwright.sync_api import Browser, expect
from support import browser
from support.client import wait_until
from support.console import Visit, picture, visit
from support.real_servers import NOBODY
from support.service import Service

pytestmark = pytest.mark.process

PATIENCE_MS = 90_000


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """The digits, whose results wait for a MongoDB that nobody runs; after 2 seconds new requests are refused."""
    folder = tmp_path_factory.mktemp("console")
    settings = {
        "models": ["models/digits"],
        "sinks": ["mongodb"],
        "mongodb": {"url": f"mongodb://{NOBODY}", "timeout_s": 1},
        "outbox": {"max_age_s": 2},
        "model_files": {"allowed_folders": [str(folder), "models"]},
    }
    shutil.copy("models/digits/digits.keras", folder / "copy.keras")
    running = Service(folder, settings)
    try:
        running.start()
        yield running
    finally:
        running.end()


@pytest.fixture
def visitor(chromium: Browser, service: Service) -> Iterator[Visit]:
    with visit(chromium, service.url) as opened:
        opened.page.set_default_timeout(PATIENCE_MS)
        yield opened


@pytest.fixture(autouse=True)
def patience() -> Iterator[None]:
    expect.set_options(timeout=PATIENCE_MS)
    yield
    expect.set_options(timeout=browser.PATIENCE_MS)


def submit_without_sinks(service: Service) -> str:
    return service.submit(picture("x.png")["buffer"], sinks="", deadline_s="300")


def kill_worker(service: Service) -> psutil.Process:
    """Kill the worker; returns the process that is started in its place."""
    (killed,) = service.processes("worker")
    killed.kill()

    def find_others() -> list[psutil.Process]:
        return [process for process in service.processes("worker") if process.pid != killed.pid]

    (started_again,) = wait_until(find_others, timeout_s=30, what="another worker process")
    return started_again


def test_a_worker_that_is_killed_in_the_middle(visitor: Visit, chromium: Browser, service: Service) -> None:
    page = visitor.page
    visitor.open("queue")
    expect(page.get_by_text("All is well.")).to_be_visible()
    service.suspend_predictor()
    task_id = submit_without_sinks(service)
    with visit(chromium, service.url) as other:
        other.open(f"tasks/{task_id}")
        expect(other.page.locator(".heading .status")).to_have_text("running")
        started_again = kill_worker(service)
        started_again.suspend()  # else it is up before the one that was killed is missed
        expect(page.get_by_text("No worker has digits loaded.")).to_be_visible()
        expect(page.get_by_text("No worker is up.")).to_be_visible()
        started_again.resume()
        expect(page.get_by_text("All is well.")).to_be_visible()
        expect(page.get_by_role("table", name="Workers")).to_contain_text("digits")
        expect(other.page.locator(".heading .status")).to_have_text("succeeded")
        expect(other.page.locator(".facts")).to_contain_text("Attempts2")
    assert visitor.console == []


def test_other_weights_are_loaded_after_files_that_are_not_there(visitor: Visit, service: Service) -> None:
    folder = service.config.parent
    page = visitor.page
    visitor.open("models")
    page.get_by_text("Load other weights").click()
    page.get_by_label("Weights").fill(str(folder / "missing.keras"))
    page.get_by_role("button", name="Load", exact=True).click()
    expect(page.get_by_role("alert")).to_contain_text("digits stays as it is", ignore_case=True)
    page.get_by_label("Weights").fill(str(folder / "copy.keras"))
    (worker,) = service.processes("worker")
    worker.suspend()  # else it may have loaded them before the page asks how far it is
    page.get_by_role("button", name="Load", exact=True).click()
    expect(page.get_by_role("cell", name="loading")).to_be_visible()
    worker.resume()
    expect(page.get_by_text("All workers run version")).to_be_visible()
    expect(page.get_by_role("cell", name="ready")).to_have_count(len(service.processes("worker")[:1]))
    expect(page.get_by_role("alert")).to_have_count(0)


def test_a_sink_that_is_down(visitor: Visit, service: Service) -> None:
    """The last test: no request is accepted after it."""
    assert service.post(picture("x.png")["buffer"]).ok
    page = visitor.page
    visitor.open("queue")
    expect(page.get_by_text("1 results wait for mongodb")).to_be_visible()
    expect(page.get_by_role("table", name="Sinks").get_by_role("row", name="mongodb")).to_contain_text("1")
    visitor.open()
    page.get_by_role("button", name="digit 7").click()
    problem = page.get_by_role("alert")
    expect(problem).to_contain_text("mongodb")
    expect(problem).to_contain_text("Try again in")
