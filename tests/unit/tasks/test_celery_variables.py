"""Celery's own variables and options do not go before the settings, which the other parts follow."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

OTHER = "redis://:S3cret@127.0.0.1:1/7"


def celery(repository: Path, *arguments: str, variables: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"INFERENCE_CONFIG": "configurations/local.yaml"} | variables
    command = [sys.executable, "-m", "celery", "-A", "tasks", *arguments]
    return subprocess.run(command, cwd=repository, env=environment, capture_output=True, text=True, timeout=60, check=False)


def test_variables_of_celery_do_not_change_the_broker(repository: Path) -> None:
    names = ("BROKER_URL", "CELERY_BROKER_URL", "CELERY_BROKER_READ_URL", "CELERY_BROKER_WRITE_URL")
    variables = dict.fromkeys(names, OTHER) | dict.fromkeys(("RESULT_BACKEND", "CELERY_RESULT_BACKEND"), "redis://127.0.0.1:1")
    report = celery(repository, "report", variables=variables)
    assert report.returncode == 0, report.stderr
    assert "127.0.0.1:1" not in report.stdout
    assert "broker_url: 'redis+socket://" in report.stdout


@pytest.mark.parametrize("option", ["-b", "--broker", "--result-backend"])
def test_an_option_that_says_what_the_configuration_says_is_refused(repository: Path, option: str) -> None:
    ended = celery(repository, option, OTHER, "report", variables={})
    assert ended.returncode == 2
    assert ended.stderr.startswith("error: --")
    assert "INFERENCE_CONFIG" in ended.stderr
    assert "S3cret" not in ended.stderr
