"""`python -m bench.console_figures`: how quick the console is in a Chromium on this machine, over loopback.

    first paint        ms from the request for a page that the browser has not seen to the first content
    result drawn       ms from the answer of `POST /inference` to the frame that shows it
    event drawn        ms from the commit of a task to the frame that shows it in the list; the clock of both is this machine's
    layout shift       of the page that shifts most while it is opened, and while a result comes, by the Layout Instability API
    interaction        longest ms from a click or key to the next frame, by the Event Timing API (16 on, in steps of 8), in the
                       list of 10,000 tasks and in a batch of the largest size
    with a load        the same while clients send images

The first three are medians of `--rounds`. The exit code is 1 if a figure is above its limit.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import threading
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import urllib3

from bench import workload
from bench.console_tabs import chromium
from bench.contenders import Ours, Request
from bench.rounds import closed

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

_CLIENTS = 64
_PAGES = ("", "tasks", "queue", "models", "dead-letters")
_PATIENCE_MS = 60_000
#: Time in which a page has drawn what it asked for.
_SETTLING_MS = 1500
#: `batch.max_items`
_BATCH_SIZE = 256
_IMAGE = ("digit_7.png", (workload.ROOT / "samples" / "digit_7.png").read_bytes())
#: JavaScript before the page's own: sums layout shifts, and notes interactions and the time of an answer.
_WATCH = """
window.figures = {shift: 0, interactions: [], answered: 0};
const observe = (type, note, more) =>
  new PerformanceObserver((list) => list.getEntries().forEach(note)).observe({type, buffered: true, ...more});
observe("layout-shift", ({value}) => { figures.shift += value; });
const interaction = ({interactionId, duration}) => { if (interactionId) figures.interactions.push(duration); };
observe("event", interaction, {durationThreshold: 16});
const send = window.fetch;
window.fetch = async (...given) => {
  const answer = await send(...given);
  if (String(given[0]).endsWith("/inference")) figures.answered = performance.now();
  return answer;
};
"""
#: JavaScript: the time of the frame in which an element with a text is there.
_WAIT = """([selector, parts]) => { window.drawn = new Promise((resolve) => {
  const fits = ({textContent: text}) => parts.every((part) => text.includes(part));
  const end = () => resolve([performance.now(), Date.now()]);
  const look = () => requestAnimationFrame([...document.querySelectorAll(selector)].some(fits) ? end : look);
  look();
}); }"""
_FIRST_PAINT = "performance.getEntriesByName('first-contentful-paint')[0]?.startTime"
#: JavaScript: clicks a button without the input after which shifts are expected.
_TRY_SAMPLE = "[...document.querySelectorAll('.samples button')][0].click()"


@dataclass(frozen=True)
class Figure:
    """A measured figure and its limit."""

    name: str
    value: float
    limit: float
    unit: str

    def __str__(self) -> str:
        return f"{self.name:14} {self.value:8.3f} {self.unit:3} (at most {self.limit:g})"


class Console:
    """The console of a running service, and a browser."""

    def __init__(self, request: Request, browser: Browser) -> None:
        self._root = request.url.removesuffix(Ours.path)
        self._request = request
        self._browser = browser
        self._http = urllib3.PoolManager(retries=False, timeout=60)

    @contextmanager
    def page(self, path: str) -> Iterator[Page]:
        """A page in a browser that has seen none."""
        context = self._browser.new_context(viewport={"width": 1280, "height": 800})
        context.set_default_timeout(_PATIENCE_MS)
        context.add_init_script(_WATCH)
        try:
            page = context.new_page()
            page.goto(f"{self._root}/ui/{path}")
            page.locator("h1").wait_for()
            yield page
        finally:
            context.close()

    def submit(self, request_id: str) -> dict[str, Any]:
        """Classify an image, and return its task."""
        answer = self._post("/inference", [("image", _IMAGE), ("request_id", request_id)])
        document: dict[str, Any] = self._http.request("GET", f"{self._root}/tasks/{answer['task_id']}").json()
        return document

    def submit_batch(self) -> str:
        """Classify a batch of the largest size, and return its id."""
        return str(self._post("/inference/batch", [("image", _IMAGE)] * _BATCH_SIZE)["batch_id"])

    @contextmanager
    def load(self) -> Iterator[None]:
        """Clients that send images all the time."""
        ending = threading.Event()

        def send() -> None:
            while not ending.is_set():
                closed(self._request, clients=_CLIENTS, seconds=1)

        thread = threading.Thread(target=send)
        thread.start()
        try:
            yield
        finally:
            ending.set()
            thread.join()

    def fill(self, tasks: int) -> None:
        """Classify images until there are so many tasks."""
        while tasks > 0:
            tasks -= closed(self._request, clients=_CLIENTS, seconds=5).requests

    def _post(self, path: str, fields: list[Any]) -> dict[str, Any]:
        answer = self._http.request("POST", f"{self._root}{path}", fields=fields)
        if answer.status != HTTPStatus.OK:
            raise RuntimeError(f"POST {path} was answered with {answer.status}: {answer.data[:300]!r}")
        document: dict[str, Any] = answer.json()
        return document


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; the exit code is 1 if a figure is above its limit."""
    parser = argparse.ArgumentParser(prog="python -m bench.console_figures", description="How quick the console is.")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--tasks", type=int, default=10_000, help="tasks of the list (default: 10000)")
    options = parser.parse_args(arguments)
    (work,) = workload.prepare(["tiny"])
    with Ours("embedded-figures", {}, {}).run(work) as running, chromium() as browser:
        console = Console(running.request, browser)
        figures = [
            Figure("first paint", statistics.median(first_paints(console, options.rounds)), 300, "ms"),
            Figure("result drawn", statistics.median(results_drawn(console, options.rounds)), 100, "ms"),
            Figure("event drawn", statistics.median(events_drawn(console, options.rounds)), 300, "ms"),
            Figure("layout shift", layout_shift(console), 0.02, ""),
        ]
        console.fill(options.tasks)
        quiet = longest_interaction(console)
        with console.load():
            busy = longest_interaction(console)
        figures += [Figure("interaction", quiet, 100, "ms"), Figure("with a load", busy, 100, "ms")]
    sys.stdout.write("\n".join(map(str, figures)) + "\n")
    return int(any(figure.value > figure.limit for figure in figures))


