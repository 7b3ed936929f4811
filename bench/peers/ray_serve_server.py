"""`python -m bench.peers.ray_serve_server PORT`: `POST /`, a form with the file `image`."""

import asyncio
import os
import sys
import tempfile
from typing import Any

import ray
from ray import serve
from ray._common.tls_utils import add_port_to_grpc_server
from ray.serve._private import replica as replicas
from starlette.requests import Request

from bench.peers import BATCH_WAIT_S, MAX_BATCH_SIZE

MAX_ONGOING_REQUESTS = 256
QUIET = {"enable_access_log": False}


class Classifier:
    def __init__(self) -> None:
        from bench.peers.model import Model  # noqa: PLC0415 only the replica needs TensorFlow

        self.model = Model()
        _keep_to_this_machine()

    @serve.batch(max_batch_size=MAX_BATCH_SIZE, batch_wait_timeout_s=BATCH_WAIT_S)
    async def classify(self, images: list[bytes]) -> list[dict[str, Any]]:
        return await asyncio.to_thread(self.model.predict, images)

    async def __call__(self, request: Request) -> dict[str, Any]:
        form = await request.form()
        answer: dict[str, Any] = await self.classify(await form["image"].read())
        return answer


def _keep_to_this_machine() -> None:
    """Bind the server for other replicas to loopback: Ray Serve opens it on every address of the host, without a setting."""
    replicas.add_port_to_grpc_server = lambda server, _address: add_port_to_grpc_server(server, "127.0.0.1:0")


def main(port: int) -> None:
    # Ray lets a replica use as many threads as CPUs are assigned to it
    replica = serve.deployment(
        num_replicas=1,
        max_ongoing_requests=MAX_ONGOING_REQUESTS,
        logging_config=QUIET,
        ray_actor_options={"num_cpus": os.cpu_count()},
    )(Classifier)
    # not in the run's folder: the paths of Ray's sockets would be too long
    with tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as folder:
        ray.init(include_dashboard=False, _temp_dir=folder, logging_level="warning")
        try:
            serve.start(logging_config=QUIET, http_options={"host": "127.0.0.1", "port": port})
            serve.run(replica.bind(), route_prefix="/", blocking=True)
        finally:
            ray.shutdown()


if __name__ == "__main__":
    main(int(sys.argv[1]))
