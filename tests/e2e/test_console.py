"""The console in a real Chromium: classify, look for a task, cancel and replay; streams that break; nobody else is asked."""

from __future__ import annotations

import base64
import re
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import requests
from playwright.sync_api import Browser, Page, Route, expect
from support.api_process import ApiProcess
from support.browser import page_server, passing_proxy
from support.console import Visit, broken, picture, visit
from support.service import Service

pytestmark = pytest.mark.process

PATIENCE_MS = 30_000
MAX_REQUESTS = 12
MAX_SHIFT = 0.02
#: JavaScript: sums the scores of layout shifts.
_SUM_SHIFTS = """window.shift = 0;
new PerformanceObserver((list) => list.getEntries().forEach(({value}) => { window.shift += value; }))
  .observe({type: "layout-shift", buffered: true});"""
#: JavaScript: number of the console's files that did not come from the browser's cache.
_FROM_NETWORK = """performance.getEntriesByType("resource")
  .filter(({name, transferSize}) => name.includes("/static/") && transferSize > 0).length"""


@pytest.fixture
def visitor(chromium: Browser, service: Service) -> Iterator[Visit]:
    """A visitor of the running service, whom no other host serves and whose console stays empty."""
    with visit(chromium, service.url) as opened:
        opened.page.set_default_timeout(PATIENCE_MS)
        yield opened
        assert opened.hosts == {f"127.0.0.1:{service.port}"}


@pytest.fixture
def request_id() -> str:
    return f"console-{uuid.uuid4().hex[:8]}"


@pytest.fixture
def held(service: Service) -> Iterator[None]:
    """The predictor stands still, so that tasks go on running."""
    (predictor,) = service.processes("predictor")
    predictor.suspend()
    yield
    predictor.resume()


def expect_result(page: Page, text: str) -> None:
    expect(page.locator(".answer strong")).to_have_text(text, timeout=PATIENCE_MS)


class TestTry:
    def test_a_sample(self, visitor: Visit) -> None:
        visitor.open()
        visitor.page.get_by_role("button", name="cat", exact=True).click()
        expect_result(visitor.page, "tiger cat")
        expect(visitor.page.locator(".bars tr")).to_have_count(5)
        expect(visitor.page.get_by_role("table", name="Where the time went").locator("th")).to_contain_text(["queue", "predict"])
        expect(visitor.page.locator(".facts")).to_contain_text("in a batch of")
        expect(visitor.page.get_by_label("curl request")).to_contain_text("-F image=@chelsea.jpg")
        assert visitor.console == []

    def test_by_keyboard_alone(self, visitor: Visit) -> None:
        visitor.open()
        expect(visitor.page.locator("#model")).to_be_enabled()
        seen: list[str] = []
        while "coffee" not in seen:
            visitor.page.keyboard.press("Tab")
            seen.append(visitor.page.evaluate("document.activeElement.textContent"))
            assert len(seen) < 20, seen
        assert seen[0] == "Skip to the content"
        assert seen[-3:] == ["Choose images", "cat", "coffee"]
        visitor.page.keyboard.press("Enter")
        expect_result(visitor.page, "espresso")
        announced = visitor.page.locator("[aria-live=polite]")
        expect(announced).to_contain_text("espresso")

    @pytest.mark.parametrize(("kind", "selector"), [("paste", ""), ("drop", ".drop")])
    def test_without_a_dialog(self, visitor: Visit, kind: str, selector: str) -> None:
        visitor.open("?model=digits")
        expect(visitor.page.locator("#model")).to_have_value("digits")
        image = picture("mine.png")
        encoded = {"name": "mine.png", "mimeType": "image/png", "base64": base64.b64encode(image["buffer"]).decode()}
        visitor.give(kind, encoded, selector=selector)
        expect(visitor.page.locator(".outcome .answer")).to_be_visible(timeout=PATIENCE_MS)
        expect(visitor.page.locator(".facts")).to_contain_text("digits 1")
        expect(visitor.page.get_by_label("curl request")).to_contain_text("mine.png")

    def test_a_problem_has_its_field(self, visitor: Visit) -> None:
        visitor.open()
        visitor.choose(broken("broken.png"))
        problem = visitor.page.get_by_role("alert")
        expect(problem).to_contain_text("PNG, JPEG, WebP or .npy")
        expect(problem).to_contain_text("Field")
        expect(problem).to_contain_text("What would be right")

    def test_a_batch_of_fifty_with_two_bad_images(self, visitor: Visit) -> None:
        visitor.open("?model=digits")
        expect(visitor.page.locator("#model")).to_have_value("digits")
        files = [broken(f"{n}.png") if n in (3, 17) else picture(f"{n}.png", n) for n in range(50)]
        visitor.choose(*files)
        expect(visitor.page.locator(".answer")).to_contain_text("50 of 50 images", timeout=PATIENCE_MS)
        expect(visitor.page.locator("progress")).to_have_attribute("value", "50")
        expect(visitor.page.locator(".grid li")).to_have_count(50)
        expect(visitor.page.get_by_label("curl request")).to_contain_text(
            re.compile("-F image=@49.png.*-F model=digits.*/inference/batch", re.DOTALL)
        )
        visitor.page.get_by_role("button", name="refused 2").click()
        expect(visitor.page.locator(".grid li")).to_contain_text(["3.png", "17.png"])
        with visitor.page.expect_download() as download:
            visitor.page.get_by_role("button", name="CSV").click()
        lines = Path(download.value.path()).read_text(encoding="utf-8").splitlines()
        assert lines[0] == "index,status,task_id,request_id,class,label,confidence_level,error"
        assert [line.split(",")[1] for line in lines[1:]].count("succeeded") == 48
        assert lines[4].startswith("3,refused,,,")

    @pytest.mark.usefixtures("held")
    def test_a_running_task_is_canceled(self, visitor: Visit) -> None:
        visitor.open()
        visitor.page.get_by_role("button", name="rocket", exact=True).click()
        visitor.page.get_by_role("button", name="Cancel").click()
        expect(visitor.page.locator(".outcome, .note.bad")).to_contain_text("canceled", ignore_case=True)

    def test_without_scripts(self, chromium: Browser, service: Service, repository: Path) -> None:
        with visit(chromium, service.url, java_script_enabled=False) as opened:
            opened.page.goto(f"{service.url}/")
            opened.page.get_by_label("Image").set_input_files(repository / "samples/chelsea.jpg")
            opened.page.get_by_role("button", name="Classify").click()
            expect(opened.page.locator("pre")).to_contain_text('"label":"tiger cat"', timeout=PATIENCE_MS)


