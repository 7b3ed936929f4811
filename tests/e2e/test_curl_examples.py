"""The curl examples of the pages, each block as it is printed, against one running service."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import requests
from support.service import Service

pytestmark = pytest.mark.process

_PRINTED_URL = "http://127.0.0.1:30005"
_BLOCK = re.compile(r"^```sh\n(.*?)^```", re.MULTILINE | re.DOTALL)
PAGES = ("docs/http.md", "docs/v2.md", "docs/first-week.md")
#: Examples that this service cannot serve, by a text in them, with the reason.
NOT_RUN = {
    "webhook=": "webhooks are off without a secret",
    "weights_url=/models/new.keras": "the file is a reader's own",
    "server.py": "they are commands of an operator, which other tests run",
    "pkill": "it would end processes of others",
}
#: curl's exit code at the end of `--max-time`, which ends a stream here.
_TIMED_OUT = 28


def examples() -> list[tuple[str, str]]:
    found = [(page, code) for page in PAGES for code in _BLOCK.findall((Path(__file__).parents[2] / page).read_text("utf-8"))]
    return [(page, code) for page, code in found if "curl" in code and not any(text in code for text in NOT_RUN)]


def test_pages_have_examples_of_each_kind() -> None:
    text = "".join(code for _, code in examples())
    assert all(
        part in text for part in ("/inference", "/inference/batch", "/uploads", "/events", "/v2/models", "--json", "TASK_ID")
    )
    pages = "".join((Path(__file__).parents[2] / page).read_text("utf-8") for page in PAGES)
    assert [text for text in NOT_RUN if text not in pages] == []


@pytest.mark.parametrize(("page", "code"), examples(), ids=[f"{Path(page).stem}-{code[:40]}" for page, code in examples()])
def test_example_is_served(service: Service, repository: Path, tmp_path: Path, page: str, code: str) -> None:
    if "jq" in code and shutil.which("jq") is None:
        pytest.skip("jq is not installed")
    task_id = requests.post(
        f"{service.url}/inference", files={"image": (repository / "samples/coffee.jpg").read_bytes()}, timeout=90
    ).headers["Task-Id"]
    (tmp_path / "samples").symlink_to(repository / "samples")
    script = code.replace(_PRINTED_URL, service.url).replace("TASK_ID", task_id).replace("$KEY", "no key is asked for")
    script = script.replace("curl -N", "curl --max-time 3 -N").replace("curl ", "curl -sS --fail-with-body ")
    for command in [script] if "<<" in script or "\\\n" in script or "|" in script else script.splitlines():
        done = subprocess.run(
            ["bash", "-c", f"set -eo pipefail; {command}"], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert done.returncode in ({0, _TIMED_OUT} if "--max-time" in command else {0}), (
            f"{command}\n{done.stdout}\n{done.stderr}"
        )
