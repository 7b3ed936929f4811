"""Calls of KServe's InferenceRESTClient, run in an environment of its own; prints the answers as JSON.

Arguments: the URL of the service, a file with the array of a seven.
"""

import asyncio
import json
import sys

import httpx
import numpy as np
from kserve import InferenceRESTClient, InferInput, InferRequest, RESTConfig
from kserve.protocol.infer_type import RequestedOutput


async def main():
    url, seven = sys.argv[1], np.repeat(np.load(sys.argv[2])[None], 32, axis=0)
    client = InferenceRESTClient(RESTConfig(protocol="v2"))

    async def infer(binary, **options):
        image = InferInput("image", list(seven.shape), "FP32")
        image.set_data_from_numpy(seven, binary_data=binary)
        return await client.infer(url, InferRequest("digits", [image], request_id="sevens", **options), model_name="digits")

    answers = [await infer(False), await infer(True)]
    binary = await infer(True, request_outputs=[RequestedOutput("prediction", {"binary_data": True})])
    first = answers[0].get_output_by_name("prediction").as_numpy()
    try:
        await client.infer(url, InferRequest("cats", []), model_name="cats")
    except httpx.HTTPStatusError as error:
        unknown = str(error)
    found = {
        "live": await client.is_server_live(url),
        "ready": [await client.is_server_ready(url), await client.is_model_ready(url, "digits")],
        "labels": [set(answer.get_output_by_name("label").data) == {"7"} for answer in answers],
        "ids": [answer.id for answer in answers],
        "shape": list(first.shape),
        "same": bool(np.allclose(binary.get_output_by_name("prediction").as_numpy(), first)),
        "outputs": [output.name for output in binary.outputs],
        "tasks": len(answers[0].parameters["task_ids"].split(",")),
        "unknown": unknown,
    }
    print(json.dumps(found))


asyncio.run(main())
