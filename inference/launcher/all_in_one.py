"""The whole service on one machine: `server.py` without a command."""

from __future__ import annotations

import os
import shlex
import signal
import sys
import time
from http import HTTPStatus
from pathlib import Path
from types import FrameType

import urllib3

from inference.container import Services
from inference.errors import ConfigurationError, ServiceUnavailable
from inference.keys.exposure import check_exposure
from inference.launcher import embedded_broker
from inference.launcher.server_checks import check_servers
from inference.launcher.start_checks import check_everything, check_open_files
from inference.launcher.supervisor import Supervisor
from inference.models.registry import ModelRegistry
from inference.settings import CONFIG_VARIABLE, Settings
from inference.settings.http_address import bound_socket, network_url, reachable_url
from inference.settings.installation import APPLICATION

_SERVER = str(APPLICATION / "server.py")
#: Longest wait for the end of an earlier run, seconds.
_HANDOVER_TIMEOUT_S = 20.0
_BROKER_TIMEOUT_S = 30.0
#: Seconds between two lines of a start that takes long, on a terminal.
_PROGRESS_INTERVAL_S = 5.0
#: Time after its drain time until a child is killed, seconds.
_STOP_GRACE_S = 5.0


def run(settings: Settings, config: Path | None) -> int:
    """Start all processes, report when they are ready, and run until a signal. Returns the exit code."""
    models = check_everything(settings)
    check_open_files()
    check_servers(settings)
    for key, (host, port) in settings.api.listening_addresses.items():
        bound_socket(host, port, key=key).close()
    return _Service(settings, config, models).run()


class _Service:
    def __init__(self, settings: Settings, config: Path | None, models: ModelRegistry) -> None:
        self._settings = settings
        self._models = models
        self._services = Services(settings)
        self._began = time.monotonic()
        self._http = urllib3.PoolManager(timeout=urllib3.Timeout(connect=2, read=60), retries=False)
        self._url = reachable_url(settings.api.host, settings.api.port)
        environment = {
            "PYTHONPATH": os.pathsep.join(filter(None, (str(APPLICATION), os.environ.get("PYTHONPATH")))),
            "PYTHONUNBUFFERED": "1",
            "INFERENCE_API__HOST": settings.api.host,
            "INFERENCE_API__PORT": str(settings.api.port),
        }
        if config is not None:
            environment[CONFIG_VARIABLE] = str(config.resolve())
        self._supervisor = Supervisor(environment)
        self._interrupts = 0

    def run(self) -> int:
        signal.signal(signal.SIGINT, self._on_signal)
        signal.signal(signal.SIGTERM, self._on_signal)
        try:
            if self._settings.is_embedded:
                self._start_broker()
            check_exposure(self._settings, self._services.keys)
            self._start_parts()
            if self._wait_until_ready():
                self._announce()
                self._http.clear()
                self._supervisor.watch()
            _print("stopping: finishing running tasks")
            return 0
        finally:
            self._supervisor.stop()
            _print("stopped")

    def _start_broker(self) -> None:
        data_dir = self._settings.data_dir
        _print(f"starting the embedded broker (data in {data_dir}/)")
        if embedded_broker.is_up(data_dir):
            _print("waiting for the end of an earlier run with this data folder")
            if not embedded_broker.wait_for(data_dir, up=False, timeout_s=_HANDOVER_TIMEOUT_S):
                raise ConfigurationError(
                    f"another service uses the data folder {data_dir}; stop it, or set another data_dir", field="data_dir"
                )
        self._supervisor.start(
            "broker", embedded_broker.command(data_dir, self._settings.broker.embedded_memory_mb), stop_timeout_s=30
        )
        if not embedded_broker.wait_for(data_dir, up=True, timeout_s=_BROKER_TIMEOUT_S):
            raise ConfigurationError(f"the embedded broker does not start:\n{embedded_broker.log_tail(data_dir)}")

    def _start_parts(self) -> None:
        settings = self._settings
        _print(f"starting the worker: loading {', '.join(model.name for model in self._models)}")
        worker = [sys.executable, _SERVER, "celery", "--quiet", "worker", "--without-gossip", "--without-mingle"]
        self._supervisor.start("worker", worker, stop_timeout_s=settings.worker.drain_timeout_s + _STOP_GRACE_S)
        _print(f"starting the relay: results go to {', '.join(settings.sinks) or 'no sink'}")
        self._supervisor.start("relay", [sys.executable, _SERVER, "relay"], stop_timeout_s=_STOP_GRACE_S)
        _print(f"starting the API on {self._url}")
        api = [sys.executable, _SERVER, "api"]
        api_stop_s = settings.api.shutdown_delay_s + settings.api.drain_timeout_s
        self._supervisor.start("api", api, stop_timeout_s=api_stop_s + _STOP_GRACE_S)

    def _wait_until_ready(self) -> bool:
        """Wait until the API is ready; False if a signal came first. Raises ConfigurationError if a part ends meanwhile."""
        told_at = time.monotonic()
        while not self._supervisor.stopping.wait(0.1):
            if sys.stdout.isatty() and time.monotonic() - told_at >= _PROGRESS_INTERVAL_S:
                told_at = time.monotonic()
                _print(f"still starting, for {told_at - self._began:.0f} s")
            dead = self._supervisor.first_dead()
            if dead is not None:
                raise ConfigurationError(f"the {dead[0]} ended while it started (exit code {dead[1]}); its log is above")
            try:
                if self._http.request("GET", f"{self._url}/health/ready").status == HTTPStatus.OK:
                    return True
            except urllib3.exceptions.HTTPError:
                continue
        return False

    def _announce(self) -> None:
        sample = self._settings.sample_image
        photo = shlex.quote(str(sample)) if sample else "photo.jpg"
        self._report_rates()
        _print(f"ready after {time.monotonic() - self._began:.1f} s at {self._url}   (Ctrl-C stops it)")
        if url := network_url(self._settings.api.host, self._settings.api.port):
            _print(f"from other machines: {url}")
        if self._settings.ui.enabled:
            _print(f"look: {self._url}/ui/ in a browser")
        needs_key = self._services.keys.is_on
        header = '-H "Authorization: Bearer KEY" ' if needs_key else ""
        _print(f"try: curl {header}-F image=@{photo} {self._url}/inference")
        if sample is not None and not needs_key:
            self._classify(sample)

    def _report_rates(self) -> None:
        """Print how fast each model runs here, as the worker measured it at the warm-up."""
        try:
            workers = self._services.presence.workers()
        except ServiceUnavailable:
            return
        warm = {model.name: model for worker in workers for model in worker.models if model.name in self._models}
        for model in warm.values():
            alone = f"one image takes {model.predict_ms:.3g} ms"
            _print(f"{model.name}: {model.images_per_s:.0f} images/s here by {model.runtime}; {alone}")

    def _classify(self, sample: Path) -> None:
        fields = {"image": (sample.name, sample.read_bytes())}
        answer = self._http.request("POST", f"{self._url}/inference", fields=fields)
        document = answer.json()
        if answer.status != HTTPStatus.OK:
            _print(f"{sample}: {answer.status} {document.get('detail')}")
            return
        best = document["response"]
        label = f" ({best['label']})" if best["label"] else ""
        _print(f"{sample}: class {best['class']}{label}, confidence {best['confidence_level']:.3f}")

    def _on_signal(self, _signal: int, _frame: FrameType | None) -> None:
        self._supervisor.stopping.set()
        self._interrupts += 1
        if self._interrupts > 1:
            self._supervisor.kill()


def _print(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()
