"""`server.py reset-models`: what commands changed is the configuration's again."""

from __future__ import annotations

from pathlib import Path

import pytest
import redis
import yaml

import server
from inference.rollout.desired_state import DesiredState, RolloutStore


def test_it_forgets_what_commands_changed(
    tmp_path: Path, redis_url: str, redis_client: redis.Redis, key_prefix: str, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = {
        "models": ["models/digits"],
        "broker": {"url": redis_url},
        "task_store": {"key_prefix": key_prefix},
    }
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump(settings), encoding="utf-8")
    desired = RolloutStore(redis_client, key_prefix)
    desired.serve("other")
    desired.set_ensemble(True)

    assert server.main(["reset-models", "--config", str(config)]) == 0

    assert desired.read() == DesiredState()
    assert "digits" in capsys.readouterr().out
