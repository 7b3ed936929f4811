"""The client's wheel: built, installed in an environment of its own, and used there."""

from __future__ import annotations

import importlib.metadata
import json
import subprocess
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from support.service import Service
from support.wheel import build_wheel, install_wheel

pytestmark = pytest.mark.process

_SCRIPT = """
import json, sys
import rohe_inference
loaded = sorted({"numpy", "PIL", "click", "rich"} & set(sys.modules))
label = rohe_inference.Client(sys.argv[1]).predict(sys.argv[2]).label
print(json.dumps([rohe_inference.__file__, rohe_inference.__version__, loaded, label]))
"""


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("client")
    install_wheel(build_wheel(folder, "client"), folder / "environment")
    return folder / "environment"


@pytest.fixture
def metadata(environment: Path) -> importlib.metadata.Distribution:
    (packages,) = environment.glob("lib/python*/site-packages")
    (found,) = importlib.metadata.distributions(path=[str(packages)], name="rohe-inference")
    return found


def test_installed_client_classifies(environment: Path, service: Service, repository: Path, tmp_path: Path) -> None:
    """Nothing but the wheel is used, and no library that only some callers have is loaded."""
    command = [environment / "bin" / "python", "-c", _SCRIPT, service.url, repository / "samples/coffee.jpg"]
    done = subprocess.run(command, cwd=tmp_path, env={}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    file, version, loaded, label = json.loads(done.stdout)

    assert Path(file).is_relative_to(environment)
    assert (version, loaded, label) == ("0.1.0", [], "espresso")


def test_wheel_has_types_license_and_command(metadata: importlib.metadata.Distribution) -> None:
    files = {str(file) for file in metadata.files or ()}

    assert "rohe_inference/py.typed" in files
    assert any(file.endswith("licenses/LICENSE") for file in files)
    assert [(entry.name, entry.value) for entry in metadata.entry_points] == [("rohe-inference", "rohe_inference.cli:main")]


def test_requirements_fit_the_tested_versions(metadata: importlib.metadata.Distribution, repository: Path) -> None:
    """The versions that the tests run with are among those that users may get."""
    lines = (repository / "constraints.txt").read_text(encoding="utf-8").splitlines()[1:]
    versions = {name.lower().replace("_", "-"): version for name, _, version in (line.partition("==") for line in lines)}
    requirements = [Requirement(text) for text in metadata.requires or ()]

    assert {requirement.name for requirement in requirements} >= {"httpx2", "typing-extensions", "numpy", "pillow"}
    assert [str(one) for one in requirements if versions[one.name] not in one.specifier] == []


def test_python_3_10_is_what_the_checks_are_for(repository: Path) -> None:
    project = tomllib.loads((repository / "client/pyproject.toml").read_text(encoding="utf-8"))

    assert project["project"]["requires-python"] == ">=3.10"
    assert project["tool"]["ruff"]["target-version"] == "py310"
    assert "mypy --python-version 3.10 -p rohe_inference" in (repository / "Makefile").read_text(encoding="utf-8")
