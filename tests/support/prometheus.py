"""A real Prometheus and its promtool, for tests with a scraper."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import requests
import yaml
from support.client import free_port, wait_until
from support.promtool import promtool

#: Prometheus' configurations and rules, which users run.
CONFIGURATION = Path(__file__).parents[2] / "deploy/monitoring/prometheus"
_TIMEOUT_S = 30


def run_promtool(root: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run promtool where the configurations are."""
    command = [promtool(root), *map(str, arguments)]
    return subprocess.run(command, cwd=CONFIGURATION, capture_output=True, text=True, check=False)


class Prometheus:
    """HTTP API of a running Prometheus."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"

    def get(self, path: str, **parameters: str) -> Any:
        """The `data` of an answer; an error of the query is one here."""
        answer = requests.get(f"{self.url}/api/v1/{path}", params=parameters, timeout=_TIMEOUT_S).json()
        assert answer["status"] == "success", f"{path} {parameters}: {answer}"
        return answer["data"]

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The samples of an expression now."""
        found: list[dict[str, Any]] = self.get("query", query=expression)["result"]
        return found

    def alerts(self) -> set[str]:
        """Names of the alerts whose expression is true now, for however long."""
        return {alert["labels"]["alertname"] for alert in self.get("alerts")["alerts"]}

    def is_ready(self) -> bool:
        try:
            return requests.get(f"{self.url}/-/ready", timeout=_TIMEOUT_S).status_code == 200
        except requests.ConnectionError:
            return False


@contextmanager
def prometheus(root: Path, folder: Path, targets: Mapping[str, str]) -> Iterator[Prometheus]:
    """A running Prometheus with the project's rules, which scrapes every second.

    Args:
        folder: for its data, configuration and log.
        targets: by the names of the jobs in local.yml, `HOST:PORT` of each.
    """
    text = (CONFIGURATION / "local.yml").read_text(encoding="utf-8")
    settings = yaml.safe_load(text)
    settings["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    settings["rule_files"] = [str(CONFIGURATION / name) for name in settings["rule_files"]]
    for job in settings["scrape_configs"]:
        job["static_configs"] = [{"targets": [targets[job["job_name"]]]}]
    (folder / "prometheus.yml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    running = Prometheus(port := free_port())
    command = [
        str(Path(promtool(root)).with_name("prometheus")),  # the same package has it
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'prometheus'}",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    with (folder / "prometheus.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        try:
            wait_until(running.is_ready, timeout_s=_TIMEOUT_S, what="Prometheus is ready")
            yield running
        finally:
            process.terminate()
            process.wait(_TIMEOUT_S)
