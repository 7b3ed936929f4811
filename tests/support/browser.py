"""A real Chromium, for tests of the powers of web pages."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import requests
from playwright.sync_api import Browser, expect, sync_playwright
from support.installed import installed
from support.receiver import QuietServer

#: Time for what a page is expected to show, in place of Playwright's five seconds, which a busy machine may need.
PATIENCE_MS = 30_000

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
#: A test speaks to loopback alone: nothing is asked of the browser's maker. The last one leaves refusing to the API.
_ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-features=LocalNetworkAccessChecks",
)


def chromium(root: Path) -> str:
    """The path of a Chromium, installed as Debian's package where there is none. Raises ServicesError."""
    return installed(root, "chromium", *_NAMES)


@contextmanager
def browser(root: Path, **names: str) -> Iterator[Browser]:
    """A running Chromium without a window.

    Args:
        names: host names, with `_` for each dot, and the address that each resolves to in this browser.
    """
    rules = ", ".join(f"MAP {name.replace('_', '.')} {address}" for name, address in names.items())
    expect.set_options(timeout=PATIENCE_MS)
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(
            executable_path=chromium(root), args=[*_ARGUMENTS, f"--host-resolver-rules={rules}"], headless=True
        )
        try:
            yield running
        finally:
            running.close()


class _Page(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = b"<!doctype html><title>A page</title><body></body>"
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nothing of it is of interest."""


class _Proxy(BaseHTTPRequestHandler):
    """Passes paths below a prefix on to another server, without the prefix."""

    prefix = ""
    target = ""

    def do_GET(self) -> None:
        if not self.path.startswith(f"{self.prefix}/"):
            self.send_error(404)
            return
        url = f"{self.target}{self.path.removeprefix(self.prefix)}"
        with requests.get(url, headers={"Host": self.headers["Host"]}, timeout=20, stream=True, allow_redirects=False) as answer:
            self.send_response(answer.status_code)
            for name in ("Content-Type", "Content-Security-Policy", "Location"):
                if name in answer.headers:
                    self.send_header(name, answer.headers[name])
            self.end_headers()
            for piece in answer.iter_content(None):
                self.wfile.write(piece)

    def log_message(self, *_: object) -> None:
        """Nothing of it is of interest."""


@contextmanager
def passing_proxy(target: str, prefix: str) -> Iterator[str]:
    """A proxy of the server `target` below a path; gives the URL of that."""
    with _serving(type("_ProxyOfTarget", (_Proxy,), {"target": target, "prefix": prefix})) as port:
        yield f"http://127.0.0.1:{port}{prefix}"


@contextmanager
def page_server() -> Iterator[int]:
    """A server of an empty page at every path; gives its port."""
    with _serving(_Page) as port:
        yield port


@contextmanager
def _serving(handler: type[BaseHTTPRequestHandler]) -> Iterator[int]:
    with QuietServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield int(server.server_port)
        finally:
            server.shutdown()
            thread.join()
