"""Pages of other origins in a real Chromium: what they cannot do to the API, and what api.cors_origins lets them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from playwright.sync_api import Browser, Page
from support.api_process import ApiProcess
from support.browser import browser, page_server

#: JavaScript: an image of the digits' shape in a form.
_FORM = """
function form() {
  const form = new FormData();
  form.append("image", new Blob([new Uint8Array(64)]), "digit.bin");
  form.append("shape", "8,8,1");
  form.append("dtype", "uint8");
  form.append("mode", "async");
  return form;
}
"""
#: Sends an HTML form into a frame, as a page does that its reader does not see anything of.
_SEND_FORM = """([action, enctype, fields]) => {
  const target = `frame-${document.forms.length}`;
  const frame = Object.assign(document.createElement("iframe"), {name: target});
  const form = Object.assign(document.createElement("form"), {action, enctype, target, method: "POST"});
  for (const [name, value] of Object.entries(fields))
    form.append(Object.assign(document.createElement("input"), {name, value}));
  document.body.append(frame, form);
  form.submit();
}"""
#: Gives what the page can read: the status and the text of the answer, its type where it can read none, or that it failed.
_FETCH = (
    """async ([url, options, withForm]) => {"""
    + _FORM
    + """
  try {
    const answer = await fetch(url, withForm ? {...options, body: form()} : options);
    return answer.type === "opaque" ? "opaque" : [answer.status, await answer.text()];
  } catch (error) { return error.name; }
}"""
)
_LOAD = """([tag, url]) => new Promise(resolve => {
  const element = document.createElement(tag);
  element.onload = () => resolve("loaded");
  element.onerror = () => resolve("failed");
  element[tag === "link" ? "href" : "src"] = url;
  if (tag === "link") element.rel = "stylesheet";
  document.body.append(element);
})"""
_EMBED = "url => document.body.append(Object.assign(document.createElement('iframe'), {src: url}))"

pytestmark = pytest.mark.process

TASK = "0123456789abcdef0123456789abcdef"


@pytest.fixture(scope="module")
def chromium(repository: Path) -> Iterator[Browser]:
    with browser(repository, evil_test="127.0.0.1") as running:
        yield running


@pytest.fixture(scope="module")
def page_port() -> Iterator[int]:
    with page_server() as port:
        yield port


class Visit:
    """A page that is open, the methods of its requests, and the status of every answer that its browser let it have."""

    def __init__(self, page: Page, api: ApiProcess) -> None:
        self.page = page
        self.api = f"http://127.0.0.1:{api.port}"
        self.answers: list[tuple[str, int]] = []
        self.asked: list[str] = []
        page.on("request", lambda request: self.asked.append(request.method))
        page.on("response", lambda answer: self._note(answer.request.method, answer.url, answer.status))

    def _note(self, method: str, url: str, status: int) -> None:
        if url.startswith(self.api):
            self.answers.append((method, status))

    def send_form(self, path: str, enctype: str, **fields: str) -> None:
        with self.page.expect_response(lambda answer: answer.request.method == "POST"):
            self.page.evaluate(_SEND_FORM, [self.api + path, enctype, fields])

    def fetch(self, path: str, *, with_form: bool = False, **options: Any) -> Any:
        return self.page.evaluate(_FETCH, [self.api + path, options, with_form])

    def load(self, tag: str, path: str) -> str:
        return str(self.page.evaluate(_LOAD, [tag, self.api + path]))

    def statuses(self, method: str) -> set[int]:
        return {status for asked, status in self.answers if asked == method}


VisitFrom = Callable[..., Visit]


@pytest.fixture
def visit(chromium: Browser, page_port: int) -> Iterator[VisitFrom]:
    """Opens a page of `host`."""
    context = chromium.new_context()

    def open_page(api: ApiProcess, host: str) -> Visit:
        page = context.new_page()
        page.goto(f"http://{host}:{page_port}/")
        return Visit(page, api)

    yield open_page
    context.close()


@pytest.fixture
def nothing_changes(redis_client: redis.Redis) -> Iterator[None]:
    before = set(redis_client.scan_iter(count=1000))
    yield
    assert set(redis_client.scan_iter(count=1000)) == before


@pytest.mark.usefixtures("nothing_changes")
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "evil.test"])  # the same site, and others
class TestAPageOfAnotherOrigin:
    @pytest.mark.parametrize("enctype", ["multipart/form-data", "application/x-www-form-urlencoded", "text/plain"])
    def test_commands_nothing_by_a_form(self, api: ApiProcess, visit: VisitFrom, host: str, enctype: str) -> None:
        page = visit(api, host)
        command = {"command": "change_ensemble_mode", "ensemble_mode": "true"}
        for path in ("/inference", "/inference_service", "/inference_service_controller", "/inference/batch"):
            page.send_form(path, enctype, **command)
        assert page.answers == [("POST", 403)] * 4

    def test_commands_nothing_by_script(self, api: ApiProcess, visit: VisitFrom, host: str) -> None:
        page = visit(api, host)
        for path in ("/inference", "/inference/batch", "/inference_service_controller"):
            assert page.fetch(path, with_form=True, method="POST", mode="no-cors") in ("opaque", "TypeError")
            assert page.fetch(path, with_form=True, method="POST") == "TypeError"
            assert page.fetch(path, method="POST", mode="no-cors", body='{"command": "x"}') in ("opaque", "TypeError")
        with page.page.expect_request(lambda request: request.method == "POST"):
            assert page.page.evaluate("url => navigator.sendBeacon(url, 'command=x')", f"{page.api}/inference")
        assert page.asked.count("POST") == 10

    def test_sends_nothing_that_a_browser_asks_about_first(self, api: ApiProcess, visit: VisitFrom, host: str) -> None:
        page = visit(api, host)
        json = {"Content-Type": "application/json"}
        assert page.fetch("/inference_service_controller", method="POST", headers=json, body="{}") == "TypeError"
        assert page.fetch(f"/tasks/{TASK}", method="DELETE") == "TypeError"
        assert page.fetch(f"/batches/{TASK}", method="DELETE") == "TypeError"
        assert page.fetch("/inference", method="PUT", body="x") == "TypeError"
        assert {method for method, _ in page.answers} <= {"OPTIONS"}

    def test_reads_nothing(self, api: ApiProcess, visit: VisitFrom, host: str) -> None:
        page = visit(api, host)
        for path in ("/", "/health/ready", f"/tasks/{TASK}", "/tasks?request_id=x"):
            assert page.fetch(path) == "TypeError"
            assert page.fetch(path, mode="no-cors") == "TypeError"  # Cross-Origin-Resource-Policy
            for tag in ("img", "script", "link"):
                assert page.load(tag, path) == "failed"

    def test_embeds_nothing(self, api: ApiProcess, visit: VisitFrom, host: str) -> None:
        page = visit(api, host)
        with page.page.expect_event("framenavigated"):
            page.page.evaluate(
                "url => document.body.append(Object.assign(document.createElement('iframe'), {src: url}))", page.api
            )
        assert [frame.url for frame in page.page.frames[1:]] == ["chrome-error://chromewebdata/"]


@pytest.mark.usefixtures("nothing_changes")
def test_a_page_whose_name_leads_to_the_service_gets_421(api: ApiProcess, chromium: Browser) -> None:
    """DNS rebinding: the page is loaded from elsewhere, then its name resolves to the service."""
    with chromium.new_context() as context:
        page = context.new_page()
        origin = f"http://evil.test:{api.port}"
        page.route(f"{origin}/page", lambda route: route.fulfill(body="<!doctype html>", content_type="text/html"))
        page.goto(f"{origin}/page")
        for path, options, with_form in (
            ("/", {}, False),
            ("/inference", {"method": "POST"}, True),
            ("/inference_service_controller", {"method": "POST", "body": "command=x"}, False),
            (f"/tasks/{TASK}", {"method": "DELETE"}, False),
        ):
            status, text = page.evaluate(_FETCH, [origin + path, options, with_form])
            assert status == 421
            assert "misdirected_request" in text
            assert "digits" not in text


class TestWithCorsOrigins:
    @pytest.fixture
    def open_api(self, make_api: Callable[..., ApiProcess], page_port: int) -> ApiProcess:
        return make_api(cors_origins=[f"http://localhost:{page_port}"])

    def test_a_page_of_a_listed_origin_may_do_everything(self, open_api: ApiProcess, visit: VisitFrom) -> None:
        page = visit(open_api, "localhost")
        status, text = page.fetch("/", headers={"X-Request-ID": "from-a-page"})
        assert (status, '"digits"' in text) == (200, True)
        status, text = page.fetch("/inference", with_form=True, method="POST", headers={"Prefer": "respond-async"})
        assert status == 202, text
        location = page.page.evaluate(
            "async url => (await fetch(url + '?wait=x')).headers.get('X-Request-ID')", f"{page.api}/tasks/{TASK}"
        )
        assert location
        task = page.page.evaluate("text => JSON.parse(text).task_id", text)
        assert page.fetch(f"/tasks/{task}")[0] == 200
        assert page.fetch(f"/tasks/{task}", method="DELETE")[0] == 200
        assert page.fetch(f"/tasks/{task}", method="DELETE")[0] == 409
        json = {"Content-Type": "application/json", "Idempotency-Key": "k"}
        assert page.fetch("/inference/batch", method="POST", headers=json, body="{}")[0] == 400
        assert page.fetch("/nothing", method="POST", body="x")[0] == 404

    @pytest.mark.usefixtures("nothing_changes")
    def test_another_page_still_may_not(self, open_api: ApiProcess, visit: VisitFrom) -> None:
        page = visit(open_api, "127.0.0.1")
        assert page.fetch("/") == "TypeError"
        assert page.fetch(f"/tasks/{TASK}", method="DELETE") == "TypeError"
        page.send_form("/inference", "multipart/form-data", command="x")
        assert page.statuses("POST") == {403}
