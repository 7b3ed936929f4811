"""What a relay process runs: a thread for each configured sink, and the sweeping in any case."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from inference.relaying import _runners
from inference.settings import load_settings


@pytest.mark.parametrize(
    ("choice", "relays"),
    [
        ({}, ["relay-jsonl"]),
        ({"ensemble": True}, ["relay-kafka", "relay-mongodb"]),  # the mode may change
        ({"ensemble": False}, ["relay-kafka", "relay-mongodb"]),
        ({"sinks": ["jsonl", "kafka"]}, ["relay-jsonl", "relay-kafka"]),
        ({"sinks": []}, []),
    ],
    ids=str,
)
def test_there_is_a_relay_for_each_sink(redis_url: str, tmp_path: Path, choice: dict[str, Any], relays: list[str]) -> None:
    settings = load_settings(None, {"data_dir": tmp_path, "models": ["models/digits"], "broker": {"url": redis_url}} | choice)
    runners = _runners(settings)
    assert runners.keys() == {*relays, "sweeper", "retention"}
    stopping = threading.Event()
    stopping.set()
    for run in runners.values():
        run(stopping)  # which closes what was opened
