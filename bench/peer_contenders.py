"""Other model servers, none of which keeps its requests if it dies: `make bench-peers`."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

from bench.contenders import Contender, Running
from bench.peer_environment import PeerEnvironment
from bench.peers import BATCH_WAIT_S, MAX_BATCH_SIZE
from bench.workload import ROOT, WORK, Workload, model_of


class Peer(Contender):
    """Server of `bench/peers/`, in the environment that its requirements file describes.

    Args:
        name: name of its files in `bench/peers/`.
        title: name of the product.
    """

    #: variables that prevent connections to other hosts
    telemetry_off: ClassVar[dict[str, str]] = {}

    def __init__(self, name: str, title: str) -> None:
        super().__init__(name, {})
        self.title = title
        self.module = f"bench.peers.{name.replace('-', '_')}_server"
        self.installed = PeerEnvironment(WORK / "peers" / name, ROOT / "bench" / "peers" / f"requirements-{name}.txt")

    def environment(self, workload: Workload, folder: Path) -> dict[str, str]:
        spec = model_of(workload.folder)
        return self.telemetry_off | {
            "KERAS_BACKEND": "tensorflow",
            "TF_CPP_MIN_LOG_LEVEL": "2",
            "PEER_MODEL_FILE": str(spec.local_files["file"].path),
            "PEER_CROP_FRACTION": "" if workload.side else str(spec.input.crop_fraction),
        }

    @contextmanager
    def run(self, workload: Workload) -> Iterator[Running]:
        self.installed.make(self.title)
        with super().run(workload) as running:
            yield running

    def program(self, name: str) -> str:
        """Find a program of its environment."""
        return str(self.installed.programs / name)


class LitServe(Peer):
    path = "/predict"

    def commands(self, workload: Workload, port: int, folder: Path) -> list[Sequence[str]]:
        return [[self.program("python"), "-m", self.module, str(port)]]


class BentoML(Peer):
    path = "/predict"
    telemetry_off: ClassVar[dict[str, str]] = {"BENTOML_DO_NOT_TRACK": "True"}

    def commands(self, workload: Workload, port: int, folder: Path) -> list[Sequence[str]]:
        return [[self.program("bentoml"), "serve", f"{self.module}:Classifier", "--host", "127.0.0.1", "--port", str(port)]]

    def environment(self, workload: Workload, folder: Path) -> dict[str, str]:
        return super().environment(workload, folder) | {"BENTOML_HOME": str(folder)}


class MLServer(Peer):
    path = "/v2/models/classifier/infer"

    def commands(self, workload: Workload, port: int, folder: Path) -> list[Sequence[str]]:
        server = {"host": "127.0.0.1", "http_port": port, "grpc_port": 0, "metrics_endpoint": None, "parallel_workers": 1}
        model = {
            "name": "classifier",
            "implementation": f"{self.module}.Classifier",
            "max_batch_size": MAX_BATCH_SIZE,
            "max_batch_time": BATCH_WAIT_S,
        }
        (folder / "settings.json").write_text(json.dumps(server | {"debug": False}), encoding="utf-8")
        (folder / "model-settings.json").write_text(json.dumps(model), encoding="utf-8")
        return [[self.program("mlserver"), "start", str(folder)]]

    def body(self, workload: Workload) -> tuple[bytes, str]:
        image = base64.b64encode(workload.image.read_bytes()).decode()
        as_base64 = {"parameters": {"content_type": "base64"}}
        tensor = {"name": "image", "shape": [1, 1], "datatype": "BYTES", "data": [image]} | as_base64
        return json.dumps({"inputs": [tensor]}).encode(), "application/json"


class RayServe(Peer):
    path = "/"
    telemetry_off: ClassVar[dict[str, str]] = {"RAY_USAGE_STATS_ENABLED": "0"}

    def environment(self, workload: Workload, folder: Path) -> dict[str, str]:
        # a cluster of one machine, on 127.0.0.1; otherwise Ray uses the host's own address, against its options
        return super().environment(workload, folder) | {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}

    def commands(self, workload: Workload, port: int, folder: Path) -> list[Sequence[str]]:
        return [[self.program("python"), "-m", self.module, str(port)]]


class Mosec(Peer):
    def commands(self, workload: Workload, port: int, folder: Path) -> list[Sequence[str]]:
        options = ["--address", "127.0.0.1", "--port", str(port), "--timeout", "60000", "--log-level", "warning"]
        return [[self.program("python"), "-m", self.module, *options]]

    def body(self, workload: Workload) -> tuple[bytes, str]:
        return workload.image.read_bytes(), "application/octet-stream"


PEERS: tuple[Peer, ...] = (
    LitServe("litserve", "LitServe"),
    BentoML("bentoml", "BentoML"),
    MLServer("mlserver", "MLServer"),
    RayServe("ray-serve", "Ray Serve"),
    Mosec("mosec", "Mosec"),
)
