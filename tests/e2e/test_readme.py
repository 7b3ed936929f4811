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


def run(command: list[str], repository: Path, *, folder: Path | None = None, **variables: str) -> str:
    environment = os.environ | {"PYTHONPATH": str(repository / "client/src")} | variables
    cwd = folder or repository
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_curl_examples(service: Service, repository: Path) -> None:
    photo, batch, later, _ = (block.replace(PRINTED_URL, service.url) for block in blocks(repository, "sh"))

    assert json.loads(run(["bash", "-ec", photo], repository))["response"]["label"] == "espresso"
    items = json.loads(run(["bash", "-ec", batch], repository))["items"]
    assert [item["status"] for item in items] == ["succeeded", "succeeded"]
    task, found, canceled = (json.loads(line) for line in run(["bash", "-ec", later], repository).splitlines())
    assert task["status"] == "succeeded"
    assert task["task_id"] in [one["task_id"] for one in found["tasks"]]
    assert canceled["code"] == "task_already_finished"


def test_the_python_example(service: Service, repository: Path) -> None:
    (example,) = (block.replace(PRINTED_URL, service.url) for block in blocks(repository, "python"))

    assert run([sys.executable, "-c", example], repository) == "espresso\n"


def test_the_examples_of_the_command_line(service: Service, repository: Path, tmp_path: Path) -> None:
    *_, examples = blocks(repository, "sh")
    (tmp_path / "samples").symlink_to(repository / "samples")
    program = f"""rohe-inference() {{ {sys.executable} -c 'from rohe_inference.cli import main; main()' "$@"; }}\n"""
    variables = {"ROHE_INFERENCE_URL": service.url, "XDG_CONFIG_HOME": str(tmp_path), "XDG_STATE_HOME": str(tmp_path)}
    table = run(["bash", "-ec", program + examples], repository, folder=tmp_path, **variables)

    assert "samples/coffee.jpg   espresso" in table
    rows = (tmp_path / "labels.csv").read_text(encoding="utf-8").splitlines()
    assert [row.split(",")[:2] for row in rows[1:]] == [
        [f"samples/{name}", "succeeded"] for name in ("chelsea.jpg", "coffee.jpg", "digit_7.png", "rocket.webp")
    ]


def test_the_answer_has_the_members_that_are_shown(service: Service, repository: Path) -> None:
    (shown,) = blocks(repository, "json")
    answer = service.post(repository / "samples/coffee.jpg").json()

    assert answer.keys() == json.loads(shown).keys()
    assert answer["response"].keys() == json.loads(shown)["response"].keys()
    assert answer["model"].keys() == json.loads(shown)["model"].keys()
