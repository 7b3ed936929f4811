"""The claiming transport stands on parts of kombu that another version may change: an upgrade that breaks it is seen here."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import pytest

#: Tests that hold only as long as kombu's Redis transport is as the claiming transport takes it to be.
CLAIMING = (
    "tests/unit/tasks/transport",
    "tests/unit/tasks/consumer/test_main_loop.py",
    "tests/unit/broker/test_broker_message.py",
)
#: Tests of the way out for as long as they fail.
STOCK = ("tests/e2e/test_stock_transport.py", "-k", "unix")


def pip(*options: str) -> str:
    """Install kombu, with its requirements. No `redis` extra: the client stays the one that is shipped."""
    command = [sys.executable, "-m", "pip", "install", "--quiet", *options, "kombu"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"kombu cannot be had from the package index:\n{done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def newest(tmp_path_factory: pytest.TempPathFactory) -> Path | None:
    """Folder with the newest kombu of the package index and its requirements; None: they are installed."""
    report = json.loads(pip("--dry-run", "--ignore-installed", "--report", "-"))
    found = {package["metadata"]["name"]: package["metadata"]["version"] for package in report["install"]}
    assert "kombu" in found
    if found == {name: version(name) for name in found}:
        return None
    folder = tmp_path_factory.mktemp("newest-kombu")
    pip("--upgrade", "--target", str(folder))
    return folder


@pytest.mark.timeout(600)  # a download, and files of tests
@pytest.mark.parametrize("tests", [CLAIMING, STOCK], ids=["claiming", "stock"])
def test_a_transport_works_on_the_newest_kombu(newest: Path | None, repository: Path, tests: Sequence[str]) -> None:
    if newest is None:
        return  # these tests run with it in their own places
    environment = os.environ | {"PYTHONPATH": str(newest)}
    ask = "import kombu; print(kombu.__version__, kombu.__file__)"
    found, file = subprocess.check_output([sys.executable, "-c", ask], env=environment, text=True).split()
    assert Path(file).is_relative_to(newest)

    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests],
        cwd=repository, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, (
        f"kombu {found} breaks it; stay at {version('kombu')} (constraints.txt) until this is mended:\n{ran.stdout}{ran.stderr}"
    )
