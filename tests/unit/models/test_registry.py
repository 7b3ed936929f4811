"""Several models, inline descriptions and variants, as the settings name them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from inference.errors import ConfigurationError, ModelNotFound
from inference.models import files
from inference.models.files import ModelFiles
from inference.models.registry import ModelRegistry, described_models, reference
from inference.settings import ModelFileSettings, Settings

INPUT = {"shape": [8, 6, 3]}


@pytest.fixture(autouse=True)
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with what the descriptions name."""
    monkeypatch.chdir(tmp_path)
    for name in ("a.json", "a.h5", "b.h5", "whole.keras"):
        path = Path("nets") / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(name.encode())
    return tmp_path


def described(**changes: Any) -> dict[str, Any]:
    return {"name": "net", "architecture_file": "nets/a.json", "weights_file": "nets/a.h5", "input": INPUT} | changes


def load(*models: Any, **settings: Any) -> ModelRegistry:
    return ModelRegistry.load(Settings(models=models, **settings))


def complaint(*models: Any, **settings: Any) -> str:
    with pytest.raises(ConfigurationError) as caught:
        load(*models, **settings)
    return caught.value.detail


def test_a_description_in_the_settings_has_paths_of_the_working_directory() -> None:
    spec = load(described(labels=["x", "y"], threshold=0.5, device="gpu:1", predict_timeout_s=3)).get()
    assert {key: file.path.read_bytes() for key, file in spec.local_files.items()} == {
        "architecture_file": b"a.json",
        "weights_file": b"a.h5",
    }
    assert (spec.queue, spec.labels, spec.threshold, spec.device, spec.predict_timeout_s) == (
        "predict.net",
        ("x", "y"),
        0.5,
        "gpu:1",
        3,
    )


def test_a_reference_names_version_and_digest() -> None:
    spec = load(described(version="7")).get()
    assert (reference(spec).name, reference(spec).version, reference(spec).digest) == ("net", "7", spec.digest)


def test_folders_and_descriptions_stand_side_by_side(repository: Path) -> None:
    registry = load(repository / "models" / "digits", described(), default_model="net")
    assert [spec.name for spec in registry] == ["digits", "net"]
    assert registry.get().name == "net"
    assert registry.get("digits").name == "digits"
    with pytest.raises(ModelNotFound, match="there is no model 'cat'"):
        registry.get("cat")


class TestVariants:
    def test_a_variant_is_a_model_with_the_parents_values_but_for_its_own(self) -> None:
        variants = {"net-b": {"weights_file": "nets/b.h5", "version": "2", "input": {"resize": "stretch"}}}
        registry = load(described(variants=variants, threshold=0.5))
        parent, variant = registry.get("net"), registry.get("net-b")
        assert (variant.queue, variant.version, variant.threshold) == ("predict.net-b", "2", 0.5)
        assert (variant.input.shape, variant.input.resize, parent.input.resize) == ((8, 6, 3), "stretch", "center_crop")
        assert variant.local_files["architecture_file"] == parent.local_files["architecture_file"]
        assert variant.digest != parent.digest

    def test_a_parent_without_files_is_no_model(self) -> None:
        shared = {"name": "family", "input": INPUT, "labels": ["x"]}
        variants = {
            "first": {"file": "nets/whole.keras"},
            "second": {"architecture_file": "nets/a.json", "weights_file": "nets/a.h5"},
        }
        assert [spec.name for spec in load(shared | {"variants": variants})] == ["first", "second"]

    def test_a_whole_file_takes_the_place_of_architecture_and_weights(self) -> None:
        spec = load(described(variants={"v": {"file": "nets/whole.keras"}})).get("v")
        assert list(spec.local_files) == ["file"]

    def test_own_labels_take_the_place_of_the_parents_file(self) -> None:
        Path("nets/labels.txt").write_text("x\ny\n", encoding="utf-8")
        registry = load(described(labels_file="nets/labels.txt", variants={"v": {"labels": ["z"]}}))
        assert (registry.get("net").labels, registry.get("v").labels) == (("x", "y"), ("z",))

    def test_a_name_that_is_taken_is_refused(self) -> None:
        assert complaint(described(variants={"net": {}})) == "models: two models are named net"


