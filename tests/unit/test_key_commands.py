"""`server.py keys`, as it is typed, on a real Redis server."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import redis
import yaml
from support.keys import key_document, new_key

import server
from inference.access import Limits
from inference.keys.entries import Key
from inference.keys.key_file import read_key_file
from inference.keys.key_store import KeyStore
from inference.keys.key_text import digest_of, id_of, is_well_formed

CREATE = ("create", "--owner", "ada", "--role", "predict")


@dataclass(frozen=True)
class Answer:
    code: int
    out: str
    err: str

    @property
    def last_line(self) -> str:
        return self.out.splitlines()[-1]


Run = Callable[..., Answer]


@pytest.fixture
def settings(redis_url: str, tmp_path: Path, key_prefix: str) -> dict[str, Any]:
    return {
        "data_dir": str(tmp_path),
        "models": ["models/digits"],
        "broker": {"url": redis_url},
        "task_store": {"key_prefix": key_prefix},
        "security": {"audit_file": str(tmp_path / "audit.jsonl"), "require_keys": True},
    }


@pytest.fixture
def run(settings: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs an action of `keys`."""

    def run(*arguments: str) -> Answer:
        config = tmp_path / "config.yaml"
        config.write_text(yaml.safe_dump(settings), encoding="utf-8")
        code = server.main(["keys", *arguments, "--config", str(config)])
        return Answer(code, *capsys.readouterr())

    return run


@pytest.fixture
def stored(redis_client: redis.Redis, key_prefix: str) -> Iterator[Callable[[], dict[str, Key]]]:
    """The keys in the record store."""
    store = KeyStore(redis_client, key_prefix)
    yield lambda: dict(store.read().keys)
    redis_client.delete(f"{key_prefix}:keys")


Stored = Callable[[], dict[str, Key]]


def audited(tmp_path: Path) -> list[tuple[str, str, str]]:
    lines = (tmp_path / "audit.jsonl").read_text(encoding="utf-8").splitlines()
    events = [json.loads(line) for line in lines]
    assert all(event["who"]["user"] and event["from"] == "command line" for event in events)
    return [(event["what"], event["target"], event["outcome"]) for event in events]


def test_new_key_is_the_last_line_and_its_digest_is_stored(run: Run, stored: Stored, tmp_path: Path) -> None:
    done = run(*CREATE, "--limit", "images_per_day=10", "--limit", "requests_per_s=2.5", "--expires", "90d")
    text = done.last_line
    key = stored()[id_of(text)]
    assert (done.code, done.err, is_well_formed(text), key.digest) == (0, "", True, digest_of(text))
    assert (key.caller.owner, key.caller.role) == ("ada", "predict")
    assert key.caller.limits == Limits(images_per_day=10, requests_per_s=2.5)
    assert key.created_at is not None
    assert key.expires_at == key.created_at + timedelta(days=90)
    assert audited(tmp_path) == [("key.create", key.key_id, "done")]
    assert text not in (tmp_path / "audit.jsonl").read_text()


def test_key_that_nobody_is_asked_for_is_noted(run: Run, settings: dict[str, Any], stored: Stored) -> None:
    del settings["security"]
    done = run(*CREATE)
    audit, note = done.err.splitlines()
    assert json.loads(audit)["what"] == "key.create"
    assert note == "note: the API of this configuration asks for no key: on loopback security.require_keys asks for one"
    assert stored().keys() == {id_of(done.last_line)}


def test_entry_for_the_file_is_what_the_file_takes(run: Run, stored: Stored, tmp_path: Path) -> None:
    done = run(*CREATE, "--limit", "burst=3", "--expires", "2099-01-31", "--entry")
    file = tmp_path / "keys.yaml"
    file.write_text(done.out.removesuffix(f"{done.last_line}\n"))
    key = read_key_file(file).keys[id_of(done.last_line)]
    assert (key.digest, key.caller.limits) == (digest_of(done.last_line), Limits(burst=3))
    assert key.expires_at == datetime(2099, 1, 31, tzinfo=UTC)
    assert stored() == {}


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (
            ["--owner", "a b"],
            "error: owner: must be 1 to 64 letters, digits and _ . @ -, ",
        ),
        (["--limit", "image_per_day=1"], "error: --limit.image_per_day: unknown key; did you mean images_per_day?\n"),
        (["--limit", "burst"], "error: --limit.burst: Input should be a valid integer, "),
    ],
)
def test_wrong_values_are_named(run: Run, stored: Stored, arguments: list[str], error: str) -> None:
    done = run(*CREATE, *arguments)
    assert (done.code, done.out, stored()) == (2, "", {})
    assert done.err.startswith(error)