class TestTasks:
    def test_what_is_being_typed_stays_while_tasks_appear(self, visitor: Visit, service: Service, request_id: str) -> None:
        visitor.open("tasks")
        expect(visitor.page.get_by_text("Live", exact=True)).to_be_visible()
        visitor.page.get_by_label("Request id").fill("half of an id")
        assert service.post(picture("x.png")["buffer"], model="digits", request_id=request_id).ok
        expect(visitor.page.get_by_role("row", name=request_id)).to_be_visible()
        expect(visitor.page.get_by_label("Request id")).to_have_value("half of an id")

    def test_filters_are_in_the_url_and_tasks_appear_by_themselves(
        self, visitor: Visit, service: Service, request_id: str
    ) -> None:
        visitor.open()
        visitor.page.get_by_role("link", name="Tasks", exact=True).click()
        visitor.page.get_by_label("Request id").fill(request_id)
        visitor.page.get_by_label("Request id").press("Enter")
        expect(visitor.page.get_by_text("No task fits these filters.")).to_be_visible()
        assert visitor.page.url.endswith(f"/ui/tasks?request_id={request_id}")
        expect(visitor.page.get_by_text("Live", exact=True)).to_be_visible()
        assert service.post(picture("x.png")["buffer"], model="digits", request_id=request_id).ok
        row = visitor.page.get_by_role("row", name=request_id)
        expect(row).to_contain_text("succeeded")
        row.get_by_role("link").click()
        expect(visitor.page.get_by_text("delivered", exact=True)).to_be_visible()
        visitor.page.go_back()
        visitor.page.get_by_label("Status").select_option("failed")
        expect(visitor.page.get_by_text("No task fits these filters.")).to_be_visible()
        assert visitor.console == []

    @pytest.mark.usefixtures("held")
    def test_some_are_canceled_and_run_again(self, visitor: Visit, service: Service, request_id: str) -> None:
        for _ in range(3):
            service.submit(picture("x.png")["buffer"], model="digits", request_id=request_id)
        visitor.open(f"tasks?request_id={request_id}")
        visitor.page.get_by_label("Select all tasks of this page").check()
        visitor.page.get_by_role("button", name="Cancel 3").click()
        expect(visitor.page.get_by_text("3 tasks canceled.")).to_be_visible()
        expect(visitor.page.get_by_role("row", name="canceled")).to_have_count(3)
        visitor.page.get_by_label(f"Select {request_id}").first.check()
        visitor.page.get_by_role("button", name="Replay 1").click()
        expect(visitor.page.locator("tbody tr")).to_have_count(4)

    def test_a_permanent_link(self, visitor: Visit, service: Service, request_id: str) -> None:
        task_id = service.submit(picture("x.png")["buffer"], model="digits", request_id=request_id)
        visitor.open(f"tasks/{task_id}")
        expect(visitor.page.get_by_text("delivered", exact=True)).to_be_visible()
        expect(visitor.page.get_by_alt_text("The image of this task")).to_have_js_property("naturalWidth", 8)
        visitor.page.get_by_text("The whole task as JSON").click()
        expect(visitor.page.get_by_label("JSON", exact=True)).to_contain_text(request_id)
        visitor.page.get_by_role("button", name="Replay").click()
        expect(visitor.page.get_by_text("Replay of")).to_be_visible()
        assert task_id not in visitor.page.url

    def test_what_became_of_a_webhook(self, visitor: Visit, service: Service) -> None:
        """Looks alone: events have tests of their own, and the service of these tests has no secret for them."""
        task_id = service.submit(picture("x.png")["buffer"], model="digits")
        attempts = [
            {"at": "2026-01-02T03:04:05.678Z", "duration_ms": 4.4, "status": 503, "error": None},
            {"at": "2026-01-02T03:04:15.678Z", "duration_ms": 2000.0, "status": None, "error": "it does not answer"},
        ]
        webhook = {"url": "https://hooks.example/x", "events": ["task.failed"], "status": "pending", "attempts": 9}
        webhook |= {"last_attempts": attempts, "next_attempt_at": "2026-01-02T04:00:00.000Z"}
        told = service.task(task_id, wait_s=20) | {"webhook": webhook}
        visitor.page.route(f"{service.url}/tasks/{task_id}/events", lambda route: route.abort())
        visitor.page.route(f"{service.url}/tasks/{task_id}", lambda route: route.fulfill(json=told))
        visitor.open(f"tasks/{task_id}")
        table = visitor.page.get_by_role("table", name="The last 2 of 9 attempts")
        expect(table.get_by_role("row").nth(1)).to_contain_text("503")
        expect(table.get_by_role("row").nth(2)).to_contain_text("It does not answer.")
        expect(visitor.page.get_by_text("Next attempt at")).to_be_visible()
        webhook.update(status="given_up", next_attempt_at=None)
        expect(visitor.page.get_by_text("given up", exact=True)).to_be_visible()

    def test_some_are_erased_once_the_visitor_says_so(self, visitor: Visit, service: Service, request_id: str) -> None:
        gone: set[str] = set()
        ids = [service.submit(picture("x.png")["buffer"], model="digits", request_id=request_id) for _ in range(2)]

        def erase(route: Route) -> None:
            task_id = route.request.url.rpartition("/")[2].partition("?")[0]
            gone.add(task_id)
            stores = {"records": "erased", "mongodb": "pending", "kafka": "cannot"}
            route.fulfill(status=202, json={"erasure_id": task_id, "status": "pending", "tasks": 1, "stores": stores})

        def without_gone(route: Route) -> None:
            page = route.fetch().json()
            route.fulfill(json=page | {"tasks": [task for task in page["tasks"] if task["task_id"] not in gone]})

        visitor.page.route("**/tasks/*?erase=true", erase)
        visitor.page.route(re.compile(r"^http://[^/]+/tasks\?"), without_gone)
        visitor.open(f"tasks?request_id={request_id}")
        visitor.page.get_by_label(f"Select {request_id}").first.check()
        visitor.page.once("dialog", lambda dialog: dialog.dismiss())
        visitor.page.get_by_role("button", name="Erase 1").click()
        assert gone == set()
        visitor.page.once("dialog", lambda dialog: dialog.accept())
        visitor.page.get_by_role("button", name="Erase 1").click()
        expect(visitor.page.get_by_text("1 task erased. Mongodb will follow. Kafka cannot delete it.")).to_be_visible()
        expect(visitor.page.locator("tbody tr")).to_have_count(1)
        visitor.open(f"tasks/{ids[0]}")
        visitor.page.once("dialog", lambda dialog: dialog.accept())
        visitor.page.get_by_role("button", name="Erase").click()
        expect(visitor.page.get_by_text("The task is erased. Mongodb will follow.")).to_be_visible()
        assert gone == set(ids)
        visitor.page.unroute_all(behavior="ignoreErrors")

    def test_have_an_owner_where_there_are_owners(self, visitor: Visit, service: Service, request_id: str) -> None:
        task_id = service.submit(picture("x.png")["buffer"], model="digits", request_id=request_id)
        visitor.open(f"tasks?request_id={request_id}")
        expect(visitor.page.locator("tbody tr")).to_have_count(1)
        expect(visitor.page.get_by_role("columnheader", name="Owner")).to_have_count(0)
        task = service.task(task_id, wait_s=20) | {"owner": "ada"}
        visitor.page.route("**/events?*", lambda route: route.abort())
        visitor.page.route(
            re.compile(r"^http://[^/]+/tasks\?"), lambda route: route.fulfill(json={"tasks": [task], "next_cursor": None})
        )
        visitor.page.reload()
        expect(visitor.page.get_by_role("columnheader", name="Owner")).to_be_visible()
        expect(visitor.page.get_by_role("cell", name="ada")).to_be_visible()

    def test_of_an_unknown_task(self, visitor: Visit) -> None:
        visitor.open(f"tasks/{'0' * 32}")
        expect(visitor.page.get_by_role("alert")).to_contain_text("There is no task")


