"""The predictor process runs other people's model files: it gets what these need and no secret."""

from __future__ import annotations

import pytest

from inference.models.predictor.environment import predictor_environment

NEEDED = {
    "PATH": "/usr/bin",
    "HOME": "/home/me",
    "LANG": "C.UTF-8",
    "LC_ALL": "C",
    "TZ": "Europe/Vienna",
    "TMPDIR": "/scratch",
    "LD_LIBRARY_PATH": "/opt/cuda/lib64",
    "PYTHONPATH": "/app",
    "CUDA_VISIBLE_DEVICES": "GPU-8d/1/0",
    "NVIDIA_VISIBLE_DEVICES": "all",
    "TF_FORCE_GPU_ALLOW_GROWTH": "true",
    "XLA_FLAGS": "--xla_gpu_autotune_level=2",
    "OMP_NUM_THREADS": "4",
    "KMP_AFFINITY": "granularity=fine",
}
SECRET = {
    "INFERENCE_BROKER__URL": "redis://:pw@h",
    "INFERENCE_S3__SECRET_KEY": "x",
    "INFERENCE_CONFIG": "/etc/inference.yaml",
    "AWS_SECRET_ACCESS_KEY": "x",
    "MINIO_SECRET_KEY": "x",
    "MONGODB_URL": "mongodb://u:pw@h",
    "KAFKA_SASL_PASSWORD": "x",
    "REDIS_URL": "redis://:pw@h",
    "REDISCLI_AUTH": "x",
    "CELERY_BROKER_URL": "amqp://u:pw@h",
    "FLOWER_BASIC_AUTH": "a:b",
    "HTTPS_PROXY": "http://u:pw@proxy",
    "PIP_INDEX_URL": "https://u:pw@index",
    "GITHUB_TOKEN": "x",
    "SSH_AUTH_SOCK": "/run/agent",
    "DATABASE_PASSWORD": "x",
    "MY_OWN": "x",
    # of a listed family
    "NVIDIA_API_KEY": "x",
    "TF_SERVICE_TOKEN": "x",
    "PYTHON_KEYRING_PASSWORD": "x",
    "TF_MIRROR": "https://u:pw@mirror",
}


def test_what_a_model_needs_is_passed_on() -> None:
    assert predictor_environment(NEEDED | SECRET) == NEEDED | {"PYTHONUNBUFFERED": "1"}


@pytest.mark.parametrize("name", SECRET)
def test_nothing_else_is(name: str) -> None:
    assert name not in predictor_environment({name: SECRET[name]})