def first_paints(console: Console, rounds: int) -> list[float]:
    """The first paint of each page, each time in a browser without a cache; ms."""
    found = []
    for path in _PAGES * rounds:
        with console.page(path) as page:
            found.append(float(page.wait_for_function(_FIRST_PAINT).json_value()))
    return found


def results_drawn(console: Console, rounds: int) -> list[float]:
    """Time from the answer to a request until it is drawn; ms."""
    found = []
    with console.page("") as page:
        page.locator("#model:enabled").wait_for()
        for _ in range(rounds):
            page.reload()
            page.locator("#model:enabled").wait_for()
            page.evaluate(_WAIT, [".answer strong", [""]])
            page.evaluate(_TRY_SAMPLE)
            drawn, _ = page.evaluate("drawn")
            found.append(drawn - page.evaluate("figures.answered"))
    return found


def events_drawn(console: Console, rounds: int) -> list[float]:
    """Time from the commit of a task until the list shows its status; ms."""
    found = []
    with console.page("tasks") as page:
        page.get_by_text("Live", exact=True).wait_for()
        for _ in range(rounds):
            request_id = f"figure-{uuid.uuid4().hex[:8]}"
            page.evaluate(_WAIT, ["tbody tr", [request_id, "succeeded"]])
            task = console.submit(request_id)
            _, at_ms = page.evaluate("drawn")
            found.append(at_ms - datetime.fromisoformat(task["finished_at"]).timestamp() * 1000)
    return found


def layout_shift(console: Console) -> float:
    """Score of the page that shifts most while it is opened, and while a result comes."""
    batch_id, task_id = console.submit_batch(), console.submit("shift")["task_id"]
    found = []
    for path in (*_PAGES, f"tasks/{task_id}", f"batches/{batch_id}"):
        with console.page(path) as page:
            page.wait_for_timeout(_SETTLING_MS)
            if not path:
                page.evaluate(_TRY_SAMPLE)
                page.locator(".outcome .facts").get_by_text("in a batch of").wait_for()
                page.wait_for_timeout(_SETTLING_MS)
            found.append(float(page.evaluate("figures.shift")))
    return max(found)


def longest_interaction(console: Console) -> float:
    """Longest time from a click or a key to the next frame; 16 if none took longer. ms."""
    batch_id, longest = console.submit_batch(), 16.0
    for path, use in (("tasks", _use_tasks), (f"batches/{batch_id}", _use_batch)):
        with console.page(path) as page:
            use(page)
            page.wait_for_timeout(_SETTLING_MS)
            longest = max(longest, *page.evaluate("figures.interactions"), 16.0)
    return longest


def _use_tasks(page: Page) -> None:
    page.locator("tbody tr").nth(99).wait_for()
    for _ in range(5):
        page.get_by_label("Select all tasks of this page").click()
        page.locator("tbody input").first.click()
    page.get_by_label("Request id").press_sequentially("figure")
    page.get_by_label("Request id").press("Enter")
    page.wait_for_timeout(_SETTLING_MS)
    page.go_back()
    page.get_by_role("link", name="Older").click()
    page.get_by_role("link", name="Newest").click()


def _use_batch(page: Page) -> None:
    page.locator(".grid li").nth(_BATCH_SIZE - 1).wait_for()
    for name in ("succeeded", "all") * 3:
        page.get_by_role("button", name=name).click()


if __name__ == "__main__":
    sys.exit(main())