class TestDeadLetters:
    def test_one_is_found_and_discarded(self, visitor: Visit, service: Service, request_id: str) -> None:
        """Looks alone, of a task that is none: the routes have tests of their own."""
        task = service.task(service.submit(picture("x.png")["buffer"], model="digits", request_id=request_id), wait_s=20)
        left = [task | {"deliveries": [{"sink": "kafka", "status": "refused", "reason": "too large"}]}]
        status = requests.get(f"{service.url}/status", timeout=20).json() | {"dead_letters": 1}

        def discard(route: Route) -> None:
            assert route.request.method == "DELETE"
            left.clear()
            route.fulfill(json=task)

        visitor.page.route(f"{service.url}/status", lambda route: route.fulfill(json=status))
        letters = re.compile(rf"^{service.url}/dead-letters\?")
        visitor.page.route(letters, lambda route: route.fulfill(json={"tasks": left, "count": len(left)}))
        visitor.page.route(f"{service.url}/dead-letters/{task['task_id']}", discard)
        visitor.open("queue")
        visitor.page.get_by_role("link", name="Look at it").click()
        expect(visitor.page.get_by_role("row", name=request_id)).to_contain_text("kafka refused the result: too large")
        visitor.page.once("dialog", lambda dialog: dialog.accept())
        visitor.page.get_by_role("button", name=f"Discard {request_id}").click()
        expect(visitor.page.get_by_text("No dead letters.")).to_be_visible()
        expect(visitor.page.get_by_text(f"Discarded: {request_id}.")).to_be_visible()


