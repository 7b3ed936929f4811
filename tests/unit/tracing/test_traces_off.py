"""The service without traces: it works without their packages, and says what is missing if they are asked for."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from inference.errors import ConfigurationError
from inference.launcher.start_checks import check_start
from inference.settings import load_settings

#: Runs where the packages are not installed; where they are, redis-py imports some of them by itself.
_PARTS = """
import sys
sys.modules["opentelemetry"] = None
import api.app, api.server.gunicorn_server, inference.relay.process, tasks.app, tasks.consumer.step
from inference.container import Services
from inference.settings import load_settings

app = api.app.create_app(load_settings(None, {"data_dir": sys.argv[1], "models": ["models/digits"]}))
assert app.test_client().get("/health/live", headers={"traceparent": sys.argv[2]}).status_code == 200
assert "inference.tracing.context" in sys.modules and "inference.tracing.tracer" not in sys.modules
"""


def test_each_part_works_without_the_packages(tmp_path: Path, repository: Path) -> None:
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    ended = subprocess.run(
        [sys.executable, "-c", _PARTS, str(tmp_path), parent], cwd=repository, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr


def test_a_part_that_is_to_trace_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "inference.tracing.tracer", raising=False)
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    for name in [name for name in sys.modules if name.startswith("opentelemetry.")]:
        monkeypatch.delitem(sys.modules, name)
    given = {"data_dir": tmp_path, "models": ["models/digits"], "tracing": {"endpoint": "http://127.0.0.1:4318"}}
    with pytest.raises(ConfigurationError, match=r"tracing\.endpoint: .* pip install 'rohe-inference-service\[tracing\]'"):
        check_start(load_settings(None, given), "api")


def test_a_wrong_variable_of_opentelemetry_is_reported_at_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = {"data_dir": tmp_path, "models": ["models/digits"], "tracing": {"endpoint": "http://127.0.0.1:4318"}}
    check_start(load_settings(None, given), "api")
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "3")
    with pytest.raises(ConfigurationError, match=r"tracing: .*max_export_batch_size"):
        check_start(load_settings(None, given), "relay")


@pytest.mark.parametrize(
    ("section", "wrong"),
    [
        ({"endpoint": "collector:4318"}, "must be a URL of OTLP over HTTP"),
        ({"endpoint": "grpc://collector:4317"}, "must be a URL of OTLP over HTTP"),
        ({"endpoint": "http://"}, "must be a URL of OTLP over HTTP"),
        ({"endpoint": "http://collector:0"}, "must be a URL of OTLP over HTTP"),
        ({"endpoint": "http://collector:x"}, "must be a URL of OTLP over HTTP"),
        ({"headers": "no-equals-sign"}, "must be NAME=VALUE"),
        ({"headers": "a b=c"}, "must be NAME=VALUE"),
        ({"sample_ratio": 1.5}, "less than or equal to 1"),
    ],
)
def test_a_wrong_setting_is_refused_by_its_key(section: dict[str, str], wrong: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"tracing\.{next(iter(section))}: .*{wrong}") as refused:
        load_settings(None, {"tracing": section})
    assert "equals" not in refused.value.detail
