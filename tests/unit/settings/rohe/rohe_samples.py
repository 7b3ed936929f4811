"""Configuration files in the forms that ROHE has had."""

from __future__ import annotations

import copy
from typing import Any

MINIO = {
    "endpoint_url": "http://storage:9000",
    "access_key": "key-of-mine",
    "secret_key": "hidden",
    "bucket_name": "nii-application-inference-model",
}
MONGODB = {
    "username": "admin_user",
    "password": "admin@pass",
    "host": "localhost",
    "port": 27017,
    "database_name": "nii_case",
    "collection_name": "raw_prediction",
}
KAFKA = {"address": "127.0.0.1:9092", "topic_name": "nii_case"}
QOA = {"client": {"client_id": "someone", "role": "ml"}, "registration_url": "http://0.0.0.0:5010/registration"}

FLAT: dict[str, Any] = {
    "pipeline_id": "pipeline_1",
    "model_info": {
        "chosen_model_id": "vgg_0",
        "files_name": {"architecture_file": "model.json", "weights_file": "model.h5"},
        "input_shape": "32,32,3",
        "models": {"vgg": {"folder": "artifact/VGG16/repair"}, "vgg_0": {"folder": "artifact/VGG16/0/repair"}},
    },
    "minio_config": MINIO,
    "ensemble": True,
    "qoa_config": QOA,
    "mongodb": MONGODB,
    "kafka": KAFKA,
}
GROUPED: dict[str, Any] = {
    "pipeline_id": "pipeline_1",
    "ensemble": True,
    "model_info": {
        "chosen_model_id": "vgg_0",
        "input_shape": "32,32,3",
        "load_model_params": {
            "architecture_file": "model.json",
            "weights_file": "model.h5",
            "model_directories": {"vgg": "artifact/VGG16/repair", "vgg_0": "artifact/VGG16/0/repair"},
        },
    },
    "qoa_config": QOA,
    "external_services": {
        "minio_storage": MINIO,
        "mongodb": MONGODB,
        "kafka": KAFKA,
        "service_registry": {"consul_config": {"url": "http://registry:8500"}},
    },
}
OLDEST: dict[str, Any] = {
    "model": {"files": {"architecture_file": "a/model.json", "weights_file": "a/model.h5"}, "input_shape": "32,32,3"},
    "minio_config": MINIO,
}
NESTED: dict[str, Any] = {
    "ensemble": False,
    "storage": {"minio": MINIO, "mongodb": MONGODB},
    "messaging": {"kafka": KAFKA},
    "service_quality_config": {"qoa_config": QOA},
    "model_config": {
        "chosen_model_type": "bdd100k",
        "chosen_model_id": "vgg_0",
        "inference_timeout": 5000,
        "inference_backend": "tensorflow",
        "default_threshold": 0.5,
        "preferred_device": "gpu",
        "model_type": {
            "bdd100k": {
                "description": "What is on the road.",
                "input_shape": "32,32,3",
                "architecture_file": "model.json",
                "weights_file": "model.h5",
                "output_labels": ["bicycle", "bus"],
                "variants": {"vgg": {"path": "artifact/VGG16/repair"}, "vgg_0": {"path": "artifact/VGG16/0/repair"}},
            }
        },
        "object_classification": [{"data_set": None, "input_shape": "64,64,3"}],
    },
}
FORMS = {"flat": FLAT, "grouped": GROUPED, "oldest": OLDEST, "nested": NESTED}


def changed(form: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """`form` with the key at this dotted path set; `...` removes it."""
    document = copy.deepcopy(form)
    *sections, name = path.split(".")
    place = document
    for section in sections:
        place = place[section]
    if value is ...:
        del place[name]
    else:
        place[name] = value
    return document
