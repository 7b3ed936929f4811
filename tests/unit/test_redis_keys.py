"""docs/redis-keys.md and the Lua scripts' comments name the Redis keys that the code uses."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.redis_keys import LUA, ROOT, KeyFamily, documented, in_header, in_python, in_script

#: Pub/Sub channels, and no keys
CHANNELS = {"replies", "changes"}
SCRIPTS = sorted(LUA.glob("[!_]*.lua"))


def test_each_key_of_the_code_has_a_row_and_each_row_a_key() -> None:
    files = [file for folder in ("api", "inference", "tasks") for file in (ROOT / folder).rglob("*.py")]
    used = in_python(files).union(*(in_script(script) for script in SCRIPTS))

    assert used - CHANNELS == {family.name for family in documented() if family.key.startswith("PREFIX:")}


@pytest.mark.parametrize("script", SCRIPTS, ids=[script.stem for script in SCRIPTS])
def test_script_begins_with_the_keys_that_it_uses(script: Path) -> None:
    assert in_header(script) == in_script(script)


def test_keys_of_the_claim_are_the_brokers(repository: Path) -> None:
    (script,) = (repository / "tasks").rglob("claim.lua")

    assert in_header(script)
    assert in_header(script) <= {family.name for family in documented()}


def test_family_matches_its_keys_alone() -> None:
    worker = KeyFamily("PREFIX:worker:WORKER", "string")

    assert worker.matches("inference:worker:host:4711:ab", "inference")
    assert not worker.matches("inference:workers", "inference")
    assert not worker.matches("inference:worker:", "inference")
    assert KeyFamily(r"QUEUE\x06\x16STEP", "list").matches("predict.digits\x06\x169", "inference")
