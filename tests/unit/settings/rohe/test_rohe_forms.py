"""ROHE's configuration files: the settings that its keys become."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from rohe_samples import FLAT, FORMS, GROUPED, MONGODB, NESTED, OLDEST, changed

from inference.settings import load_settings, read_translated, shown_value
from inference.settings.rohe.forms import Translation, translate

VGG_0 = {
    "name": "vgg_0",
    "architecture_file": "artifact/VGG16/0/repair/model.json",
    "weights_file": "artifact/VGG16/0/repair/model.h5",
    "input": {"shape": [32, 32, 3], "dtype": "float32", "raw": "model_ready"},
}


class TestForms:
    def test_the_flat_form(self) -> None:
        document = translate(FLAT).document
        assert [model["name"] for model in document["models"]] == ["vgg", "vgg_0"]
        assert document["models"][1] == VGG_0
        assert document["default_model"] == "vgg_0"
        assert (document["pipeline_id"], document["ensemble"]) == ("pipeline_1", True)
        assert document["kafka"] == {"bootstrap_servers": "127.0.0.1:9092", "topic": "nii_case"}
        assert document["mongodb"] == {
            "url": "mongodb://admin_user:admin%40pass@localhost:27017",
            "database": "nii_case",
            "collection": "raw_prediction",
        }

    def test_the_grouped_form_says_the_same(self) -> None:
        assert translate(GROUPED).document == translate(FLAT).document

    def test_the_oldest_form_is_one_model(self) -> None:
        document = translate(OLDEST).document
        assert [(model["name"], model["weights_file"]) for model in document["models"]] == [("model", "a/model.h5")]
        assert document["default_model"] == "model"

    def test_files_without_models_are_the_chosen_model(self) -> None:
        model_info = {"chosen_model_id": "vgg", "files": {"architecture_file": "a.json", "weights_file": "a.h5"}}
        document = translate({"model_info": model_info | {"input_shape": [32, 32, 3]}}).document
        assert [(model["name"], model["architecture_file"]) for model in document["models"]] == [("vgg", "a.json")]

    def test_the_nested_form(self) -> None:
        document = translate(NESTED).document
        assert document["models"][1] == VGG_0 | {
            "description": "What is on the road.",
            "labels": ["bicycle", "bus"],
            "predict_timeout_s": 5.0,
            "threshold": 0.5,
            "device": "gpu",
        }
        assert document["default_model"] == "vgg_0"
        flat = translate(FLAT).document
        assert all(document[section] == flat[section] for section in ("s3", "model_files", "uploads", "mongodb", "kafka"))

    @pytest.mark.parametrize("name", ["inference_timeout", "default_threshold", "preferred_device", "inference_backend"])
    def test_what_all_models_share_may_be_missing_or_null(self, name: str) -> None:
        for value in (None, ...):
            models = translate(changed(NESTED, f"model_config.{name}", value)).document["models"]
            assert all(model.keys() >= VGG_0.keys() for model in models)

    def test_a_variant_goes_before_its_type(self) -> None:
        variant = {"path": "b", "input_shape": "64,64,1", "output_labels": ["x"], "weights_file": "best.h5"}
        document = translate(changed(NESTED, "model_config.model_type.bdd100k.variants.vgg", variant)).document
        model = document["models"][0]
        assert (model["input"]["shape"], model["labels"]) == ([64, 64, 1], ["x"])
        assert (model["architecture_file"], model["weights_file"]) == ("b/model.json", "b/best.h5")

    def test_a_type_without_variants_is_a_model(self) -> None:
        form = changed(changed(NESTED, "model_config.model_type.bdd100k.variants", ...), "model_config.chosen_model_id", ...)
        document = translate(form).document
        assert [(model["name"], model["architecture_file"]) for model in document["models"]] == [("bdd100k", "model.json")]
        assert document["default_model"] == "bdd100k"

    def test_ids_that_two_types_have_are_the_chosen_types(self) -> None:
        other = NESTED["model_config"]["model_type"]["bdd100k"] | {"variants": {"vgg_0": {"path": "b"}, "x": {"path": "c"}}}
        document = translate(changed(NESTED, "model_config.model_type", {"a": other} | NESTED["model_config"]["model_type"]))
        by_name = {model["name"]: model["weights_file"] for model in document.document["models"]}
        assert by_name["vgg_0"] == "artifact/VGG16/0/repair/model.h5"
        assert (by_name["a.vgg_0"], by_name["x"]) == ("b/model.h5", "c/model.h5")

    @pytest.mark.parametrize("shape", ["32,32,3", "32x32x3", "(32, 32, 3)", [32, 32, 3]])
    def test_an_input_shape_in_any_form(self, shape: Any) -> None:
        assert translate(changed(FLAT, "model_info.input_shape", shape)).document["models"][1] == VGG_0

    def test_the_bucket_holds_models_and_by_default_the_uploads(self) -> None:
        document = translate(FLAT).document
        assert document["model_files"] == {"bucket": "nii-application-inference-model"}
        assert document["uploads"] == {"store": "s3", "bucket": "nii-application-inference-model"}
        assert document["s3"]["endpoint"] == "http://storage:9000"

    @pytest.mark.parametrize("uploads", [{"store": "local"}, {"bucket": "elsewhere"}])
    def test_uploads_go_where_our_key_says(self, uploads: dict[str, str]) -> None:
        document = translate(FLAT | {"uploads": uploads}).document
        assert document["uploads"] == {"store": "s3", "bucket": "nii-application-inference-model"} | uploads

    def test_without_minio_uploads_are_local(self) -> None:
        assert "uploads" not in translate(changed(FLAT, "minio_config", ...)).document

    @pytest.mark.parametrize("host", ["a b", "a..b", "u:p@h", "h/x"])
    def test_a_wrong_host_of_mongodb_is_named_by_its_key(self, host: str) -> None:
        mongodb = {"host": host, "port": 1, "username": "u", "password": "p"}
        assert translate({"mongodb": mongodb}).rohe_keys["mongodb.url"] == "mongodb.host"

    def test_mongodb_without_credentials(self) -> None:
        mongodb = {"host": "db", "username": "", "password": ""}
        assert translate({"mongodb": mongodb}).document == {"mongodb": {"url": "mongodb://db:27017"}}

    def test_an_object_in_a_bucket_stays_one(self) -> None:
        document = translate(changed(FLAT, "model_info.files_name.weights_file", "s3://bucket/model.h5")).document
        assert document["models"][0]["weights_file"] == "s3://bucket/model.h5"

    def test_keys_that_are_not_of_rohe_pass_through(self) -> None:
        ours = {"models": ["models/digits"], "mongodb": {"url": "mongodb://x"}, "api": {"port": 1}, "zzz": [1]}
        assert translate(ours) == Translation(ours)

    def test_both_may_be_mixed(self) -> None:
        document = translate(FLAT | {"models": ["models/digits"], "mongodb": MONGODB | {"ttl_days": 3}}).document
        assert [model if isinstance(model, str) else model["name"] for model in document["models"]] == [
            "models/digits",
            "vgg",
            "vgg_0",
        ]
        assert document["mongodb"]["ttl_days"] == 3

    @pytest.mark.parametrize("name", FORMS)
    def test_a_document_is_not_changed(self, name: str) -> None:
        before = copy.deepcopy(FORMS[name])
        translate(FORMS[name])
        assert FORMS[name] == before


class TestExamples:
    @pytest.mark.parametrize("name", ["config.json", "nested.yaml"])
    def test_the_models_of_the_examples_are_in_this_repository(
        self, repository: Path, monkeypatch: pytest.MonkeyPatch, name: str
    ) -> None:
        monkeypatch.setenv("MINIO_ACCESS_KEY", "x")
        monkeypatch.setenv("MINIO_SECRET_KEY", "x")
        translation = read_translated(repository / "configurations" / name)
        files = [model[key] for model in translation.document["models"] for key in ("architecture_file", "weights_file")]
        assert translation.document["default_model"] == "vgg_0"
        assert [file for file in files if not (repository / file).is_file()] == []


class TestRohe:
    def test_a_folder_that_is_not_here_is_looked_for_below_rohe(self, tmp_path: Path) -> None:
        form = changed(FLAT, "model_info.models.vgg_0.folder", "/artifact/nii/VGG16/0/repair")
        for rohe, folder in ((tmp_path, tmp_path / "artifact/nii/VGG16/0/repair"), (None, Path("/artifact/nii/VGG16/0/repair"))):
            assert translate(form, rohe=rohe).document["models"][1]["weights_file"] == str(folder / "model.h5")

    def test_a_folder_that_is_here_is_meant_as_it_is_written(self, tmp_path: Path) -> None:
        for name in ("model.json", "model.h5"):
            (tmp_path / name).touch()
        document = translate(changed(FLAT, "model_info.models.vgg_0.folder", str(tmp_path)), rohe=Path("/elsewhere")).document
        assert document["models"][1]["weights_file"] == str(tmp_path / "model.h5")

    @staticmethod
    def checkout(folder: Path, *models: str) -> Path:
        """A checkout of ROHE with the files of these models."""
        for model in models:
            (folder / model).mkdir(parents=True, exist_ok=True)
            for name in ("model.json", "model.h5"):
                (folder / model / name).write_text(model, encoding="utf-8")
        return folder

    @pytest.mark.parametrize(
        ("form", "path"),
        [
            (FLAT, "model_info.models.vgg_0.folder"),
            (GROUPED, "model_info.load_model_params.model_directories.vgg_0"),
            (NESTED, "model_config.model_type.bdd100k.variants.vgg_0.path"),
        ],
        ids=["flat", "grouped", "nested"],
    )
    @pytest.mark.parametrize("below", ["artifact/nii/VGG16/0/repair", "repair"])
    def test_a_folder_of_its_authors_machine_is_found_by_its_tail(
        self, tmp_path: Path, form: dict[str, Any], path: str, below: str
    ) -> None:
        rohe = self.checkout(tmp_path / "checkout", below)
        document = translate(changed(form, path, f"/home/author/internship/ROHE/{below}"), rohe=rohe).document
        model = next(model for model in document["models"] if model["name"] == "vgg_0")
        assert model["architecture_file"] == str(rohe / below / "model.json")
        assert model["weights_file"] == str(rohe / below / "model.h5")

    def test_files_of_its_authors_machine_are_found_by_their_tails(self, tmp_path: Path) -> None:
        rohe = self.checkout(tmp_path, "a/vgg")
        files = {"architecture_file": "/home/author/ROHE/a/vgg/model.json", "weights_file": "/home/author/ROHE/a/vgg/model.h5"}
        model = translate(changed(OLDEST, "model.files", files), rohe=rohe).document["models"][0]
        assert (model["architecture_file"], model["weights_file"]) == (
            str(rohe / "a/vgg/model.json"),
            str(rohe / "a/vgg/model.h5"),
        )

    @pytest.mark.parametrize("variable", ["ROHE", "ROHE_PATH"])
    def test_an_env_file_names_it(self, workplace: Path, variable: str) -> None:
        (workplace / ".env").write_text(f"{variable}=/home/me/ROHE\nLIB_LEVEL=5\n", encoding="utf-8")
        form = changed(FLAT, "model_info.models.vgg_0.folder", "/artifact/0")
        form["model_info"]["models"]["vgg"]["folder"] = f"${{{variable}}}/artifact"
        Path("config.json").write_text(json.dumps(form), encoding="utf-8")
        models = read_translated(Path("config.json")).document["models"]
        assert [model["weights_file"] for model in models] == [
            "/home/me/ROHE/artifact/model.h5",
            "/home/me/ROHE/artifact/0/model.h5",
        ]

    def test_the_environment_goes_before_the_env_file(self, workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (workplace / ".env").write_text("ROHE=of-the-file\nNAMELESS\n", encoding="utf-8")
        monkeypatch.setenv("ROHE", "of-the-environment")
        Path("config.yaml").write_text("pipeline_id: ${ROHE}\n", encoding="utf-8")
        assert load_settings(Path("config.yaml")).pipeline_id == "of-the-environment"


class TestNotes:
    def test_every_key_says_what_it_became(self) -> None:
        became = {one.key: (one.setting, one.value) for one in translate(NESTED).translated}
        assert became["model_config.chosen_model_id"] == ("default_model", "vgg_0")
        assert became["model_config.inference_timeout"] == ("models.*.predict_timeout_s", 5.0)
        assert became["model_config.model_type.bdd100k.variants.vgg"][0] == "models.vgg"
        assert became["messaging.kafka.topic_name"] == ("kafka.topic", "nii_case")
        assert became["ensemble"] == ("sinks", ["mongodb"])

    @pytest.mark.parametrize("name", FORMS)
    def test_no_key_is_forgotten(self, name: str) -> None:
        translation = translate(FORMS[name])
        told = [*(one.key for one in translation.translated), *translation.unused]

        def forgotten(value: Any, key: str) -> Iterator[str]:
            if key in told or any(one.startswith(f"{key}.") for one in told) or key.endswith("inference_backend"):
                for part, item in value.items() if isinstance(value, dict) and key not in told else ():
                    yield from forgotten(item, f"{key}.{part}")
            else:
                yield key

        assert [key for top, value in FORMS[name].items() for key in forgotten(value, top)] == []

    def test_secrets_are_masked(self) -> None:
        translation = translate(FLAT)
        shown = str([shown_value(one.value) for one in translation.translated])
        assert "hidden" not in shown
        assert "admin%40pass" not in shown
        assert "key-of-mine" not in shown
        assert translation.document["s3"]["secret_key"] == SecretStr("hidden")

    @pytest.mark.parametrize(
        ("name", "unused"),
        [
            ("flat", ["qoa_config"]),
            ("grouped", ["qoa_config", "external_services.service_registry"]),
            ("nested", ["service_quality_config", "model_config.object_classification"]),
        ],
    )
    def test_what_has_no_use_here_is_told(self, name: str, unused: list[str]) -> None:
        assert list(translate(FORMS[name]).unused) == unused
