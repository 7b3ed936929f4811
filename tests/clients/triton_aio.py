"""Calls of tritonclient.http.aio, run in an environment of its own; prints the answers as JSON.

Arguments: the URL of the service, a file with the array of a seven.
"""

import asyncio
import json
import sys

import numpy as np
from tritonclient.http import InferInput, InferRequestedOutput
from tritonclient.http.aio import InferenceServerClient
from tritonclient.utils import InferenceServerException


async def main():
    seven = np.load(sys.argv[2])[None]
    image = InferInput("image", [1, 8, 8, 1], "FP32")
    image.set_data_from_numpy(seven)
    async with InferenceServerClient(sys.argv[1].removeprefix("http://")) as client:
        answers = await asyncio.gather(*(client.infer("digits", [image]) for _ in range(8)))
        compressed = [
            await client.infer("digits", [image], request_compression_algorithm=way, response_compression_algorithm=way)
            for way in ("gzip", "deflate")
        ]
        best = await client.infer("digits", [image], outputs=[InferRequestedOutput("prediction", class_count=1)])
        try:
            await client.infer("cats", [image])
        except InferenceServerException as error:
            unknown = [error.status(), error.message()]
        found = {
            "ready": [await client.is_server_live(), await client.is_server_ready(), await client.is_model_ready("digits")],
            "server": (await client.get_server_metadata())["name"],
            "model": (await client.get_model_metadata("digits"))["name"],
            "labels": [answer.as_numpy("label")[0].decode() for answer in (*answers, *compressed)],
            "best": best.as_numpy("prediction")[0, 0].decode(),
            "unknown": unknown,
        }
    print(json.dumps(found))


asyncio.run(main())
