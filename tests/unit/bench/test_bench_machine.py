"""The caption says what the figures were measured on."""

from __future__ import annotations

import platform
import re

from bench import machine


def test_processor_cores_memory_software_and_day_are_named() -> None:
    text = machine.description()

    assert re.fullmatch(r".+, \d+ cores, \d+ GB; Python [\d.]+, TensorFlow \d+[\w.]+, .+; \d{4}-\d\d-\d\d", text), text
    assert f"Python {platform.python_version()}" in text
