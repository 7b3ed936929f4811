"""`server.py`'s commands for an operator, as they are typed."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from pathlib import Path
from unittest.mock import Mock

import orjson
import pytest
import yaml
from support.samples import a_request, a_success

import server
from inference.container import Services
from inference.errors import ServiceUnavailable
from inference.lifecycle.erasures import Erasures
from inference.settings import load_settings
from inference.task_store import Commit
from inference.task_store.outbox import Outbox

Run = Callable[..., tuple[int, str]]


@pytest.fixture
def config(redis_url: str, tmp_path: Path) -> Path:
    settings = {
        "data_dir": str(tmp_path),
        "models": ["models/digits"],
        "broker": {"url": redis_url},
        "task_store": {"key_prefix": f"test-{uuid.uuid4().hex[:12]}"},
    }
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump(settings), encoding="utf-8")
    return file


@pytest.fixture
def run(config: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command; gives its exit code and what it printed."""

    def run(*arguments: str) -> tuple[int, str]:
        code = server.main([*arguments, "--config", str(config)])
        return code, capsys.readouterr().out

    return run


def refuse(config: Path) -> str:
    """A succeeded task whose sink refuses the result; its id."""
    settings = load_settings(config)
    services = Services(settings)
    task_id = services.store.accept(a_request(sinks=("jsonl",)), enqueue=None, max_queue_depth=0).task_id
    services.store.lease("w", [task_id])
    services.store.start("w", [task_id])
    services.store.commit("w", [Commit(task_id, 1, a_success())])
    outbox = Outbox(services.redis, settings.task_store.key_prefix, "jsonl", "relay")
    outbox.open()
    (entry,) = outbox.take(10, block_ms=1)
    services.store.refuse_deliveries("jsonl", [(entry.entry_id, task_id, "too large")])
    return task_id


def test_a_result_that_a_sink_refused_is_listed_with_the_reason_and_delivered_again(run: Run, config: Path) -> None:
    task_id = refuse(config)
    code, listed = run("dead-letters", "list")
    assert code == 0
    assert listed.startswith(task_id)
    assert listed.endswith("jsonl: too large\n")
    assert run("dead-letters", "replay", task_id) == (0, f"{task_id} is delivered again\n")
    assert run("dead-letters", "list") == (0, "")
    assert Services(load_settings(config)).outbox_stats("jsonl").entries == 1


def test_actions_on_dead_letters_are_in_the_audit_log(run: Run, config: Path, tmp_path: Path) -> None:
    task_id, file = refuse(config), tmp_path / "audit.jsonl"
    config.write_text(f"{config.read_text()}\nsecurity: {{audit_file: {file}}}\n")
    assert run("dead-letters", "inspect", task_id)[0] == 0
    assert run("dead-letters", "discard", task_id)[0] == 0
    assert run("dead-letters", "replay", task_id)[0] == 1
    assert run("reset-models")[0] == 0
    events = [json.loads(line) for line in file.read_text().splitlines()]
    assert [(event["what"], event["target"], event["outcome"]) for event in events] == [
        ("dead_letter.discard", task_id, "done"),
        ("dead_letter.replay", task_id, "task_not_found"),
        ("models.reset", "digits", "done"),
    ]


def test_a_list_that_is_cut_says_so(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    task_ids = [refuse(config) for _ in range(3)]
    for arguments, listed, said in (
        ([], 3, ""),
        (["--limit", "3"], 3, ""),
        (["--limit", "2"], 2, "the oldest 2 of 3 dead letters; --limit N lists more\n"),
    ):
        assert server.main(["dead-letters", "list", *arguments, "--config", str(config)]) == 0
        printed = capsys.readouterr()
        assert [line.partition(" ")[0] for line in printed.out.splitlines()] == task_ids[:listed]
        assert printed.err == said


def test_erase_removes_tasks_and_says_what_is_left_to_do(
    config: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("inference.lifecycle.erasures._WAIT_S", 0.05)
    services = Services(load_settings(config))
    mine, theirs, unsunk = (
        services.store.accept(a_request(request_id="r", **changes), enqueue=None, max_queue_depth=0).task_id
        for changes in ({"owner": "me"}, {"owner": "them"}, {})
    )
    refused = refuse(config)

    def erase(*arguments: str) -> tuple[int, str, str]:
        code = server.main(["erase", *arguments, "--config", str(config)])
        return code, *capsys.readouterr()

    code, out, err = erase(refused, unsunk, "unknown")
    assert (code, out) == (1, f"{refused}  erased\n{unsunk}  erased\n")
    assert "there is no task unknown" in err
    assert "records: erased, images: erased, jsonl: pending\n" in err
    assert "the relay" in err
    (event,) = (orjson.loads(line) for line in err.splitlines() if line.startswith("{"))
    assert (event["what"], event["target"], event["tasks"]) == ("task.erase", f"{refused}, {unsunk}", 2)

    with monkeypatch.context() as failing:
        failing.setattr(Erasures, "erase", Mock(side_effect=ServiceUnavailable("the task store does not answer")))
        code, out, err = erase(mine)
    (event,) = (orjson.loads(line) for line in err.splitlines() if line.startswith("{"))
    assert (code, out, event["what"], event["outcome"]) == (1, "", "task.erase", "service_unavailable")

    code, out, err = erase("--request-id", "r", "--owner", "me")
    assert (code, out, "pending" in err) == (0, f"{mine}  erased\n", False)
    assert erase("--request-id", "r")[:2] == (0, f"{theirs}  erased\n")
    assert erase("--request-id", "r")[:2] == (1, "")
    for wrong in ((), ("1", "--request-id", "r")):
        assert erase(*wrong)[0] == 2


@pytest.mark.parametrize("limit", ["0", "-1", "many"])
def test_a_limit_that_is_none_is_refused(run: Run, capsys: pytest.CaptureFixture[str], limit: str) -> None:
    with pytest.raises(SystemExit) as caught:
        run("dead-letters", "list", f"--limit={limit}")
    assert caught.value.code == 2
    assert "--limit" in capsys.readouterr().err


def test_status_exits_with_1_when_something_needs_a_look(run: Run, config: Path) -> None:
    refuse(config)
    code, printed = run("status")
    assert code == 1
    assert printed.endswith("1 dead letters\n! no worker has digits loaded\n")
    code, printed = run("status", "--json")
    assert code == 1
    assert orjson.loads(printed)["dead_letters"] == 1
