"""The tutorial's examples, run as they are printed, in their order."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from support.service import Service

pytestmark = pytest.mark.process

_PRINTED_URL = "http://127.0.0.1:30005"
#: a code block, and the output that is shown right after it
_EXAMPLE = re.compile(r"^```(sh|python)\n(.*?)^```\n(?:\n```text\n(.*?)^```)?", re.MULTILINE | re.DOTALL)


def test_each_example_prints_what_is_shown(service: Service, repository: Path) -> None:
    text = (repository / "docs/tutorial.md").read_text(encoding="utf-8").replace(_PRINTED_URL, service.url)
    outputs = []
    for language, code, shown in _EXAMPLE.findall(text):
        command = ["bash", "-ec", code] if language == "sh" else [sys.executable, "-c", code]
        done = subprocess.run(command, cwd=repository, capture_output=True, text=True, timeout=90, check=False)
        assert done.returncode == 0, f"{code}\n{done.stderr}"
        assert not shown or done.stdout == shown, code
        outputs.append(done.stdout)

    photo, _, refused, *_ = outputs
    assert json.loads(photo)["response"]["label"] == "espresso"
    assert json.loads(refused)["status"] == 400
