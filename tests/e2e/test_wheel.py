"""The wheel: built, installed and used in a folder that has nothing of ours."""

from __future__ import annotations

import importlib.metadata
import re
import shutil
import subprocess
import zipfile
from pathlib import Path

import pytest
from support.client import Client, free_port, wait_until
from support.wheel import Installation

from inference import __version__

pytestmark = pytest.mark.process

_APPLICATION = "rohe_inference_service/app"


def test_only_our_package_is_installed(installation: Installation) -> None:
    names = {path.name for path in installation.packages.iterdir()} - {"others.pth"}

    assert names == {"rohe_inference_service", f"rohe_inference_service-{__version__}.dist-info"}


def test_each_file_of_the_application_is_in_the_wheel(wheel: Path, repository: Path) -> None:
    places = [
        "api",
        "inference",
        "tasks",
        "models",
        "samples",
        "configurations",
        "server.py",
        "celeryconfig.py",
        "flowerconfig.py",
    ]
    listed = subprocess.run(["git", "ls-files", *places], cwd=repository, capture_output=True, text=True, check=True).stdout
    tracked = {f"{_APPLICATION}/{name}" for name in listed.splitlines() if (repository / name).exists()}

    packed = set(zipfile.ZipFile(wheel).namelist())
    assert tracked - packed == set()
    assert [name for name in packed if name.endswith(".pyc")] == []


def test_dependencies_are_those_of_the_requirements_files(installation: Installation, repository: Path) -> None:
    (found,) = importlib.metadata.distributions(path=[str(installation.packages)], name="rohe-inference-service")
    needed = [re.split(r"; ?", line, maxsplit=1) for line in found.requires or ()]
    base = [requirement for requirement, *marker in needed if not any("extra" in text for text in marker)]
    extras = {
        extra: [need for need, *marker in needed if f"extra == '{extra}'" in "".join(marker)] for extra in ("tensorflow", "gpu")
    }

    lines = (repository / "requirements-base.txt").read_text(encoding="utf-8").splitlines()
    assert sorted(base) == sorted(line.split()[0] for line in lines if re.match(r"\w", line))
    assert set(found.metadata.get_all("Provides-Extra")) == {"tensorflow", "gpu", "litert", "onnx", "tracing"}
    assert not any("tensorflow" in requirement for requirement in base)
    assert all(any("tensorflow" in requirement for requirement in one) for one in extras.values())


def test_command_is_that_of_server_py(installation: Installation) -> None:
    assert installation.run("--version") == f"rohe-inference-service {__version__}\n"
    printed = installation.run("--help")
    assert printed.startswith("usage: rohe-inference-service ")
    assert " dead-letters " in printed


def test_default_model_answers_in_a_folder_of_the_user(installation: Installation, repository: Path) -> None:
    files_before = sorted(installation.working_folder.rglob("*"))

    client = Client(free_port())
    with installation.service(client) as log:
        answer = client.post(repository / "samples/coffee.jpg").json()
        nodes = installation.run("celery", "--quiet", "inspect", "ping")
        installation.run("status")
        wait_until(
            lambda: "chelsea.jpg: class " in log.read_text(encoding="utf-8"), timeout_s=30, what="the sample is classified"
        )

    data_dir = installation.state / "rohe-inference-service"
    assert answer["response"]["label"] == "espresso"
    assert "pong" in nodes
    assert f"(data in {data_dir}/)" in log.read_text(encoding="utf-8")
    assert (data_dir / "results.jsonl").exists()
    assert sorted(installation.working_folder.rglob("*")) == files_before


def test_serve_answers_with_a_file_of_the_user(installation: Installation, repository: Path) -> None:
    shutil.copy(repository / "models/digits/digits.keras", installation.working_folder / "numbers.keras")
    client = Client(free_port())

    with installation.service(client, "serve", "numbers.keras") as log:
        answer = client.post(repository / "samples/digit_7.png").json()

    assert answer["response"]["class"] == 7
    assert answer["model"]["name"] == "numbers"
    assert "numbers: Keras, images 8x8x1" in log.read_text(encoding="utf-8")