class TestConnection:
    @pytest.mark.parametrize("path", ["tasks", "queue"])
    def test_that_is_lost_comes_back(self, visitor: Visit, path: str) -> None:
        visitor.open(path)
        state = visitor.page.locator(".connection")
        expect(state).to_have_class("connection live" if path == "tasks" else "connection polling")
        visitor.page.context.set_offline(True)
        expect(state).to_have_text("Connection lost. Trying again …")
        visitor.page.context.set_offline(False)
        expect(state).to_have_class("connection live" if path == "tasks" else "connection polling")

    def test_a_stream_that_a_proxy_keeps_back(self, visitor: Visit) -> None:
        visitor.page.route("**/events", lambda _: None)  # never answered
        visitor.open("tasks")
        expect(visitor.page.locator(".connection")).to_have_text("Updated every 2 s", timeout=PATIENCE_MS)
        expect(visitor.page.locator("tbody tr").first).to_be_visible()
        visitor.page.unroute_all(behavior="ignoreErrors")

    def test_a_tab_that_is_not_seen_asks_nothing(self, visitor: Visit) -> None:
        visitor.page.clock.install()
        visitor.open("queue")
        expect(visitor.page.get_by_role("table", name="Models")).to_be_visible()
        hide = "state => { Object.defineProperty(document, 'visibilityState', {value: state, configurable: true});"
        hide += " document.dispatchEvent(new Event('visibilitychange')); }"
        visitor.page.evaluate(hide, "hidden")
        visitor.page.clock.fast_forward(3000)  # the pause that has begun
        before = len(visitor.asked)
        visitor.page.clock.run_for(50_000)
        assert len(visitor.asked) == before
        with visitor.page.expect_request("**/status"):
            visitor.page.evaluate(hide, "visible")

    def test_batches_and_their_times(self, visitor: Visit, service: Service) -> None:
        assert service.post(picture("x.png")["buffer"], model="digits").ok
        visitor.open("queue")
        row = visitor.page.get_by_role("table", name="Models").get_by_role("row", name="digits")
        expect(row.get_by_role("cell").nth(3)).to_have_text(re.compile(r"^\d+\.\d$"))  # images in a batch
        expect(visitor.page.locator("figure").nth(1).locator("canvas")).to_be_visible()
        times = visitor.page.locator(".workers .sizes").first
        expect(times).to_contain_text(re.compile(r"1 image[\d.]+ ms2 images[\d,.]+ ms"))

    def test_workers_that_go_and_come(self, visitor: Visit, service: Service) -> None:
        """Looks alone: the tests of outages kill workers."""
        status = requests.get(f"{service.url}/status", timeout=20).json()
        gone = status | {"workers": [], "problems": ["no worker has digits loaded"]}
        visitor.page.route("**/status", lambda route: route.fulfill(json=gone))
        visitor.open("queue")
        expect(visitor.page.get_by_text("No worker has digits loaded.")).to_be_visible()
        visitor.page.unroute("**/status")
        expect(visitor.page.get_by_text("All is well.")).to_be_visible()
        expect(visitor.page.get_by_role("table", name="Workers")).to_contain_text("digits")


