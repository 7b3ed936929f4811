"""`mlserver start FOLDER`, a folder of `bench.peer_contenders`: the Open Inference Protocol, the image in base64."""

from __future__ import annotations

import asyncio
import json

from mlserver import MLModel
from mlserver.codecs import Base64Codec, StringCodec
from mlserver.types import InferenceRequest, InferenceResponse


class Classifier(MLModel):
    async def load(self) -> bool:
        from bench.peers.model import Model  # noqa: PLC0415 the HTTP process needs no TensorFlow

        self._model = Model()
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Return one output of strings: the answers as JSON."""
        images = Base64Codec.decode_input(payload.inputs[0])
        answers = await asyncio.to_thread(self._model.predict, images)
        output = StringCodec.encode_output("answers", [json.dumps(answer) for answer in answers])
        return InferenceResponse(model_name=self.name, outputs=[output])
