"""Relay, status and the operators' commands need the models' names alone: no file is looked for, fetched or hashed for them."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import redis
import yaml
from support.samples import a_failure, a_request

import server
from inference.container import Services
from inference.errors import ConfigurationError
from inference.models.files import ModelFiles
from inference.models.registry import ModelRegistry
from inference.relay.process import _runners
from inference.rollout.desired_state import RolloutStore
from inference.settings import Settings, load_settings
from inference.status.collect import status_of
from inference.task_store import Commit

INPUT = {"shape": [8, 8, 1]}
MODELS = [
    {"name": "missing", "file": "nowhere/m.keras", "labels_file": "nowhere/labels.txt", "input": INPUT},
    {"name": "far", "version": "7", "file": "s3://models/m.keras", "input": INPUT},  # on a server that is down
]


@pytest.fixture
def config(tmp_path: Path, redis_url: str, key_prefix: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    def resolve(*_: object, **__: object) -> None:
        pytest.fail("the models' files were looked for")

    monkeypatch.setattr(ModelFiles, "resolve", resolve)
    document: dict[str, Any] = {
        "data_dir": str(tmp_path / "data"),
        "models": MODELS,
        "sinks": [],
        "broker": {"url": redis_url},
        "task_store": {"key_prefix": key_prefix},
        "s3": {"endpoint": "http://127.0.0.1:9"},
    }
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump(document), encoding="utf-8")
    return file


@pytest.fixture
def settings(config: Path) -> Settings:
    return load_settings(config)


def a_dead_letter(settings: Settings) -> str:
    services = Services(settings)
    task_id = services.store.accept(a_request(queue="predict.far"), enqueue=None, max_queue_depth=0).task_id
    services.objects.put(services.store.get(task_id).item.object_key, b"image")
    services.store.lease("w", [task_id])
    services.store.start("w", [task_id])
    assert services.store.commit("w", [Commit(task_id, 1, a_failure(), dead_letter=True)]) == [True]
    return task_id


def test_status(settings: Settings) -> None:
    status = status_of(Services(settings))
    assert status.stores == {"task_store": "ok", "broker": "ok", "object_store": "ok"}
    assert [(model.model, model.version) for model in status.models] == [("missing", "1"), ("far", "7")]


def test_the_status_command(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert server.main(["status", "--config", str(config)]) == 1
    assert "! no worker has far loaded" in capsys.readouterr().out


def test_the_relay(settings: Settings) -> None:
    stopping = threading.Event()
    stopping.set()
    for runner in _runners(settings, Services(settings)).values():
        runner.run(stopping)


def test_reset_models(config: Path, redis_client: redis.Redis, key_prefix: str, capsys: pytest.CaptureFixture[str]) -> None:
    desired = RolloutStore(redis_client, key_prefix)
    desired.serve("far")
    assert server.main(["reset-models", "--config", str(config)]) == 0
    assert desired.read().served is None
    assert "served model (missing)" in capsys.readouterr().out


@pytest.mark.parametrize("ensemble", [None, True])
def test_dead_letters(
    config: Path, settings: Settings, redis_client: redis.Redis, key_prefix: str, ensemble: bool | None
) -> None:
    if ensemble is not None:
        RolloutStore(redis_client, key_prefix).set_ensemble(ensemble)
    for action in (["list"], ["replay", a_dead_letter(settings)], ["discard", a_dead_letter(settings)]):
        assert server.main(["dead-letters", "--config", str(config), *action]) == 0


def test_keys_and_erasure(config: Path, settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    assert server.main(["keys", "create", "--owner", "lab", "--role", "admin", "--config", str(config)]) == 0
    assert server.main(["keys", "list", "--config", str(config)]) == 0
    assert "lab" in capsys.readouterr().out
    task_id = a_dead_letter(settings)
    assert server.main(["erase", task_id, "--config", str(config)]) == 0


@pytest.mark.parametrize("module", ["celeryconfig", "inference.relay.process", "inference.status.collect", "server"])
def test_it_imports_no_library_of_models_or_images(config: Path, repository: Path, module: str) -> None:
    """Flower reads celeryconfig, and the relay, status and other commands start on hosts without any of these libraries."""
    done = subprocess.run(
        [sys.executable, "-c", f"import sys, {module}; print(*sorted(sys.modules))"],
        cwd=repository,
        env=os.environ | {"INFERENCE_CONFIG": str(config)},
        capture_output=True,
        text=True,
        check=True,
    )
    imported = {name.partition(".")[0] for name in done.stdout.split()}
    assert module.partition(".")[0] in imported
    assert not imported & {"tensorflow", "keras", "tf_keras", "ai_edge_litert", "onnxruntime", "h5py", "PIL", "flask", "gevent"}


def test_check_config_looks_for_the_files(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    assert server.main(["check-config", str(config)]) == 2


def test_a_worker_looks_for_the_files_of_its_own_models_alone(repository: Path) -> None:
    """The files of the other models may be on other hosts."""
    settings = Settings(models=(repository / "models" / "digits", *MODELS))
    models = ModelRegistry.load(settings, ["digits"])
    assert [spec.name for spec in models] == ["digits"]
    with pytest.raises(ConfigurationError, match="there is no file nowhere"):
        ModelRegistry.load(settings)
