"""HTTP side: `gunicorn -k gthread --threads 64 bench.naive.app:app`."""

from __future__ import annotations

import io
import json
import uuid

from flask import Flask, Response, jsonify, request

from bench.naive.tasks import BUCKET, minio, predict

app = Flask(__name__)
if not minio().bucket_exists(BUCKET):
    minio().make_bucket(BUCKET)


@app.post("/inference")
def inference() -> Response:
    metadata = json.loads(request.form.get("metadata") or "{}")
    data = request.files["image"].read()
    key = uuid.uuid4().hex
    minio().put_object(BUCKET, key, io.BytesIO(data), len(data))
    return jsonify(response=predict.delay(key, metadata.get("shape"), metadata.get("dtype")).get(timeout=60))