class TestErrors:
    @pytest.mark.parametrize(
        ("changes", "says"),
        [
            ({"input": None}, "models.0: input: "),
            ({"weights": "a.h5"}, "models.0: weights: "),
            ({"weights_file": None}, "models.0: file: needed, or architecture_file and weights_file"),
            ({"weights_file": "nets/missing.h5"}, "models.0: weights_file: there is no file nets/missing.h5"),
            ({"folder": "/"}, "models.0: folder: unknown key"),
            ({"origin": "x"}, "models.0: origin: unknown key"),
        ],
    )
    def test_an_error_names_the_entry_and_the_key(self, changes: dict[str, Any], says: str) -> None:
        document = {key: value for key, value in described(**changes).items() if value is not None}
        assert complaint(document).startswith(says)

    def test_a_served_model_that_is_none_is_refused(self) -> None:
        assert complaint(described(), default_model="cat") == "default_model: cat is not one of the models (net)"

    @pytest.mark.parametrize("entry", [3, ["nets"], None])
    def test_an_entry_that_is_neither_folder_nor_description_is_refused(self, entry: Any) -> None:
        with pytest.raises(ValueError, match=r"must be a folder with a model\.yaml, or a description"):
            Settings(models=(entry,))

    def test_descriptions_are_read_without_their_files(self) -> None:
        settings = Settings(models=(described(weights_file="s3://nowhere/w.h5"),))
        assert described_models(settings)["net"].queue == "predict.net"


class TestPlaces:
    """A SavedModel's graph can read and write files: a model's place must be named."""

    def test_the_folders_of_what_is_configured_are_allowed(self) -> None:
        assert load(described()).get().name == "net"

    def test_allowed_folders_that_are_named_are_all(self) -> None:
        said = complaint(described(), model_files=ModelFileSettings(allowed_folders=(Path("other"),)))
        assert said.startswith("models.0: architecture_file: nets/a.json is not in a folder that models may come from")
        assert "model_files.allowed_folders: other" in said

    def test_a_link_that_leads_elsewhere_is_followed(self, tmp_path_factory: pytest.TempPathFactory) -> None:
        elsewhere = tmp_path_factory.mktemp("elsewhere") / "w.h5"
        elsewhere.write_bytes(b"w")
        Path("nets/link.h5").symlink_to(elsewhere)
        assert "is not in a folder" in complaint(described(weights_file="nets/link.h5", architecture_file="nets/a.json"))

    def test_a_link_that_leads_to_itself_is_refused(self) -> None:
        Path("nets/loop.h5").symlink_to("loop.h5")
        assert complaint(described(weights_file="nets/loop.h5")).startswith("models.0: weights_file: ")

    def test_a_file_that_may_not_be_read_is_refused(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse(_: Path) -> str:
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(files, "content_sha256", refuse)
        assert complaint(described()) == "models.0: architecture_file: cannot read nets/a.json: Permission denied"

    def test_a_file_in_the_working_directory_allows_itself_alone(self) -> None:
        Path("top.keras").write_bytes(b"top")
        Path("upload").write_bytes(b"x")
        settings = Settings(models=({"name": "top", "file": "top.keras", "input": INPUT},))
        model_files = ModelFiles(settings, described_models(settings).values())
        with pytest.raises(ConfigurationError, match="upload is not in a folder"):
            model_files.with_files(ModelRegistry.load(settings).get(), weights_file="upload")

    @pytest.mark.parametrize(
        ("location", "says"),
        [
            ("s3://elsewhere/a.h5", "is not in a bucket that models may come from (model_files.allowed_buckets: inference)"),
            ("s3://inference/uploads/2026/01/31/task", "is a client's upload, which is never used as a model"),
            ("s3://inference/dead-letters/task", "is a client's upload, which is never used as a model"),
        ],
    )
    def test_an_object_from_elsewhere_is_refused_before_it_is_fetched(self, location: str, says: str) -> None:
        assert complaint(described(weights_file=location)) == f"models.0: weights_file: {location} {says}"
