"""Celery side: `celery -A bench.naive.tasks worker --pool solo`."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from celery import Celery
from minio import Minio

from bench.workload import model_of
from inference.imaging import ImageLimits, decode_into, inspect

BUCKET = "bench-naive"
_LIMITS = ImageLimits(50_000_000)

app = Celery("naive", broker=os.environ["NAIVE_REDIS_URL"], backend=os.environ["NAIVE_REDIS_URL"])
app.conf.update(worker_prefetch_multiplier=4)


@cache
def minio() -> Minio:
    return Minio(
        os.environ["MINIO_ENDPOINT"].removeprefix("http://"),
        access_key=os.environ["MINIO_ACCESS_KEY"],
        secret_key=os.environ["MINIO_SECRET_KEY"],
        secure=False,
    )


@cache
def model() -> Any:
    """Load the model; returns its description and the model."""
    from inference.models.loading import load_model, warm_up  # noqa: PLC0415 the web process needs no TensorFlow

    spec = model_of(Path(os.environ["NAIVE_MODEL"]))
    loaded = load_model(spec)
    warm_up(loaded, spec, [1])
    return spec, loaded


@app.task(name="predict")  # type: ignore[untyped-decorator] # Celery has no types
def predict(key: str, shape: list[int] | None, dtype: str | None) -> dict[str, Any]:
    response = minio().get_object(BUCKET, key)
    try:
        data = response.read()
    finally:
        response.close()
        response.release_conn()
    spec, loaded = model()
    image = np.zeros(spec.input.shape, spec.input.numpy_dtype)
    header = inspect(data, shape=shape, dtype=dtype, content_type=None, spec=spec.input, limits=_LIMITS)
    decode_into(image, data, header, spec.input, _LIMITS)
    prediction = loaded.predict(image[None])[0]
    best = int(prediction.argmax())
    return {"class": best, "confidence_level": float(prediction[best]), "prediction": prediction.tolist()}
