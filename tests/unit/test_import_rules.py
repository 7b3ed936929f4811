"""Which package may import which: api → inference, tasks → inference, and TensorFlow in one package alone."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TENSORFLOW = {"tensorflow", "keras", "tf_keras"}
#: The one package that loads models, in the predictor process.
LOADING = Path("inference/models/loading")
#: The one module that publishes to RabbitMQ.
AMQP = Path("inference/broker/amqp.py")

FORBIDDEN = {
    "api": {"tasks", "celery", "kombu", "celeryconfig"} | TENSORFLOW,
    "tasks": {"api", "flask", "gunicorn"} | TENSORFLOW,
    "inference": {"api", "tasks", "flask", "celery", "kombu", "celeryconfig"} | TENSORFLOW,
}


def modules(package: str) -> list[Path]:
    found = sorted((ROOT / package).rglob("*.py"))
    assert found, f"{package} has no modules"
    return [path.relative_to(ROOT) for path in found]


def imported(file: Path) -> Iterator[str]:
    """Top-level names of everything that a module imports, wherever in the module it does."""
    for node in ast.walk(ast.parse((ROOT / file).read_text(encoding="utf-8"))):
        match node:
            case ast.Import(names=names):
                yield from (name.name.partition(".")[0] for name in names)
            case ast.ImportFrom(module=str(module), level=0):
                yield module.partition(".")[0]
            case ast.ImportFrom(level=level) if level:
                raise AssertionError(f"{file} has a relative import")


@pytest.mark.parametrize("file", [path for package in FORBIDDEN for path in modules(package)], ids=str)
def test_a_module_imports_only_what_its_package_may(file: Path) -> None:
    allowed = TENSORFLOW if LOADING in file.parents else {"kombu"} if file == AMQP else set()
    assert set(imported(file)) & (FORBIDDEN[file.parts[0]] - allowed) == set()


def test_the_one_package_that_loads_models_is_where_it_is_said_to_be() -> None:
    assert any(set(imported(file)) & TENSORFLOW for file in modules(str(LOADING)))


def test_only_the_predictor_process_imports_that_package() -> None:
    importers = [
        file
        for package in FORBIDDEN
        for file in modules(package)
        if "inference.models.loading" in (ROOT / file).read_text(encoding="utf-8") and LOADING not in file.parents
    ]
    assert importers == [Path("inference/models/predictor/process.py")]


@pytest.mark.parametrize(
    ("module", "never"),
    [
        ("api", TENSORFLOW | {"tasks", "celery"}),
        ("tasks", TENSORFLOW | {"api", "flask"}),
        ("inference.relay.process", TENSORFLOW | {"tasks", "celery", "api", "flask"}),
        ("inference.models.predictor.client", TENSORFLOW),
        ("celeryconfig", TENSORFLOW | {"api", "flask"}),
    ],
)
def test_importing_a_part_loads_no_more_than_it_needs(module: str, never: set[str]) -> None:
    code = f"import sys, {module}; print(*sorted({never!r} & set(sys.modules)))"
    environment = os.environ | {"INFERENCE_CONFIG": "configurations/local.yaml"}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "\n"), done.stderr