class TestRefusals:
    @pytest.mark.parametrize(
        ("status", "title", "said"), [(403, "Forbidden", "What would be right"), (429, "Too many requests", "Try again in12.0 s")]
    )
    def test_are_sentences(self, visitor: Visit, status: int, title: str, said: str) -> None:
        problem = {"title": title, "status": status, "detail": "this key may not do it now", "code": "x"}
        more = {"expected": "another key"} if status == 403 else {}
        headers = {} if status == 403 else {"Retry-After": "12"}
        visitor.page.route("**/inference", lambda route: route.fulfill(status=status, json=problem | more, headers=headers))
        visitor.open()
        visitor.page.get_by_role("button", name="cat", exact=True).click()
        alert = visitor.page.get_by_role("alert")
        expect(alert).to_contain_text(title)
        expect(alert).to_contain_text("This key may not do it now.")
        expect(alert).to_contain_text(said)

    def test_a_page_that_asks_too_often_waits_as_it_is_told(self, visitor: Visit) -> None:
        asked: list[str] = []
        problem = {"title": "Too many requests", "status": 429, "detail": "wait", "code": "rate_limited"}

        def limit(route: Route) -> None:
            asked.append(route.request.url)
            route.fulfill(status=429, json=problem, headers={"Retry-After": "600"})

        visitor.page.route("**/status", limit)
        visitor.page.clock.install()
        visitor.open("queue")
        expect(visitor.page.locator(".connection")).to_have_text("The service refuses at the moment. Trying again …")
        visitor.page.clock.fast_forward(590_000)
        assert len(asked) == 1
        with visitor.page.expect_request("**/status"):
            visitor.page.clock.fast_forward(20_000)
        expect(visitor.page.locator(".connection")).to_be_visible()


