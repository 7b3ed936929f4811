"""The console in a real Chromium, as a visitor sees it."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

from PIL import Image
from playwright.sync_api import Browser, Page

#: JavaScript: gives a place files as a drop or a paste does.
_GIVE = """([selector, kind, files]) => {
  const transfer = new DataTransfer();
  for (const {name, mimeType, base64} of files)
    transfer.items.add(new File([Uint8Array.from(atob(base64), letter => letter.charCodeAt(0))], name, {type: mimeType}));
  const place = selector ? document.querySelector(selector) : document;
  const event = kind === "paste"
    ? new ClipboardEvent("paste", {clipboardData: transfer, bubbles: true})
    : new DragEvent(kind, {dataTransfer: transfer, bubbles: true, cancelable: true});
  place.dispatchEvent(event);
}"""


class Visit:
    """A page that is open, what it asked for, and what its console says.

    Attributes:
        page: the page.
        asked: method and URL of each request.
        console: lines of the console, and errors that nothing caught.
    """

    def __init__(self, page: Page, url: str) -> None:
        self.page = page
        self._url = url
        self.asked: list[str] = []
        self.console: list[str] = []
        page.on("request", lambda request: self.asked.append(request.url))
        page.on("console", lambda message: self.console.append(message.text))
        page.on("pageerror", lambda error: self.console.append(str(error)))

    def open(self, path: str = "") -> None:
        """Open a page of the console."""
        self.page.goto(f"{self._url}/ui/{path}")

    @property
    def hosts(self) -> set[str]:
        """Hosts that were asked for anything."""
        return {urlsplit(url).netloc for url in self.asked if not url.startswith(("data:", "blob:"))}

    def choose(self, *files: dict[str, Any]) -> None:
        """Choose files, as by the button."""
        self.page.get_by_label("Images", exact=True).set_input_files(list(files))

    def give(self, kind: str, *files: dict[str, Any], selector: str = "") -> None:
        """Drop or paste files."""
        self.page.evaluate(_GIVE, [selector, kind, list(files)])


@contextmanager
def visit(chromium: Browser, url: str, **context: Any) -> Iterator[Visit]:
    """A visitor with no history.

    Args:
        url: of the API.
        context: options of Playwright's context.
    """
    opened = chromium.new_context(**context)
    try:
        yield Visit(opened.new_page(), url)
    finally:
        opened.close()


def picture(name: str, shade: int = 128) -> dict[str, Any]:
    """A small PNG of one colour, as a file to choose."""
    file = io.BytesIO()
    Image.new("RGB", (8, 8), (shade, 90, 200)).save(file, "PNG")
    return {"name": name, "mimeType": "image/png", "buffer": file.getvalue()}


def broken(name: str) -> dict[str, Any]:
    """A file that is no picture."""
    return {"name": name, "mimeType": "image/png", "buffer": b"no picture"}
