"""An API process may open as many files as its connections need."""

from __future__ import annotations

import errno
import logging
import os
import resource
from typing import Any, NoReturn

import pytest
from api_rig import assert_problem

from api.server.gunicorn_server import connections_within
from inference.runtime.open_files import out_of_files, raise_open_file_limit, report


@pytest.fixture
def fresh_report(monkeypatch: pytest.MonkeyPatch) -> None:
    """The log has said nothing yet."""
    monkeypatch.setattr(report, "silent_until", 0.0)


def test_the_systems_usual_limit_is_raised_as_far_as_is_allowed() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (512, hard))
        raise_open_file_limit(600)
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (600, hard)
        raise_open_file_limit(550)
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (600, hard)
        if hard != resource.RLIM_INFINITY:
            raise_open_file_limit(hard + 1)
            assert resource.getrlimit(resource.RLIMIT_NOFILE) == (hard, hard)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_limit_that_is_too_low_takes_fewer_connections_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    assert connections_within(11_000, 10_000) == 10_000
    assert caplog.records == []
    assert [connections_within(files, 10_000) for files in (10_999, 4_096, 1_024, 64)] == [9_999, 3_096, 512, 32]
    assert [record.levelno for record in caplog.records] == [logging.WARNING] * 4
    assert connections_within(1_024, 100) == 100
    assert len(caplog.records) == 4
    assert "api.max_connections is 10000, but the system allows a process 1024 open files (ulimit -n)" in caplog.text


@pytest.mark.parametrize("code", [errno.EMFILE, errno.ENFILE])
@pytest.mark.usefixtures("fresh_report")
def test_a_request_that_finds_no_file_is_503_and_one_line_in_the_log(
    make_app: Any, caplog: pytest.LogCaptureFixture, code: int
) -> None:
    def view() -> NoReturn:
        raise RuntimeError("something that needed a file") from OSError(code, os.strerror(code))

    app = make_app()
    app.add_url_rule("/file", "file", view)
    for _ in range(3):
        response = app.test_client().get("/file")
        assert_problem(response, 503, "service_unavailable")
        assert response.headers["Retry-After"] == "1"
    assert [record.levelno for record in caplog.records] == [logging.ERROR]
    assert os.strerror(code) in caplog.text
    assert "Traceback" not in caplog.text


def test_other_errors_are_none_of_files() -> None:
    assert out_of_files(OSError(errno.ENOENT, "no such file")) is None
    assert out_of_files(ValueError()) is None
