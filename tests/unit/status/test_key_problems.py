"""Problems of the callers' keys in status: a file with errors, and keys that expire soon without a successor."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from inference.access import Caller, Role
from inference.container import Services
from inference.keys.entries import Key
from inference.keys.key_text import digest_of, id_of, new_key_text
from inference.settings import load_settings
from inference.status.collect import status_of

NOW = datetime.now(UTC)


class Rig:
    def __init__(self, folder: Path, redis_url: str, key_prefix: str) -> None:
        self.keys_file = folder / "keys.yaml"
        self.write({"keys": {}})
        settings: dict[str, Any] = {
            "data_dir": folder,
            "models": ["models/digits"],
            "sinks": [],
            "broker": {"url": redis_url},
            "task_store": {"key_prefix": key_prefix},
            "security": {"keys_file": str(self.keys_file)},
        }
        self.services = Services(load_settings(None, settings))

    def write(self, document: object) -> None:
        self.keys_file.write_text(yaml.safe_dump(document), encoding="utf-8")

    def add(self, days: float | None, owner: str = "lab", role: Role = Role.PREDICT) -> None:
        text = new_key_text()
        expires_at = None if days is None else NOW + timedelta(days=days)
        self.services.key_store.add(Key(Caller(owner, role, id_of(text)), digest_of(text), NOW, expires_at))

    def problems(self) -> list[str]:
        return [problem for problem in status_of(self.services).problems if "key" in problem]


@pytest.fixture
def rig(tmp_path: Path, redis_url: str, key_prefix: str) -> Rig:
    return Rig(tmp_path, redis_url, key_prefix)


def test_a_file_with_errors_is_a_problem_until_it_is_right_again(rig: Rig) -> None:
    assert rig.problems() == []
    rig.write({"keys": {"wrong": {}}, "owners": {}})
    (problem,) = rig.problems()
    assert problem.startswith("security.keys_file has errors, and an earlier version of it counts: ")
    rig.write({"keys": {}, "owners": {"lab": {}}})
    assert rig.problems() == []


def test_keys_that_expire_within_a_week_are_a_problem_and_neither_key_nor_owner_is_named(rig: Rig) -> None:
    for days in (3, 6.9, 7.1, -1, None):
        rig.add(days, owner=f"lab{days}".replace("-", "m"))
    (problem,) = rig.problems()
    first = NOW + timedelta(days=3)
    assert problem.startswith(f"2 of the callers' keys expire within 7 days, the first at {first:%Y-%m-%d %H:%M} UTC: ")
    assert "lab" not in problem


@pytest.mark.parametrize(
    ("owner", "role", "is_replaced"), [("lab", Role.PREDICT, True), ("lab", Role.READ, False), ("x", Role.PREDICT, False)]
)
def test_a_key_whose_owner_has_another_one_is_replaced(rig: Rig, owner: str, role: Role, is_replaced: bool) -> None:
    rig.add(3)
    rig.add(30, owner, role)
    assert (rig.problems() == []) is is_replaced
