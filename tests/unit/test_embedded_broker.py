"""The embedded broker as the launcher sees it."""

from __future__ import annotations

import time
from pathlib import Path

from inference.launcher import embedded_broker


def test_a_broker_that_is_down_is_known_at_once(tmp_path: Path) -> None:
    began = time.monotonic()
    assert not embedded_broker.is_up(tmp_path)
    assert time.monotonic() - began < 0.5
