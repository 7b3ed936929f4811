"""The files around the code: version, continuous integration, templates."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from inference import __version__


def test_version_is_in_one_place(repository: Path) -> None:
    done = subprocess.run([sys.executable, "server.py", "--version"], cwd=repository, capture_output=True, text=True, check=True)
    project = tomllib.loads((repository / "pyproject.toml").read_text(encoding="utf-8"))

    assert done.stdout == f"rohe-inference-service {__version__}\n"
    assert "version" in project["project"]["dynamic"]
    assert project["tool"]["hatch"]["version"]["path"] == "inference/__init__.py"


@pytest.mark.parametrize(
    ("schema", "file"),
    [
        ("vendor.github-workflows", ".github/workflows/ci.yml"),
        ("vendor.dependabot", ".github/dependabot.yml"),
        ("vendor.github-issue-forms", ".github/ISSUE_TEMPLATE/bug.yml"),
        ("vendor.github-issue-forms", ".github/ISSUE_TEMPLATE/feature.yml"),
        ("vendor.github-issue-config", ".github/ISSUE_TEMPLATE/config.yml"),
    ],
)
def test_forge_accepts_the_file(repository: Path, schema: str, file: str) -> None:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", schema, file]
    done = subprocess.run(command, cwd=repository, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stdout + done.stderr


def test_ci_runs_each_python_that_is_supported(repository: Path) -> None:
    workflow = yaml.safe_load((repository / ".github/workflows/ci.yml").read_text(encoding="utf-8"))
    project = (repository / "pyproject.toml").read_text(encoding="utf-8")
    versions = workflow["jobs"]["test"]["strategy"]["matrix"]["python-version"]

    assert f'requires-python = ">={versions[0]},<3.{int(versions[-1].split(".")[1]) + 1}"' in project
