"""The tutorial of a model of the user's own: every command as it is printed, in its order, in an empty folder, by the wheel."""

from __future__ import annotations

import contextlib
import re
import subprocess
from pathlib import Path

import pytest
from support.client import Client, free_port
from support.wheel import Installation

pytestmark = [pytest.mark.process, pytest.mark.timeout(420)]

_PRINTED_URL = "http://127.0.0.1:30005"
_SERVE = "rohe-inference-service serve "
#: a code block, and the output that is shown right after it
_EXAMPLE = re.compile(r"^```(sh|python)\n(.*?)^```\n(?:\n```text\n(.*?)^```)?", re.MULTILINE | re.DOTALL)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "digits"
    path.mkdir()
    return path


def run(code: str, folder: Path, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-ec", code], cwd=folder, env=environment, capture_output=True, text=True, timeout=180, check=False
    )


def test_each_example_prints_what_is_shown(installation: Installation, repository: Path, folder: Path) -> None:
    client = Client(free_port())
    text = (repository / "docs/tutorial-own-model.md").read_text(encoding="utf-8").replace(_PRINTED_URL, client.url)
    author = {f"GIT_{who}_{what}": "tutorial@example.org" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    environment = installation.environment | author | {"INFERENCE_API__PORT": str(client.port)}
    outputs = {}
    with contextlib.ExitStack() as service:
        for language, code, shown in _EXAMPLE.findall(text):
            if language == "python":
                (folder / "train.py").write_text(code, encoding="utf-8")
            elif code.startswith(_SERVE) and not shown:
                service.close()  # as Ctrl-C in the first terminal does
                service.enter_context(installation.service(client, *code.split()[1:], folder=folder))
            else:
                done = run(code, folder, environment)
                is_refusal = shown.startswith("error: ")
                assert done.returncode == (2 if is_refusal else 0), f"{code}\n{done.stderr}"
                assert not shown or (done.stderr if is_refusal else done.stdout) == shown, code
                outputs[code.split("\n")[0].split(" -")[0]] = done.stdout

    assert "seven" in outputs["rohe-inference-service models check digits.keras"]
    assert '"label":"seven"' in outputs[next(code for code in outputs if code.startswith("tail"))].replace(": ", ":")
    assert "model.yaml" in outputs["git init"]
