"""The claiming transport stands on parts of kombu that another version may change: an upgrade that breaks it is seen here."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

#: What holds only as long as kombu's Redis transport is as the claiming transport takes it to be.
ON_KOMBU = ("tests/unit/tasks/test_claiming.py", "tests/unit/tasks/test_main_loop.py", "tests/unit/test_broker_message.py")


@pytest.fixture(scope="module")
def newest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the newest kombu that the package index has, and with what that one needs."""
    folder = tmp_path_factory.mktemp("newest-kombu")
    # No `redis` extra: the client stays the one that is shipped.
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--upgrade", "--target", str(folder), "kombu"]
    installed = subprocess.run(command, capture_output=True, text=True, check=False)
    assert installed.returncode == 0, f"kombu cannot be had from the package index:\n{installed.stdout}{installed.stderr}"
    return folder


@pytest.mark.timeout(600)  # a download and three files of tests
def test_the_claiming_transport_works_on_the_newest_kombu(newest: Path, repository: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(newest)}
    ask = "import kombu; print(kombu.__version__, kombu.__file__)"
    found, file = subprocess.run(
        [sys.executable, "-c", ask], env=environment, capture_output=True, text=True, check=True
    ).stdout.split()
    assert Path(file).is_relative_to(newest)

    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *ON_KOMBU],
        cwd=repository, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, (
        f"kombu {found} breaks it; stay at {version('kombu')} (constraints.txt) until this is mended:\n{ran.stdout}{ran.stderr}"
    )
