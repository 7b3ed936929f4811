"""The console of a service with keys: what each role sees and may do, erasing, and a dead letter that is found and replayed."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import requests
import yaml
from playwright.sync_api import Browser, Page, expect
from support.console import Visit, picture, visit
from support.keys import key_document, new_key
from support.service import Service

from inference.access import Role

pytestmark = pytest.mark.process

PATIENCE_MS = 60_000
#: Code of a model that ends its process while a file is beside it.
_FRAGILE = """import os
from pathlib import Path
class Fragile:
    def postprocess(self, vector):
        if (Path(__file__).parent / "crash").exists():
            os._exit(9)
        return {}
"""
_ROLES = {"alice": Role.PREDICT, "bob": Role.PREDICT, "mona": Role.READ, "root": Role.ADMIN, "eve": Role.ADMIN, "adam": Role.READ}
#: JavaScript: what the page keeps in the browser.
_KEPT = "[Object.keys(sessionStorage), localStorage.length, document.cookie]"


class Keyed:
    """A service with a key for each name of `_ROLES`, and with a model that may crash."""

    def __init__(self, folder: Path, repository: Path) -> None:
        made = {owner: new_key(owner, role) for owner, role in _ROLES.items()}
        self.texts = {owner: text for owner, (text, _) in made.items()}
        self._keys = {owner: key for owner, (_, key) in made.items()}
        self._file = folder / "keys.json"
        self._write_keys()
        self.crash = _fragile_model(repository / "models/digits", folder / "fragile") / "crash"
        settings = {
            "models": ["models/digits", str(folder / "fragile")],
            "model_files": {"allowed_folders": [str(folder), "models"]},
            "sinks": ["jsonl"],
            "security": {"keys_file": str(self._file)},
        }
        self.service = Service(folder, settings)

    def revoke(self, owner: str) -> None:
        del self._keys[owner]
        self._write_keys()

    def _write_keys(self) -> None:
        self._file.write_text(json.dumps(key_document(*self._keys.values())), encoding="utf-8")

    def send(self, owner: str, method: str, path: str, **options: object) -> requests.Response:
        headers = {"Authorization": f"Bearer {self.texts[owner]}"}
        return requests.request(method, self.service.url + path, headers=headers, timeout=60, **options)  # type: ignore[arg-type]

    def classify(self, owner: str, request_id: str) -> str:
        answer = self.send(
            owner, "POST", "/inference", files={"image": picture("x.png")["buffer"]}, data={"request_id": request_id}
        )
        assert answer.ok, answer.text
        return str(answer.json()["task_id"])


def _fragile_model(digits: Path, folder: Path) -> Path:
    folder.mkdir()
    description = yaml.safe_load((digits / "model.yaml").read_text(encoding="utf-8"))
    description |= {"name": "fragile", "code": "fragile.py:Fragile"}
    (folder / "model.yaml").write_text(yaml.safe_dump(description), encoding="utf-8")
    (folder / "fragile.py").write_text(_FRAGILE, encoding="utf-8")
    for name in ("digits.keras", "labels.txt"):
        shutil.copy(digits / name, folder)
    return folder


@pytest.fixture(scope="module")
def keyed(tmp_path_factory: pytest.TempPathFactory, repository: Path) -> Iterator[Keyed]:
    keyed = Keyed(tmp_path_factory.mktemp("service"), repository)
    try:
        keyed.service.start()
        yield keyed
    finally:
        keyed.service.end()


@pytest.fixture
def visitor(chromium: Browser, keyed: Keyed) -> Iterator[Visit]:
    with visit(chromium, keyed.service.url) as opened:
        opened.page.set_default_timeout(PATIENCE_MS)
        yield opened


@pytest.fixture
def visitor_with_key(visitor: Visit, keyed: Keyed) -> Callable[[str, str], Page]:
    """Opens a page with the key of an owner."""

    def enter(owner: str, path: str) -> Page:
        visitor.open(path)
        sign_in(visitor.page, keyed.texts[owner])
        expect(visitor.page.get_by_text(f"{owner}, {_ROLES[owner].value}")).to_be_visible()
        return visitor.page

    return enter


@pytest.fixture(autouse=True)
def patience() -> Iterator[None]:
    expect.set_options(timeout=PATIENCE_MS)
    yield
    expect.set_options(timeout=5000)


def sign_in(page: Page, key: str) -> None:
    page.get_by_label("Key", exact=True).fill(key)
    page.keyboard.press("Enter")


def rows_of(page: Page) -> list[str]:
    return page.locator("tbody th").all_inner_texts()


class TestSigningIn:
    def test_a_key_is_asked_for_once_and_stays_in_the_tab(self, visitor: Visit, keyed: Keyed) -> None:
        page, key = visitor.page, keyed.texts["alice"]
        visitor.open()
        for typo in (key[:-1], "rk_typo"):
            sign_in(page, typo)
            expect(page.get_by_role("alert")).to_contain_text("This key is not valid")
        sign_in(page, f" {key} ")  # as it is pasted
        expect(page.locator("#model")).to_be_enabled()
        page.reload()
        expect(page.locator("#model")).to_be_enabled()
        assert page.evaluate(_KEPT) == [["access"], 0, ""]
        assert page.context.cookies() == []
        assert not any("rk_" in url for url in visitor.asked)
        other = page.context.new_page()
        other.goto(page.url)
        expect(other.get_by_text("This service asks for a key.")).to_be_visible()
        page.get_by_role("button", name="Sign out").click()
        expect(page.get_by_label("Key", exact=True)).to_be_focused()
        assert page.evaluate(_KEPT) == [[], 0, ""]

    @pytest.mark.parametrize(("owner", "path", "state"), [("eve", "tasks", "Live"), ("adam", "queue", "Updated every 2 s")])
    def test_a_key_that_is_revoked(
        self, visitor_with_key: Callable[[str, str], Page], keyed: Keyed, owner: str, path: str, state: str
    ) -> None:
        page = visitor_with_key(owner, path)
        expect(page.get_by_text(state, exact=True)).to_be_visible()
        keyed.revoke(owner)
        expect(page.get_by_text("not valid any more")).to_be_visible()


class TestRoles:
    def test_a_key_that_may_predict_has_its_own_tasks(self, visitor_with_key: Callable[[str, str], Page], keyed: Keyed) -> None:
        keyed.classify("bob", "of-bob")
        page = visitor_with_key("alice", "?model=digits")
        expect(page.get_by_role("link", name="Queue", exact=True)).to_have_count(0)
        page.get_by_role("button", name="digit 7", exact=True).click()
        expect(page.locator(".answer strong")).to_have_text("7")
        page.get_by_role("link", name="All about this task").click()
        image = page.get_by_alt_text("The image of this task")
        expect(image).to_have_js_property("naturalWidth", 8)
        expect(image).to_have_attribute("src", re.compile("^blob:"))
        page.get_by_role("link", name="Tasks", exact=True).click()
        expect(page.get_by_role("button", name="Erase")).to_be_visible()
        assert "of-bob" not in rows_of(page)
        expect(page.get_by_role("columnheader", name="Owner")).to_have_count(0)
        page.goto(f"{keyed.service.url}/ui/tasks?owner=bob")
        expect(page.get_by_role("alert")).to_contain_text("This key lists the tasks of its owner alone.")
        page.goto(f"{keyed.service.url}/ui/models")
        expect(page.get_by_role("link", name="Try it").first).to_be_visible()
        for action in ("Make it the default", "Load other weights"):
            expect(page.get_by_text(action)).to_have_count(0)
        page.goto(f"{keyed.service.url}/ui/queue")
        expect(page.get_by_role("alert")).to_contain_text("this key has the role predict")

    def test_a_key_that_may_read_has_no_actions(self, visitor_with_key: Callable[[str, str], Page], keyed: Keyed) -> None:
        ids = {owner: keyed.classify(owner, f"for-{owner}") for owner in ("alice", "bob")}
        page = visitor_with_key("mona", "")
        expect(page.get_by_text("Your key may only read")).to_be_visible()
        for path, shown in (
            ("tasks", "for-bob"),
            ("models", "fragile"),
            (f"tasks/{ids['bob']}", "for-bob"),
            ("queue", "All is well."),
        ):
            page.goto(f"{keyed.service.url}/ui/{path}")
            expect(page.locator("main").get_by_text(shown).first).to_be_visible()
            for control in ("button", "checkbox"):
                expect(page.get_by_role("main").get_by_role(control)).to_have_count(0)
            for action in ("Load other weights", "Try it"):
                expect(page.get_by_text(action)).to_have_count(0)

    def test_who_sees_all_tasks_may_look_at_those_of_one_owner(
        self, visitor_with_key: Callable[[str, str], Page], keyed: Keyed
    ) -> None:
        for owner in ("alice", "bob"):
            keyed.classify(owner, f"one-of-{owner}")
        page = visitor_with_key("root", "tasks")
        page.get_by_role("row", name="one-of-bob").get_by_role("link", name="bob", exact=True).click()
        expect(page.get_by_label("Owner")).to_have_value("bob")
        expect(page.get_by_role("row", name="one-of-bob")).to_be_visible()
        expect(page.get_by_role("row", name="one-of-alice")).to_have_count(0)
        expect(page.get_by_text("Live", exact=True)).to_be_visible()
        keyed.classify("alice", "later-of-alice")
        keyed.classify("bob", "later-of-bob")
        expect(page.get_by_role("row", name="later-of-bob")).to_be_visible()
        assert "later-of-alice" not in rows_of(page)
        page.get_by_label("Owner").fill("nobody")
        page.get_by_label("Owner").press("Enter")
        expect(page.get_by_text("No task fits these filters.")).to_be_visible()
        assert page.url.endswith("/ui/tasks?owner=nobody")


class TestErasing:
    def test_one_and_many(self, visitor_with_key: Callable[[str, str], Page], keyed: Keyed) -> None:
        ids = [keyed.classify("alice", "to-erase") for _ in range(3)]
        page = visitor_with_key("alice", f"tasks/{ids[0]}")
        page.once("dialog", lambda dialog: dialog.accept())
        page.get_by_role("button", name="Erase").click()
        expect(page.get_by_role("heading", name="Erased")).to_be_visible()
        page.goto(f"{keyed.service.url}/ui/tasks?request_id=to-erase")
        expect(page.locator("tbody tr")).to_have_count(2)
        page.get_by_label("Select all tasks of this page").check()
        page.once("dialog", lambda dialog: dialog.dismiss())
        page.get_by_role("button", name="Erase 2").click()
        expect(page.locator("tbody tr")).to_have_count(2)
        page.once("dialog", lambda dialog: dialog.accept())
        page.get_by_role("button", name="Erase 2").click()
        expect(page.get_by_text("No task fits these filters.")).to_be_visible()
        expect(page.get_by_text("2 tasks erased.")).to_be_visible()
        assert {keyed.send("root", "GET", f"/tasks/{task_id}").status_code for task_id in ids} == {404}
        page.goto(f"{keyed.service.url}/ui/tasks/{ids[0]}")
        expect(page.get_by_role("alert")).to_contain_text("There is no task")


class TestDeadLetters:
    def test_one_is_found_by_clicks_alone_and_replayed(self, visitor_with_key: Callable[[str, str], Page], keyed: Keyed) -> None:
        keyed.crash.touch()
        page = visitor_with_key("root", "")
        page.get_by_label("Model").select_option("fragile")
        page.get_by_role("button", name="digit 7", exact=True).click()
        expect(page.get_by_role("alert")).to_contain_text("The predictor died")
        keyed.crash.unlink()
        page.get_by_role("link", name="Queue", exact=True).click()
        expect(page.get_by_text("1 dead letter")).to_be_visible()
        expect(page.get_by_text("All is well.")).to_have_count(0)
        page.get_by_role("link", name="Look at it").click()
        page.locator("tbody").get_by_role("button", name="Replay").click()
        expect(page.get_by_text("No dead letters.")).to_be_visible()
        page.get_by_role("status").get_by_role("link").click()
        expect(page.locator(".answer strong")).to_have_text("7")
        expect(page.get_by_text("Replay of")).to_be_visible()

    def test_replay_on_its_page_takes_it_off_the_list(self, visitor_with_key: Callable[[str, str], Page], keyed: Keyed) -> None:
        keyed.crash.touch()
        sent = keyed.send("alice", "POST", "/inference", files={"image": picture("x.png")["buffer"]}, data={"model": "fragile"})
        keyed.crash.unlink()
        assert sent.json()["code"] == "predictor_died", sent.text
        page = visitor_with_key("root", f"tasks/{sent.json()['task_id']}")
        expect(page.get_by_role("alert")).to_contain_text("The image is kept as a dead letter until it is replayed or discarded.")
        expect(page.get_by_text("There is no result to deliver.")).to_be_visible()
        page.get_by_role("button", name="Replay").click()
        expect(page.locator(".heading .status")).to_have_text("succeeded")
        assert keyed.send("root", "GET", "/dead-letters").json()["count"] == 0
