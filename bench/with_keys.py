"""The service with a key for each of some owners."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import yaml

from bench.contenders import Ours, Request
from bench.workload import Workload
from inference.keys.key_text import id_of, new_key_text


class OursWithKeys(Ours):
    """The service with a key for each of these owners; requests are those of the first."""

    def __init__(self, name: str, settings: Mapping[str, object], owners: Sequence[str]) -> None:
        super().__init__(name, {}, settings)
        self._first = owners[0]
        self._keys = {owner: new_key_text() for owner in owners}

    def write_config(self, work: Workload, folder: Path) -> Path:
        config = super().write_config(work, folder)
        keys = {
            id_of(key): {"owner": owner, "role": "admin", "sha256": hashlib.sha256(key.encode()).hexdigest()}
            for owner, key in self._keys.items()
        }
        file = folder / "keys.yaml"
        file.write_text(yaml.safe_dump({"keys": keys}), encoding="utf-8")
        file.chmod(0o600)
        document = yaml.safe_load(config.read_text(encoding="utf-8")) | {"security": {"keys_file": str(file)}}
        config.write_text(yaml.safe_dump(document), encoding="utf-8")
        return config

    def request(self, work: Workload, url: str, folder: Path) -> Request:
        return replace(super().request(work, url, folder), headers=self.headers(self._first))

    def headers(self, owner: str) -> dict[str, str]:
        return {"Authorization": f"Bearer {self._keys[owner]}"}
