"""README's examples, run as they are printed."""

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

PRINTED_URL = "http://127.0.0.1:30005"


def blocks(repository: Path, language: str) -> list[str]:
    """Code blocks of README's API section."""
    text = (repository / "README.md").read_text(encoding="utf-8").split("## The API by example")[1].split("\n## ")[0]
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def run(command: list[str], repository: Path) -> str:
    environment = os.environ | {"PYTHONPATH": str(repository / "client/src")}
    done = subprocess.run(command, cwd=repository, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_curl_examples(service: Service, repository: Path) -> None:
    examples = [block for block in blocks(repository, "sh") if "curl" in block]
    photo, batch, later = (block.replace(PRINTED_URL, service.url) for block in examples)

    assert json.loads(run(["bash", "-ec", photo], repository))["response"]["label"] == "espresso"
    items = json.loads(run(["bash", "-ec", batch], repository))["items"]
    assert [item["status"] for item in items] == ["succeeded", "succeeded"]
    task, found, canceled = (json.loads(line) for line in run(["bash", "-ec", later], repository).splitlines())
    assert task["status"] == "succeeded"
    assert task["task_id"] in [one["task_id"] for one in found["tasks"]]
    assert canceled["code"] == "task_already_finished"


def test_the_command_line_examples(service: Service, repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROHE_INFERENCE_URL", service.url)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    (example,) = (block for block in blocks(repository, "sh") if block.startswith("rohe-inference"))
    program = f"rohe-inference() {{ {sys.executable} -c 'from rohe_inference.cli import main; main()' \"$@\"; }}"
    (tmp_path / "samples").symlink_to(repository / "samples")

    output = run(["bash", "-ec", f"cd {tmp_path}\n{program}\n{example}"], repository)

    assert "espresso" in output
    rows = (tmp_path / "labels.csv").read_text(encoding="utf-8").splitlines()
    assert [row.split(",")[0] for row in rows] == ["file", *sorted(row.split(",")[0] for row in rows[1:])]
    assert len(rows) == 5


def test_the_python_example(service: Service, repository: Path) -> None:
    (example,) = (block.replace(PRINTED_URL, service.url) for block in blocks(repository, "python"))

    assert run([sys.executable, "-c", example], repository) == "espresso\n"


def test_the_answer_has_the_members_that_are_shown(service: Service, repository: Path) -> None:
    (shown,) = blocks(repository, "json")
    answer = service.post(repository / "samples/coffee.jpg").json()

    assert answer.keys() == json.loads(shown).keys()
    assert answer["response"].keys() == json.loads(shown)["response"].keys()
    assert answer["model"].keys() == json.loads(shown)["model"].keys()