class TestRequests:
    @pytest.mark.parametrize("path", ["", "tasks", "dead-letters", "queue", "models"])
    def test_are_few_and_later_ones_from_the_cache(self, visitor: Visit, path: str) -> None:
        visitor.open(path)
        visitor.page.wait_for_load_state("load")
        expect(visitor.page.locator("h1")).to_be_visible()
        visitor.page.wait_for_timeout(500)  # longer than a page takes, and less than until the next poll
        assert len(visitor.asked) <= MAX_REQUESTS, visitor.asked
        assert visitor.page.evaluate(_FROM_NETWORK) > 0
        visitor.page.goto(visitor.page.url)
        expect(visitor.page.locator("h1")).to_be_visible()
        assert visitor.page.evaluate(_FROM_NETWORK) == 0
        assert visitor.console == []

    @pytest.mark.parametrize("path", ["", "tasks", "dead-letters", "queue", "models"])
    def test_what_they_bring_moves_nothing_that_is_shown(self, visitor: Visit, service: Service, path: str) -> None:
        # Tasks that are accepted in one moment: the service alone knows their order.
        images = [("image", ("x.png", picture("x.png")["buffer"]))] * 40
        assert requests.post(f"{service.url}/inference/batch", files=images, data={"model": "digits"}, timeout=60).ok
        visitor.page.set_viewport_size({"width": 1280, "height": 800})
        status = requests.get(f"{service.url}/status", timeout=20).json()  # a verdict that changes may move what is below it
        visitor.page.route("**/status", lambda route: route.fulfill(json=status))
        visitor.page.add_init_script(_SUM_SHIFTS)
        visitor.open(path)
        visitor.page.wait_for_timeout(1500)
        if not path:
            visitor.page.evaluate("[...document.querySelectorAll('.samples button')][0].click()")  # input would excuse a shift
            expect(visitor.page.locator(".facts")).to_contain_text("in a batch of")
            visitor.page.wait_for_timeout(500)
        assert visitor.page.evaluate("window.shift") < MAX_SHIFT

    def test_below_a_path_prefix(self, chromium: Browser, make_api: Callable[..., ApiProcess]) -> None:
        api = make_api()  # the proxy says nothing of the prefix, and the page needs no word of it
        with passing_proxy(f"http://127.0.0.1:{api.port}", "/ml/v1") as url, visit(chromium, url) as opened:
            opened.page.goto(f"{url}/ui/")
            expect(opened.page.locator("#model")).to_be_enabled()
            opened.page.get_by_role("link", name="Models", exact=True).click()
            expect(opened.page.get_by_role("heading", name="digits")).to_be_visible()
            opened.page.goto(f"{url}/ui/tasks")
            expect(opened.page.locator("h1")).to_have_text("Tasks")
            assert {asked for asked in opened.asked if not asked.startswith(("data:", f"{url}/"))} == set()

    @pytest.mark.parametrize("path", ["nothing", "tasks/a/b", "queue/"])
    def test_of_pages_that_there_are_none_of(self, visitor: Visit, path: str) -> None:
        visitor.open(path)
        expect(visitor.page.locator("h1")).to_have_text("Nothing is here")
        visitor.page.locator("main").get_by_role("link", name="Models").click()
        expect(visitor.page.get_by_role("heading", name="digits")).to_be_visible()


class TestSecurity:
    def test_a_page_of_another_origin_cannot_frame_it(self, chromium: Browser, service: Service) -> None:
        with page_server() as port, visit(chromium, service.url) as opened:
            opened.page.goto(f"http://localhost:{port}/")
            frame = "url => document.body.append(Object.assign(document.createElement('iframe'), {src: url}))"
            with opened.page.expect_event("framenavigated"):
                opened.page.evaluate(frame, f"{service.url}/ui/")
            assert opened.page.frames[1].url == "chrome-error://chromewebdata/"

    def test_the_policy_stops_requests_to_other_hosts(self, visitor: Visit) -> None:
        visitor.open()
        ask = "fetch('http://127.0.0.2:1/').then(() => 'sent', error => error.message)"
        assert visitor.page.evaluate(ask) == "Failed to fetch"
        visitor.page.evaluate(
            "document.body.append(Object.assign(document.createElement('script'), {textContent: 'window.ran = 1'}))"
        )
        assert visitor.page.evaluate("window.ran") is None
        directives = {directive for text in visitor.console for directive in re.findall(r"[\"'](\w+-src)", text)}
        assert directives == {"connect-src", "script-src"}, visitor.console
