"""The documentation as a site, in a real Chromium: every page, search, diagrams, dark mode, and no request to another host."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler
from pathlib import Path
from urllib.parse import unquote, urldefrag, urljoin, urlsplit

import pytest
from playwright.sync_api import Browser, Page, Request, expect
from support.contract import operations
from support.receiver import QuietServer

from dev.docs_site.navigation import read_sections

_LINK = re.compile(r'\s(?:href|src)="?([^"\s>]+)')
_ANCHOR = re.compile(r'\s(?:id|name)="?([^"\s>]+)')


class _Files(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Nothing of it is of interest."""


@pytest.fixture(scope="module")
def folder(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("docs") / "site"
    command = [sys.executable, "-m", "dev.docs_site", "--to", str(folder)]
    built = subprocess.run(command, cwd=repository, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stdout + built.stderr
    return folder


@pytest.fixture(scope="module")
def site(folder: Path) -> Iterator[str]:
    with QuietServer(("127.0.0.1", 0), partial(_Files, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


class Visit:
    """A page in the browser, its requests, and its errors."""

    def __init__(self, page: Page, site: str) -> None:
        self.page = page
        self.site = site
        self.elsewhere: list[str] = []
        self.errors: list[str] = []
        page.on("request", self._note_request)
        page.on("response", lambda answer: self.errors.append(f"{answer.status} {answer.url}") if answer.status >= 400 else None)
        page.on("console", lambda message: self.errors.append(message.text) if message.type in {"error", "warning"} else None)
        page.on("pageerror", lambda error: self.errors.append(str(error)))

    def _note_request(self, request: Request) -> None:
        if not request.url.startswith((self.site, "data:", "blob:")):
            self.elsewhere.append(request.url)

    def open(self, path: str) -> None:
        self.page.goto(self.site + path)


@pytest.fixture
def visit(chromium: Browser, site: str) -> Iterator[Visit]:
    context = chromium.new_context(color_scheme="light")
    visit = Visit(context.new_page(), site)
    yield visit
    context.close()
    assert (visit.elsewhere, visit.errors) == ([], [])


def pages(folder: Path) -> list[str]:
    """Return the paths of all pages, as their addresses have them."""
    return sorted(str(file.parent.relative_to(folder)).replace(".", "", 1) for file in folder.rglob("index.html"))


def test_navigation_has_every_page_of_docs(folder: Path, repository: Path) -> None:
    sections = read_sections(repository)
    assert list(sections) == ["Tutorial", "How-to", "Reference", "Explanation"]
    named = [page for section in sections.values() for page in section]
    assert sorted(named) == sorted(
        str(file.relative_to(repository)) for file in (repository / "docs").glob("*.md") if file.name != "README.md"
    )
    menu = (folder / "index.html").read_text(encoding="utf-8")
    assert [page for page in named if f'href="./{page.removesuffix(".md")}/"' not in menu] == []


def test_every_link_leads_somewhere(folder: Path) -> None:
    """Zensical checks the links between pages; this checks what a browser gets: files and images too, and anchors."""
    text = {f"/{page}/".replace("//", "/"): (folder / page / "index.html").read_text(encoding="utf-8") for page in pages(folder)}
    anchors = {path: {unquote(anchor) for anchor in _ANCHOR.findall(page)} for path, page in text.items()}
    broken = set()
    for path, page in text.items():
        for link in _LINK.findall(page):
            target, anchor = urldefrag(urljoin(f"http://site{path}", link.replace("&amp;", "&")))
            at = urlsplit(target)
            if at.netloc != "site" or at.scheme != "http":
                continue
            exists = at.path in text or (folder / unquote(at.path.lstrip("/"))).exists()
            if not exists or (anchor and at.path in text and unquote(anchor) not in anchors[at.path]):
                broken.add((path, link))
    assert sorted(broken) == []


def test_no_page_names_a_host_to_load_something_from(folder: Path) -> None:
    loads = re.compile(r'<(?:script|img|iframe|source)[^>]*\ssrc="?(?:https?:)?//|<link[^>]*\shref="?(?:https?:)?//')
    assert [page for page in pages(folder) if loads.search((folder / page / "index.html").read_text(encoding="utf-8"))] == []


def test_lists_and_tables_are_as_on_github(folder: Path, repository: Path) -> None:
    """Markdown's dialects differ: a list without an empty line before it would be one paragraph here."""
    differing = {}
    for page in (repository / "docs").glob("*.md"):
        source = re.sub(r"^ *```.*?^ *```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
        html = (folder / "docs" / page.stem.replace("README", "") / "index.html").read_text(encoding="utf-8")
        (article,) = re.findall(r"<article.*?</article>", html, re.DOTALL)
        expected = (
            len(re.findall(r"^ *(?:-|\d+\.) ", source, re.MULTILINE)),
            len(re.findall(r"^ *\|(?: :?-+:? \|)+$", source, re.MULTILINE)),
        )
        found = (len(re.findall(r"<li[ >]", article)), len(re.findall(r"<table", article)))
        if expected != found:
            differing[page.name] = (expected, found)
    assert differing == {}


def test_pages_open_without_an_error(visit: Visit, folder: Path, repository: Path) -> None:
    """Open the pages that load more than the theme's own files, which all pages share, and the first page of each section."""
    first = {f"docs/{Path(section[0]).stem}" for section in read_sections(repository).values()}
    text = {path: (folder / path / "index.html").read_text(encoding="utf-8") for path in pages(folder)}
    opened = [path for path in text if path in first or re.search(r"<img|<script src=[^>]*vendor/", text[path])]
    assert {"", "docs/console", "docs/performance", "docs/openapi"} <= set(opened)
    for path in opened:
        visit.open(f"{path}/" if path else "")
        expect(visit.page.locator("article h1").first).to_be_visible()
        missing = "[...document.images].filter(image => image.complete && !image.naturalWidth).map(image => image.src)"
        assert visit.page.evaluate(missing) == [], path
        assert (visit.elsewhere, visit.errors) == ([], []), path


def test_search_finds_a_term(visit: Visit) -> None:
    visit.open("")
    visit.page.get_by_role("button", name="Search").first.click()
    visit.page.get_by_role("combobox", name="Search").fill("lease")
    result = visit.page.get_by_role("option").filter(has_text="Explanation").filter(has_text="Architecture").first
    expect(result).to_be_visible(timeout=30_000)
    result.click()
    visit.page.wait_for_url("**/docs/architecture/**")
    expect(visit.page.locator("article")).to_contain_text("lease")


def test_diagrams_are_drawn(visit: Visit, repository: Path) -> None:
    with_diagrams = [page for page in ["README.md", *_docs(repository)] if "```mermaid" in (repository / page).read_text("utf-8")]
    assert "README.md" in with_diagrams
    for page in with_diagrams:
        visit.open("" if page == "README.md" else page.removesuffix(".md") + "/")
        count = (repository / page).read_text("utf-8").count("```mermaid")
        expect(visit.page.locator("div.mermaid")).to_have_count(count, timeout=30_000)
        expect(visit.page.locator("pre.mermaid")).to_have_count(0)
        heights = visit.page.locator("div.mermaid").evaluate_all("all => all.map(one => one.shadowRoot ? 1 : one.clientHeight)")
        assert min(heights) > 0


def test_dark_mode_is_a_button(visit: Visit) -> None:
    visit.open("docs/")

    def background() -> str:
        return str(visit.page.evaluate("getComputedStyle(document.body).backgroundColor"))

    light = background()
    for label in ("Switch to light mode", "Switch to dark mode"):
        visit.page.locator(f'label[title="{label}"]:visible').click()
    expect(visit.page.locator("body")).to_have_attribute("data-md-color-scheme", "slate")
    assert background() != light
    visit.open("docs/openapi/")
    expect(visit.page.locator("html")).to_have_class(re.compile("dark-mode"))


def test_reference_shows_every_operation(visit: Visit) -> None:
    visit.open("docs/openapi/")
    expect(visit.page.locator(".opblock")).to_have_count(len(operations()))
    visit.page.locator("#operations-predictions-predict .opblock-summary-control").click()
    expect(visit.page.locator("#operations-predictions-predict")).to_contain_text("Idempotency-Key")


def _docs(repository: Path) -> list[str]:
    return [str(page.relative_to(repository)) for page in (repository / "docs").glob("*.md")]