@pytest.mark.parametrize("expiry", ["soon", "90", "2001-01-31", "-1d"])
def test_expiry_is_in_the_future(run: Run, expiry: str) -> None:
    with pytest.raises(SystemExit):
        run(*CREATE, f"--expires={expiry}")


def test_list_has_keys_of_both_sources_and_no_digest(run: Run, settings: dict[str, Any], stored: Stored, tmp_path: Path) -> None:
    assert run("list").out == "no keys\n"
    _, filed = new_key("grace")
    file = tmp_path / "keys.json"
    file.write_text(json.dumps(key_document(filed)))
    settings["security"]["keys_file"] = str(file)
    key_id = id_of(run(*CREATE, "--limit", "burst=3").last_line)
    assert run("list").out == f"{key_id}  ada  predict  store  burst=3\n{filed.key_id}  grace  predict  file\n"
    listed = run("list", "--json")
    assert [(key["id"], key["source"], key["is_expired"]) for key in json.loads(listed.out)] == [
        (key_id, "store", False),
        (filed.key_id, "file", False),
    ]
    assert stored()[key_id].digest.hex() not in listed.out


def test_revoked_key_is_gone(run: Run, stored: Stored, tmp_path: Path) -> None:
    key_id = id_of(run(*CREATE).last_line)
    assert run("revoke", key_id) == Answer(0, f"{key_id} is revoked\n", "")
    assert stored() == {}
    again = run("revoke", key_id)
    assert (again.code, again.err.split(";")[0]) == (2, f"error: there is no key {key_id} in the record store")
    assert audited(tmp_path)[1:] == [("key.revoke", key_id, "done"), ("key.revoke", key_id, "unknown")]


@pytest.mark.parametrize("action", ["revoke", "rotate"])
def test_whole_key_stands_for_its_id_and_is_in_no_message(run: Run, tmp_path: Path, action: str) -> None:
    text = run(*CREATE).last_line
    done = run(action, text)
    assert done.code == 0
    assert audited(tmp_path)[1] == (f"key.{action}", id_of(text), "done")
    assert text not in done.out + done.err + (tmp_path / "audit.jsonl").read_text()


@pytest.mark.parametrize("wrong", ["rk_short_secret", "aB3dE6gH9k:"])
def test_text_that_is_no_id_is_not_shown(run: Run, capsys: pytest.CaptureFixture[str], wrong: str) -> None:
    with pytest.raises(SystemExit):
        run("revoke", wrong)
    errors = capsys.readouterr().err
    assert "ID: it is not the id of a key" in errors
    assert wrong not in errors


def test_key_of_the_file_is_changed_there(run: Run, settings: dict[str, Any], tmp_path: Path) -> None:
    _, filed = new_key()
    file = tmp_path / "keys.json"
    file.write_text(json.dumps(key_document(filed)))
    settings["security"]["keys_file"] = str(file)
    for action in ("revoke", "rotate"):
        assert run(action, filed.key_id).err == f"error: the key {filed.key_id} is in {file}: change it there\n"


def test_rotated_key_has_a_successor_and_expires(run: Run, stored: Stored, tmp_path: Path) -> None:
    old_id = id_of(run(*CREATE, "--limit", "burst=3", "--expires", "30d").last_line)
    old = stored()[old_id]
    done = run("rotate", old_id, "--overlap", "2h")
    new = stored()[id_of(done.last_line)]
    assert (new.caller.owner, new.caller.role, new.caller.limits) == (old.caller.owner, old.caller.role, old.caller.limits)
    assert new.created_at is not None
    assert new.expires_at == new.created_at + timedelta(days=30)
    expires_at = stored()[old_id].expires_at
    assert expires_at is not None
    assert timedelta(hours=2) <= expires_at - new.created_at < timedelta(hours=2, minutes=1)
    assert audited(tmp_path)[1:] == [("key.rotate", old_id, "done")]
    assert run("rotate", "aB3dE6gH9k").code == 2
