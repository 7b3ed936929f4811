"""`bentoml serve bench.peers.bentoml_server:Classifier`: `POST /predict`, a form with the file `image`."""

from pathlib import Path
from typing import Any

import bentoml

from bench.peers import MAX_BATCH_SIZE, TIMEOUT_S

#: It refuses requests that it expects to take longer.
MAX_LATENCY_MS = 30_000


@bentoml.service(workers=1, traffic={"timeout": TIMEOUT_S}, metrics={"enabled": False}, logging={"access": {"enabled": False}})
class Classifier:
    def __init__(self) -> None:
        from bench.peers.model import Model  # noqa: PLC0415 the process that starts the workers needs no TensorFlow

        self.model = Model()

    @bentoml.api(batchable=True, max_batch_size=MAX_BATCH_SIZE, max_latency_ms=MAX_LATENCY_MS)
    def predict(self, image: list[Path]) -> list[dict[str, Any]]:
        return self.model.predict([file.read_bytes() for file in image])
