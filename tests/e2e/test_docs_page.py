"""/docs in a real Chromium: it shows every operation, sends a request, and asks no other host for anything."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import requests
from playwright.sync_api import Browser, Page, expect
from support.api_process import ApiProcess
from support.browser import browser
from support.contract import operations
from support.service import Service

pytestmark = pytest.mark.process


@pytest.fixture(scope="module")
def chromium(repository: Path) -> Iterator[Browser]:
    with browser(repository) as running:
        yield running


class Visit:
    """A page that is open, the hosts that it asked, and what its console says."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.asked: list[str] = []
        self.console: list[str] = []
        page.on("request", lambda request: self.asked.append(request.url))
        page.on("console", lambda message: self.console.append(message.text))
        page.on("pageerror", lambda error: self.console.append(str(error)))

    def open(self, url: str) -> None:
        self.page.goto(url)
        expect(self.page.locator(".opblock")).to_have_count(len(operations()))

    @property
    def hosts(self) -> set[str]:
        return {urlsplit(url).netloc for url in self.asked if not url.startswith("data:")}


@pytest.fixture
def visit(chromium: Browser) -> Iterator[Visit]:
    context = chromium.new_context()
    yield Visit(context.new_page())
    context.close()


def test_a_request_from_the_page(visit: Visit, service: Service, repository: Path) -> None:
    visit.open(f"{service.url}/docs")
    block = visit.page.locator("#operations-predictions-predict")
    block.locator(".opblock-summary-control").click()
    block.get_by_role("button", name="Try it out").click()
    block.locator("input[type=file]").set_input_files(repository / "samples/chelsea.jpg")
    block.get_by_role("button", name="Execute").click()

    answer = block.locator(".live-responses-table")
    expect(answer.locator("td.response-col_status").first).to_contain_text("200", timeout=30_000)
    expect(answer).to_contain_text('"label": "tabby"')
    assert visit.hosts == {f"127.0.0.1:{service.port}"}
    assert visit.console == []
