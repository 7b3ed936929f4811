"""The examples of the client's pages, run as they are printed, in their order and in one Python process each page."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from support.service import Service

pytestmark = pytest.mark.process

_PRINTED_URL = "http://127.0.0.1:30005"
#: a block of code, and the output that is shown right after it
_EXAMPLE = re.compile(r"^```python\n(.*?)^```\n(?:\n```text\n(.*?)^```)?", re.MULTILINE | re.DOTALL)
#: Runs blocks in one namespace, and prints the output of each as JSON.
_RUNNER = """
import contextlib, io, json, sys
names, outputs = {"__name__": "__main__"}, []
for code in json.load(sys.stdin):
    with contextlib.redirect_stdout(io.StringIO()) as output:
        exec(code, names)
    outputs.append(output.getvalue())
print(json.dumps(outputs))
"""


@pytest.mark.parametrize("page", ["docs/client.md", "client/README.md"])
def test_each_example_prints_what_is_shown(service: Service, repository: Path, page: str) -> None:
    text = (repository / page).read_text(encoding="utf-8").replace(_PRINTED_URL, service.url)
    examples = _EXAMPLE.findall(text)
    environment = os.environ | {"PYTHONPATH": str(repository / "client/src"), "ROHE_INFERENCE_URL": service.url}

    done = subprocess.run(
        [sys.executable, "-c", _RUNNER],
        input=json.dumps([code for code, _ in examples]),
        cwd=repository,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    shown = [output for _, output in examples]
    assert len(shown) > 1
    assert [real if output else "" for real, output in zip(json.loads(done.stdout), shown, strict=True)] == shown
