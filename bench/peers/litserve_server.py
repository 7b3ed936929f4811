"""`python -m bench.peers.litserve_server PORT`: `POST /predict`, a form with the file `image`."""

import signal
import sys
from collections.abc import Sequence
from typing import Any

import litserve
from starlette.requests import Request

from bench.peers import BATCH_WAIT_S, MAX_BATCH_SIZE, TIMEOUT_S


class Classifier(litserve.LitAPI):
    def setup(self, device: str) -> None:
        from bench.peers.model import Model  # noqa: PLC0415 the HTTP process needs no TensorFlow

        self.model = Model()

    # LitServe reads the annotations of this function and of encode_response
    def decode_request(self, request: Request) -> bytes:
        image: bytes = request["image"].file.read()
        return image

    def batch(self, inputs: Sequence[bytes]) -> Sequence[bytes]:
        return inputs

    def predict(self, x: Sequence[bytes]) -> list[dict[str, Any]]:
        return self.model.predict(x)

    def unbatch(self, output: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return output

    def encode_response(self, output: dict[str, Any]) -> dict[str, Any]:
        return output


if __name__ == "__main__":
    api = Classifier(max_batch_size=MAX_BATCH_SIZE, batch_timeout=BATCH_WAIT_S)
    server = litserve.LitServer(api, accelerator="cpu", devices=1, workers_per_device=1, timeout=TIMEOUT_S, fast_queue=True)
    server.uvicorn_graceful_timeout = 3  # seconds; it waits for answers to disconnected clients
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # it ends its processes only on SIGINT
    server.run(host="127.0.0.1", port=int(sys.argv[1]), generate_client_file=False, log_level="warning")
