"""`python -m bench.peers.mosec_server --address 127.0.0.1 --port PORT`: `POST /inference`, the image alone as the body."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import mosec

from bench.peers import BATCH_WAIT_S, MAX_BATCH_SIZE, TIMEOUT_S


class Classifier(mosec.Worker):
    def __init__(self) -> None:
        from bench.peers.model import Model  # noqa: PLC0415 the process that starts the workers needs no TensorFlow

        self._model = Model()

    def deserialize(self, data: bytes) -> bytes:
        return data

    def forward(self, data: Sequence[bytes]) -> list[dict[str, Any]]:
        return self._model.predict(data)


if __name__ == "__main__":
    server = mosec.Server()
    server.append_worker(
        Classifier, max_batch_size=MAX_BATCH_SIZE, max_wait_time=int(BATCH_WAIT_S * 1000), timeout=TIMEOUT_S, start_method="spawn"
    )
    server.run()
