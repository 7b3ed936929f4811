"""`python -m bench.console_tabs`: cost of open tabs of the console that show the queue.

Prints the images a second of the model tiny while the tabs are open, divided by those with none, in pairs of bursts whose order
alternates. A tab is a client of its own that asks `GET /status` as the page does; with `--browser` it is a real one, which also
draws on this machine.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING

import urllib3

from bench import workload
from bench.contenders import Ours, Request, first_answer
from bench.rounds import closed

if TYPE_CHECKING:
    from playwright.sync_api import Browser

_CLIENTS = 64
_WARM_S = 3.0
#: interval of the page's `useLive`
_POLL_S = 2.0
_LIMIT = 0.97


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure; the exit code is 1 if the median ratio is below the limit."""
    parser = argparse.ArgumentParser(prog="python -m bench.console_tabs", description="Cost of open tabs of the console.")
    parser.add_argument("--tabs", type=int, default=20)
    parser.add_argument("--pairs", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=6.0, help="duration of a burst (default: 6)")
    parser.add_argument("--browser", action="store_true", help="open real tabs in Chromium")
    options = parser.parse_args(arguments)
    tabs_at = browser_tabs if options.browser else polling_tabs
    (work,) = workload.prepare(["tiny"])
    with Ours("embedded-tabs", {}, {}).run(work) as running:
        first_answer(running.request, running.processes.log)
        closed(running.request, clients=_CLIENTS, seconds=_WARM_S)
        root = running.request.url.removesuffix(Ours.path)
        ratios = measure(running.request, lambda: tabs_at(root, options.tabs), options.pairs, options.seconds)
    median = statistics.median(ratios)
    sys.stdout.write(f"{options.tabs} tabs ÷ none: median {median:.3f} of {', '.join(f'{ratio:.3f}' for ratio in ratios)}\n")
    return int(median < _LIMIT)


def measure(request: Request, open_tabs: Callable[[], AbstractContextManager[None]], pairs: int, seconds: float) -> list[float]:
    """Return the ratio of the rates of each pair of bursts."""

    def with_tabs() -> float:
        with open_tabs():
            return _rate(request, seconds)

    def without() -> float:
        return _rate(request, seconds)

    ratios = []
    for number in range(pairs):
        if number % 2:
            bare, opened = without(), with_tabs()
        else:
            opened, bare = with_tabs(), without()
        ratios.append(opened / bare)
    return ratios


@contextmanager
def polling_tabs(root: str, count: int) -> Iterator[None]:
    """Clients with a connection each, which ask for the status at the page's interval; their turns are spread over it."""
    ending = threading.Event()

    def poll(number: int) -> None:
        ending.wait(_POLL_S * number / count)
        with urllib3.PoolManager(retries=False, timeout=30) as http:
            while not ending.is_set():
                http.request("GET", f"{root}/status")
                ending.wait(_POLL_S)

    threads = [threading.Thread(target=poll, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        ending.set()
        for thread in threads:
            thread.join()


@contextmanager
def chromium() -> Iterator[Browser]:
    """A Chromium without a window, to which every tab is visible."""
    from playwright.sync_api import sync_playwright  # noqa: PLC0415 only a development environment has it

    with sync_playwright() as playwright:
        path = shutil.which("chromium") or shutil.which("google-chrome")
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def browser_tabs(root: str, count: int) -> Iterator[None]:
    """Tabs of a browser."""
    with chromium() as browser:
        context = browser.new_context()
        for _ in range(count):
            page = context.new_page()
            page.goto(f"{root}/ui/queue")
            page.get_by_role("table", name="Models").wait_for()
        yield


def _rate(request: Request, seconds: float) -> float:
    load = closed(request, clients=_CLIENTS, seconds=seconds)
    return load.requests / load.seconds


if __name__ == "__main__":
    sys.exit(main())
