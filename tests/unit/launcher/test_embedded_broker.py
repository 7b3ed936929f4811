"""The embedded broker as the launcher sees it."""

from __future__ import annotations

from pathlib import Path

from inference.launcher import embedded_broker
from inference.runtime.memory import usable_memory_bytes


def test_a_broker_that_is_down_is_not_up(tmp_path: Path) -> None:
    assert not embedded_broker.is_up(tmp_path)


def test_it_holds_no_more_than_a_share_of_the_machines_memory(tmp_path: Path) -> None:
    """And its log has no line for each rewrite of its file, which nothing would ever shorten."""

    def option(name: str, *arguments: int) -> str:
        command = embedded_broker.command(tmp_path, *arguments)
        return command[command.index(f"--{name}") + 1]

    assert option("maxmemory", 64) == str(64 * 2**20)
    assert 0.3 < int(option("maxmemory")) / usable_memory_bytes() < 0.5
    assert (option("maxmemory-policy"), option("loglevel")) == ("noeviction", "warning")
