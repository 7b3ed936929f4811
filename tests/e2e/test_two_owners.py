"""Two owners with keys on a running service: every route with the ids of the other, and the owner in what leaves the service."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from support.contract import operations
from support.file_sink import file_documents
from support.keys import key_document, new_key
from support.service import Service, wait_until

from inference.access import Role
from inference.runtime.redis import kombu_url
from inference.settings import load_settings

pytestmark = pytest.mark.process

UNKNOWN = "0" * 32
WITH_IDS = [(method, path) for method, path, _ in operations() if "{task_id}" in path or "{batch_id}" in path]
TIMEOUT_S = 90


class Keyed:
    """A service with a key of Alice, one of Bob, and one of an administrator."""

    def __init__(self, folder: Path) -> None:
        made = {owner: new_key(owner) for owner in ("alice", "bob")} | {"root": new_key("root", Role.ADMIN)}
        self._texts = {owner: text for owner, (text, _) in made.items()}
        file = folder / "keys.json"
        file.write_text(json.dumps(key_document(*(key for _, key in made.values()))), encoding="utf-8")
        self.service = Service(folder, {"models": ["models/digits"], "sinks": ["jsonl"], "security": {"keys_file": str(file)}})

    def send(self, owner: str, method: str, path: str, **options: object) -> requests.Response:
        headers = {"Authorization": f"Bearer {self._texts[owner]}"}
        return requests.request(method, self.service.url + path, headers=headers, timeout=TIMEOUT_S, **options)  # type: ignore[arg-type]

    def documents(self) -> list[dict[str, Any]]:
        """Documents of the file sink."""
        return file_documents(self.service.data_dir)


@pytest.fixture(scope="module")
def keyed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Keyed]:
    keyed = Keyed(tmp_path_factory.mktemp("service"))
    try:
        keyed.service.start()
        yield keyed
    finally:
        keyed.service.end()


@pytest.fixture(scope="module")
def ids(keyed: Keyed, repository: Path) -> dict[str, str]:
    """A task and a batch of Alice that have ended."""
    image = (repository / "samples/digit_7.png").read_bytes()
    task = keyed.send("alice", "POST", "/inference", files={"image": image}, data={"request_id": "r"})
    images = [("image", image), ("image", b"none")]
    batch = keyed.send("alice", "POST", "/inference/batch", files=images, data={"request_id": "r"})
    assert (task.status_code, batch.status_code) == (200, 200), (task.text, batch.text)
    return {"task_id": task.json()["task_id"], "batch_id": batch.json()["batch_id"]}


@pytest.mark.parametrize(("method", "path"), WITH_IDS)
def test_bob_gets_the_answer_of_an_unknown_id(keyed: Keyed, ids: dict[str, str], method: str, path: str) -> None:
    answer = keyed.send("bob", method, path.format(**ids))
    unknown = keyed.send("bob", method, path.format(task_id=UNKNOWN, batch_id=UNKNOWN))
    assert answer.status_code == unknown.status_code
    assert answer.status_code in {403, 404}, answer.text
    assert answer.text.replace(ids["task_id"], UNKNOWN).replace(ids["batch_id"], UNKNOWN) == unknown.text
    assert keyed.send("alice", "GET", f"/tasks/{ids['task_id']}").json()["status"] == "succeeded"


def test_lists_have_the_tasks_of_the_owner(keyed: Keyed, ids: dict[str, str]) -> None:
    for query in ("", "?request_id=r", "?status=succeeded"):
        found = {owner: keyed.send(owner, "GET", f"/tasks{query}").json()["tasks"] for owner in ("alice", "bob", "root")}
        assert found["bob"] == []
        assert ids["task_id"] in [task["task_id"] for task in found["alice"]]
        assert {task["owner"] for task in found["root"]} <= {"alice", "celery"}


def test_documents_name_the_owner(keyed: Keyed, ids: dict[str, str]) -> None:
    def delivered() -> list[object]:
        return [document["owner"] for document in keyed.documents() if document["task_id"] == ids["task_id"]]

    wait_until(delivered, timeout_s=TIMEOUT_S, what="the document of the task")
    assert delivered() == ["alice"]


def test_messages_of_celery_clients_belong_to_whom_they_name(keyed: Keyed, ids: dict[str, str], repository: Path) -> None:
    from celery import Celery  # noqa: PLC0415 as such a client does

    folder = keyed.service.data_dir / "uploads" / "uploads" / "mine"
    folder.mkdir(parents=True)
    (folder / "seven.png").write_bytes((repository / "samples/digit_7.png").read_bytes())
    app = Celery(broker=kombu_url(load_settings(keyed.service.config)))
    item = {"object": "uploads/mine/seven.png"}
    for owner, kwargs in (("celery", {}), ("bob", {"owner": "bob"})):
        sent = app.send_task("tasks.predict", kwargs={"items": [item], **kwargs}, queue="predict.digits").id
        wait_until(lambda sent=sent: keyed.send("root", "GET", f"/tasks/{sent}").ok, timeout_s=TIMEOUT_S, what="its record")
        assert keyed.send("root", "GET", f"/tasks/{sent}?wait=60").json()["owner"] == owner
        assert keyed.send("bob", "GET", f"/tasks/{sent}").ok is (owner == "bob")
        assert keyed.send("alice", "GET", f"/tasks/{sent}").status_code == 404
    taken = {"items": [item | {"task_id": ids["task_id"]}], "owner": "bob"}
    app.send_task("tasks.predict", kwargs=taken, queue="predict.digits")
    wait_until(lambda: "another owner has a task with this id" in keyed.service.log, timeout_s=TIMEOUT_S, what="the refusal")
    assert keyed.send("alice", "GET", f"/tasks/{ids['task_id']}").json()["attempts"] == 1
    assert keyed.send("bob", "GET", f"/tasks/{ids['task_id']}").status_code == 404
    app.close()
