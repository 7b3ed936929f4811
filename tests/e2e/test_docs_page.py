"""/docs in a real Chromium: it shows every operation, sends a request, and asks no other host for anything."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import requests
from playwright.sync_api import Browser, Locator, Page, expect
from support.api_process import ApiProcess
from support.contract import operations
from support.keys import key_document, new_key
from support.receiver import QuietServer
from support.service import Service

pytestmark = pytest.mark.process


class Visit:
    """A page that is open, the hosts that it asked, and the lines of its console."""

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

    def try_out(self, operation: str) -> Locator:
        """Open the form of an operation."""
        block = self.page.locator(f"#operations-{operation}")
        block.locator(".opblock-summary-control").click()
        block.get_by_role("button", name="Try it out").click()
        return block


@pytest.fixture
def visit(chromium: Browser) -> Iterator[Visit]:
    context = chromium.new_context()
    yield Visit(context.new_page())
    context.close()


def test_an_image_is_classified_from_the_page(visit: Visit, service: Service, repository: Path) -> None:
    visit.open(f"{service.url}/docs")
    block = visit.try_out("predictions-predict")
    block.locator("input[type=file]").set_input_files(repository / "samples/chelsea.jpg")
    block.get_by_role("button", name="Execute").click()

    answer = block.locator(".live-responses-table .response")
    expect(answer.locator(".response-col_status")).to_contain_text("200", timeout=30_000)
    expect(answer).to_contain_text('"class"')
    assert visit.hosts == {f"127.0.0.1:{service.port}"}
    assert visit.console == []


class _Proxy(BaseHTTPRequestHandler):
    """Passes paths below a prefix on to the API, as a reverse proxy does."""

    prefix = "/ml/v1"
    api = ""

    def do_GET(self) -> None:
        if not self.path.startswith(f"{self.prefix}/"):
            self.send_error(404)
            return
        headers = {"X-Forwarded-Prefix": self.prefix, "Host": self.headers["Host"]}
        answer = requests.get(f"{self.api}{self.path.removeprefix(self.prefix)}", headers=headers, timeout=20)
        self.send_response(answer.status_code)
        for name in ("Content-Type", "Content-Security-Policy", "X-Content-Type-Options"):
            self.send_header(name, answer.headers[name])
        self.send_header("Content-Length", str(len(answer.content)))
        self.end_headers()
        self.wfile.write(answer.content)

    def log_message(self, *_: object) -> None:
        """Nothing of it is of interest."""


@pytest.fixture
def proxy_url(make_api: Callable[..., ApiProcess]) -> Iterator[str]:
    api = make_api(trusted_proxies=["127.0.0.1"])
    handler = type("_ProxyOfApi", (_Proxy,), {"api": f"http://127.0.0.1:{api.port}"})
    with QuietServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}{_Proxy.prefix}"
        finally:
            server.shutdown()
            thread.join()


def test_behind_a_proxy_with_a_path(visit: Visit, proxy_url: str) -> None:
    visit.open(f"{proxy_url}/docs")
    block = visit.try_out("service-live")
    block.get_by_role("button", name="Execute").click()
    expect(block.locator(".live-responses-table .response")).to_contain_text('"status": "live"')
    assert {url for url in visit.asked if not url.startswith(("data:", f"{proxy_url}/"))} == set()
    assert f"{proxy_url}/health/live" in visit.asked
    assert visit.console == []


def test_a_key_is_sent_after_authorize(
    visit: Visit, make_api: Callable[..., ApiProcess], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text, key = new_key("ada")
    (file := tmp_path / "keys.json").write_text(json.dumps(key_document(key)), encoding="utf-8")
    monkeypatch.setenv("INFERENCE_SECURITY__KEYS_FILE", str(file))
    visit.open(f"http://127.0.0.1:{make_api().port}/docs")
    visit.page.locator(".scheme-container .authorize").click()
    form = visit.page.locator(".auth-container", has_text="bearer (")
    form.locator("input").fill(text)
    form.get_by_role("button", name="Apply credentials").click()
    visit.page.get_by_role("button", name="Close").first.click()
    block = visit.try_out("service-get_key")
    block.get_by_role("button", name="Execute").click()
    expect(block.locator(".live-responses-table .response")).to_contain_text('"owner": "ada"')
    assert visit.console == []


def test_the_policy_stops_requests_to_other_hosts(visit: Visit, api: ApiProcess) -> None:
    visit.open(f"http://127.0.0.1:{api.port}/docs")
    sent = visit.page.evaluate("fetch('http://127.0.0.2:1/').then(() => 'sent', error => error.message)")
    assert sent == "Failed to fetch"
    assert any("Content Security Policy" in text for text in visit.console)
