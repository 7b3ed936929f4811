"""Errors in ROHE's configuration files: each names the key of the file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from rohe_samples import FLAT, FORMS, MINIO, MONGODB, changed

from inference.errors import ConfigurationError
from inference.settings import load_settings
from inference.settings.rohe.forms import translate


def complaint(document: dict[str, Any]) -> str:
    Path("config.yaml").write_text(yaml.safe_dump(document), encoding="utf-8")
    with pytest.raises(ConfigurationError) as caught:
        load_settings(Path("config.yaml"))
    return caught.value.detail


class TestErrors:
    @pytest.mark.parametrize(
        ("form", "path", "value", "says"),
        [
            ("flat", "model_info.input_shape", "wide", "model_info.input_shape: must be height,width,channels"),
            ("flat", "model_info.input_shape", [32, 32], "model_info.input_shape: must be height,width,channels"),
            (
                "flat",
                "model_info.files_name.weights_file",
                [1],
                "model_info.files_name.weights_file: Input should be a valid str",
            ),
            ("flat", "model_info.files_name", ..., "model_info: needs one of files_name, files and load_model_params"),
            ("flat", "model_info.models.vgg", "x", "model_info.models.vgg: "),
            ("flat", "model_info.models", {"With Space": {"folder": "x"}}, "model_info.models.With Space: String should match"),
            ("flat", "model_info.models", {}, "model_info.chosen_model_id: there is no vgg_0"),
            ("flat", "model_info.chosen_model_id", "vgg_1", "model_info.chosen_model_id: there is no vgg_1; did you mean vgg_0?"),
            ("flat", "minio_config.bucket_name", ..., "minio_config.bucket_name: Field required"),
            ("flat", "minio_config.endpoint_url", 7, ""),
            ("flat", "mongodb.port", "many", "mongodb.port: Input should be a valid integer"),
            ("flat", "mongodb.password", "", "mongodb: set both username and password, or neither"),
            ("flat", "kafka.topic_name", "no topic!", "kafka.topic_name: String should match pattern"),
            (
                "grouped",
                "external_services.kafka.address",
                [1],
                "external_services.kafka.address: Input should be a valid string",
            ),
            (
                "nested",
                "model_config.inference_timeout",
                "soon",
                "model_config.inference_timeout: Input should be a valid number",
            ),
            (
                "nested",
                "model_config.inference_backend",
                "pytorch",
                "model_config.inference_backend: Input should be 'tensorflow'",
            ),
            ("nested", "model_config.default_threshold", 5, "model_config.default_threshold: Input should be less than or equal"),
            ("nested", "model_config.preferred_device", "tpu", "model_config.preferred_device: String should match"),
            ("nested", "model_config.chosen_model_type", "bdd100", "model_config.chosen_model_type: there is no bdd100; did you"),
            ("nested", "model_config.model_type.bdd100k.input_shape", 32, "model_config.model_type.bdd100k.input_shape: must be"),
            (
                "nested",
                "model_config.model_type.bdd100k.variants.vgg.path",
                [],
                "model_config.model_type.bdd100k.variants.vgg.path",
            ),
            ("nested", "storage.mongodb", [], "storage.mongodb: "),
        ],
    )
    def test_a_wrong_value_names_the_key_of_the_file(self, form: str, path: str, value: Any, says: str) -> None:
        document = changed(FORMS[form], path, value)
        if not says:
            assert translate(document).document["s3"]["endpoint"] == "7"
            return
        assert any(line.startswith(says) for line in complaint(document).splitlines()), complaint(document)

    @pytest.mark.parametrize(
        ("form", "path", "says"),
        [
            ("flat", "model_info.file_name", "model_info.file_name: unknown key; did you mean files_name?"),
            ("flat", "model_info.models.vgg.foldr", "model_info.models.vgg.foldr: unknown key; did you mean folder?"),
            ("flat", "minio_config.bucket", "minio_config.bucket: unknown key; did you mean bucket_name?"),
            ("flat", "mongodb.databse_name", "mongodb.databse_name: unknown key; did you mean database_name?"),
            ("flat", "kafka.topic_nam", "kafka.topic_nam: unknown key; did you mean topic_name?"),
            ("flat", "minio_confg", "minio_confg: unknown key; did you mean minio_config?"),
            ("nested", "storage.mino", "storage.mino: unknown key; did you mean minio?"),
            (
                "nested",
                "model_config.model_type.bdd100k.output_label",
                "model_config.model_type.bdd100k.output_label: unknown key; did",
            ),
            (
                "nested",
                "model_config.model_type.bdd100k.variants.vgg.pth",
                "model_config.model_type.bdd100k.variants.vgg.pth: unknown",
            ),
        ],
    )
    def test_an_unknown_key_is_named_with_the_nearest(self, form: str, path: str, says: str) -> None:
        assert says in complaint(changed(FORMS[form], path, "x"))

    @pytest.mark.parametrize(
        ("more", "says"),
        [
            ({"s3": {"endpoint": "x:1"}}, "minio_config.endpoint_url: s3.endpoint sets the same value; keep one of them"),
            ({"mongodb": MONGODB | {"url": "mongodb://x"}}, "mongodb.host: mongodb.url sets the same value; keep one of them"),
            ({"default_model": "vgg"}, "model_info.chosen_model_id: default_model sets the same value; keep one of them"),
            (
                {"storage": {"minio": MINIO}},
                "storage.minio.bucket_name: minio_config.bucket_name sets the same value; keep one of them",
            ),
        ],
    )
    def test_what_both_say_is_refused(self, more: dict[str, Any], says: str) -> None:
        assert says in complaint(FLAT | more).splitlines()

    def test_every_wrong_key_is_told_at_once(self) -> None:
        form = changed(changed(FLAT, "minio_config.bucket_name", ...), "model_info.input_shape", "x")
        assert [line.split(":")[0] for line in complaint(form).splitlines()] == [
            "model_info.input_shape",
            "minio_config.bucket_name",
        ]

    def test_an_error_shows_no_secret(self) -> None:
        assert "hidden" not in complaint(changed(FLAT, "minio_config.secret_key", ["hidden"]))
        assert "hidden" not in complaint({"s3": {"secret_key": ["hidden"]}})
