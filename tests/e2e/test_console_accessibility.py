"""The console for everybody: no violation that axe-core finds, and no sideways scrolling, in both schemes at three widths."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from playwright.sync_api import Browser, Page, expect
from support.console import broken, picture, visit
from support.service import Service

pytestmark = pytest.mark.process

PATIENCE_MS = 30_000
#: axe-core 4.14.1, `axe.min.js` of the npm package.
_AXE = "tests/fixtures/axe-core/axe.min.js"
_AXE_SHA256 = "29348999450cdf2849a8e70b7912fc2da85a849da39c0d0d5394f51d4a9ed95c"
#: Longer than a phone is wide.
_REQUEST_ID = f"for-everybody-{'x' * 60}"
_WIDTHS = (320, 768, 1280)
#: JavaScript: rule, elements and reason of each violation.
_RUN_AXE = """async () => {
  const {violations} = await axe.run(document, {resultTypes: ["violations"]});
  return violations.map(({id, nodes}) => [id, ...nodes.map(({html, failureSummary}) => html + failureSummary)]);
}"""
_IS_TOO_WIDE = "document.documentElement.scrollWidth > document.documentElement.clientWidth"


@pytest.fixture(scope="module")
def axe(repository: Path) -> str:
    script = (repository / _AXE).read_text(encoding="utf-8")
    assert hashlib.sha256(script.encode()).hexdigest() == _AXE_SHA256
    return script


@pytest.fixture(scope="module")
def page(chromium: Browser, service: Service, axe: str) -> Iterator[Page]:
    with visit(chromium, service.url) as opened:
        opened.page.set_default_timeout(PATIENCE_MS)
        yield opened.page


@pytest.fixture(scope="module")
def places(service: Service) -> dict[str, str]:
    """Paths of a task, a failed task and a batch that have ended, and of a task that never was."""
    files = [("image", (file["name"], file["buffer"])) for file in (picture("1.png"), picture("2.png"), broken("3.png"))]
    batch = requests.post(
        f"{service.url}/inference/batch", files=files, data={"model": "digits", "request_id": _REQUEST_ID}, timeout=90
    ).json()
    late = service.post(files[0][1][1], deadline_s="0.001").json()
    return {
        "task": f"tasks/{batch['items'][0]['task_id']}",
        "failed task": f"tasks/{late['task_id']}",
        "batch": f"batches/{batch['batch_id']}",
        "unknown task": f"tasks/{'0' * 32}",
    }


def check(page: Page, axe: str) -> None:
    """Check what the page shows now in both schemes at all widths."""
    page.evaluate(axe)
    found: list[Any] = []
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme, reduced_motion="reduce")  # type: ignore[arg-type] # a literal
        for width in _WIDTHS:
            page.set_viewport_size({"width": width, "height": 800})
            found += [(scheme, width, violation) for violation in page.evaluate(_RUN_AXE)]
            if page.evaluate(_IS_TOO_WIDE):
                found.append((scheme, width, "scrolls sideways"))
    assert found == []


@pytest.mark.parametrize("path", ["", f"tasks?request_id={_REQUEST_ID}", "dead-letters", "queue", "models", "nothing"])
def test_a_page(page: Page, service: Service, places: dict[str, str], axe: str, path: str) -> None:
    page.goto(f"{service.url}/ui/{path}")
    expect(page.locator("h1")).to_be_visible()
    page.wait_for_load_state("networkidle") if path in ("", "models") else page.wait_for_timeout(500)
    check(page, axe)


@pytest.mark.parametrize("name", ["task", "failed task", "batch", "unknown task"])
def test_a_permanent_link(page: Page, service: Service, places: dict[str, str], axe: str, name: str) -> None:
    page.goto(f"{service.url}/ui/{places[name]}")
    expect(page.locator("main .answer, main [role=alert]").first).to_be_visible()
    check(page, axe)


def test_a_result_and_a_problem(page: Page, service: Service, axe: str) -> None:
    page.goto(f"{service.url}/ui/")
    page.get_by_role("button", name="cat", exact=True).click()
    expect(page.locator(".facts")).to_contain_text("in a batch of")
    check(page, axe)
    page.get_by_label("Images", exact=True).set_input_files([broken("broken.png")])
    expect(page.get_by_role("alert")).to_be_visible()
    check(page, axe)


def test_labels_that_are_searched(page: Page, service: Service, axe: str) -> None:
    page.goto(f"{service.url}/ui/models")
    page.get_by_text("Labels and workers").first.click()
    page.get_by_label("Search the labels").fill("espresso")
    expect(page.locator(".labels li")).to_have_text(["espresso machine", "espresso"])
    check(page, axe)


def test_problems_of_the_service(page: Page, service: Service, axe: str) -> None:
    """A state that the tests of outages bring about: here only its looks matter."""
    status = requests.get(f"{service.url}/status", timeout=20).json()
    problems = ["no worker has digits loaded", "12 results wait for mongodb, the oldest for 90 s: new requests are refused"]
    bad = status | {"workers": [], "problems": problems, "warnings": ["the server writes its data every hour"], "dead_letters": 2}
    page.route("**/status", lambda route: route.fulfill(json=bad))
    page.goto(f"{service.url}/ui/queue")
    expect(page.get_by_text("No worker is up.")).to_be_visible()
    check(page, axe)
    page.unroute("**/status")


def test_a_flood(page: Page, service: Service, axe: str) -> None:
    status = requests.get(f"{service.url}/status", timeout=20).json()
    fill = [{"minutes_ago": ago, "images": 900 + ago, "batches": 50} for ago in range(14, -1, -1)]
    queue = {"depth": 4812, "oldest_age_s": 31.2, "drain_rate_per_s": 140.3}
    flood = status | {"models": [model | {"queue": queue, "fill": fill} for model in status["models"]]}
    page.route("**/status", lambda route: route.fulfill(json=flood))
    page.goto(f"{service.url}/ui/queue")
    expect(page.locator("canvas")).to_have_count(2)
    check(page, axe)
    page.unroute("**/status")


def test_weights_that_are_loaded(page: Page, service: Service, axe: str) -> None:
    workers = [
        {"worker": "host-1:4711:ab", "status": "ready", "load_s": 6.1},
        {"worker": "b", "status": "loading", "load_s": None},
    ]
    model = requests.get(f"{service.url}/models/digits", timeout=20).json() | {"change": {"workers": workers}}
    page.route(f"{service.url}/models/digits", lambda route: route.fulfill(json=model))
    page.route("**/inference_service_controller", lambda _: None)  # it takes long
    page.goto(f"{service.url}/ui/models")
    card = page.get_by_role("article").filter(has=page.get_by_role("heading", name="digits"))
    card.get_by_text("Load other weights").click()
    card.get_by_label("Weights").fill("new.keras")
    card.get_by_role("button", name="Load", exact=True).click()
    expect(card.get_by_role("cell", name="loading")).to_be_visible()
    check(page, axe)
    page.unroute_all(behavior="ignoreErrors")


def test_a_webhook(page: Page, service: Service, places: dict[str, str], axe: str) -> None:
    attempt = {"at": "2026-01-02T03:04:05.678Z", "duration_ms": 4.4, "status": 503, "error": None}
    webhook = {"url": "https://hooks.example/x", "events": [], "status": "given_up", "attempts": 1, "last_attempts": [attempt]}
    task = requests.get(f"{service.url}/{places['task']}", timeout=20).json()
    given_up = task | {"webhook": webhook | {"next_attempt_at": None}, "owner": "ada"}
    page.route(f"{service.url}/{places['task']}/events", lambda route: route.abort())
    page.route(f"{service.url}/{places['task']}", lambda route: route.fulfill(json=given_up))
    page.goto(f"{service.url}/ui/{places['task']}")
    expect(page.get_by_text("given up")).to_be_visible()
    check(page, axe)
    page.unroute_all(behavior="ignoreErrors")


def test_signing_in_and_a_key_that_may_only_read(page: Page, service: Service, axe: str) -> None:
    problem = {"title": "A key is needed", "status": 401, "detail": "send a key", "code": "unauthenticated"}
    page.route("**/key", lambda route: route.fulfill(status=401, json=problem))
    page.route(f"{service.url}/models", lambda route: route.fulfill(status=401, json=problem))
    page.goto(f"{service.url}/ui/")
    page.get_by_label("Key", exact=True).fill("rk_typo")
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("alert")).to_be_visible()
    check(page, axe)
    page.unroute("**/key")
    page.unroute(f"{service.url}/models")
    page.route("**/key", lambda route: route.fulfill(json={"owner": "ada", "role": "read", "key_id": "k", "limits": {}}))
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_text("Your key may only read")).to_be_visible()
    check(page, axe)
    page.goto(f"{service.url}/ui/tasks?request_id={_REQUEST_ID}")
    expect(page.get_by_role("button", name="Sign out")).to_be_visible()
    check(page, axe)
    page.get_by_role("button", name="Sign out").click()
    page.unroute_all(behavior="ignoreErrors")
