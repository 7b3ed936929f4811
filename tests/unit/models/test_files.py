"""Other files for a model while the service runs: `with_files`, as commands use it."""

from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path
from typing import Any

import pytest

from inference.errors import ConfigurationError, InferenceError, ObjectNotFound
from inference.models.files import ModelFiles
from inference.models.registry import ModelRegistry, described_models
from inference.models.spec import ModelSpec
from inference.settings import ModelFileSettings, Settings


@pytest.fixture(autouse=True)
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("models").mkdir()
    for name in ("a.json", "a.h5", "b.json", "b.h5", "whole.keras"):
        (Path("models") / name).write_bytes(name.encode())
    return tmp_path


def model(**files: str) -> tuple[ModelSpec, ModelFiles]:
    named = files or {"architecture_file": "models/a.json", "weights_file": "models/a.h5"}
    settings = Settings(models=({"name": "net", "version": "3", "input": {"shape": [8, 6, 3]}, **named},))
    return ModelRegistry.load(settings).get(), ModelFiles(settings, described_models(settings).values())


def contents(spec: ModelSpec) -> dict[str, bytes]:
    return {key: file.path.read_bytes() for key, file in spec.local_files.items()}


def test_new_weights_are_for_the_architecture_that_is_there() -> None:
    spec, files = model()
    changed = files.with_files(spec, weights_file="models/b.h5")
    assert contents(changed) == {"architecture_file": b"a.json", "weights_file": b"b.h5"}
    assert contents(spec) == {"architecture_file": b"a.json", "weights_file": b"a.h5"}
    assert (changed.name, changed.queue, changed.input) == (spec.name, spec.queue, spec.input)
    assert changed.digest != spec.digest


def test_the_version_says_what_was_loaded() -> None:
    spec, files = model()
    once = files.with_files(spec, weights_file="models/b.h5")
    again = files.with_files(once, weights_file="models/a.h5")
    assert once.version == f"3+{once.digest.removeprefix('sha256:')[:8]}"
    assert again.version == f"3+{spec.digest.removeprefix('sha256:')[:8]}"
    assert again.digest == spec.digest


def test_architecture_and_weights_take_the_place_of_a_whole_file() -> None:
    spec, files = model(file="models/whole.keras")
    changed = files.with_files(spec, architecture_file="models/b.json", weights_file="models/b.h5")
    assert contents(changed) == {"architecture_file": b"b.json", "weights_file": b"b.h5"}


def test_weights_alone_go_into_a_whole_file() -> None:
    spec, files = model(file="models/whole.keras")
    assert contents(files.with_files(spec, weights_file="models/b.h5")) == {"file": b"whole.keras", "weights_file": b"b.h5"}


def test_an_architecture_in_place_of_a_whole_file_needs_weights() -> None:
    spec, files = model(file="models/whole.keras")
    with pytest.raises(ConfigurationError, match="an architecture needs weights_file too"):
        files.with_files(spec, architecture_file="models/b.json")


def test_paths_are_of_the_working_directory_and_not_of_the_models_folder(tmp_path: Path) -> None:
    folder = tmp_path / "models" / "net"
    folder.mkdir()
    (folder / "w.h5").write_bytes(b"w")
    (folder / "model.yaml").write_text("{name: net, file: w.h5, input: {shape: [8, 6, 3]}}", encoding="utf-8")
    settings = Settings(models=(folder,))
    changed = ModelFiles(settings).with_files(ModelRegistry.load(settings).get(), weights_file="models/b.h5")
    assert contents(changed)["weights_file"] == b"b.h5"


@pytest.mark.parametrize(
    ("weights_file", "error", "says"),
    [
        ("models/missing.h5", ObjectNotFound, "there is no file .*/models/missing.h5"),
        ("/etc/hostname", ConfigurationError, "/etc/hostname is not in a folder"),
        ("models/../secret.h5", ConfigurationError, "is not in a folder"),
        ("s3://elsewhere/w.h5", ConfigurationError, "is not in a bucket"),
        ("s3://bucket", ConfigurationError, "must be a path or s3://BUCKET/KEY"),
        ("http://host/w.h5", ConfigurationError, "must be a path or s3://BUCKET/KEY"),
        ("models/b.h5#sha256=" + 64 * "0", ConfigurationError, "b.h5 has the digest sha256:.*, not sha256:0000"),
    ],
)
def test_what_is_missing_or_not_allowed_is_told(weights_file: str, error: type[Exception], says: str) -> None:
    spec, files = model()
    with pytest.raises(error, match=says) as caught:
        files.with_files(spec, weights_file=weights_file)
    assert getattr(caught.value, "field", None) == "weights_file"


@pytest.mark.parametrize(
    ("weights_file", "told"),
    [
        ("models/missing.h5", "there is no file missing.h5"),
        ("/etc/hostname", "hostname is not in a folder that models may come from (model_files.allowed_folders)"),
        ("s3://elsewhere/w.h5", "w.h5 is not in a bucket that models may come from (model_files.allowed_buckets)"),
        ("s3://inference/uploads/w.h5", "uploads/w.h5 is a client's upload, which is never used as a model"),
        ("models/b.h5#sha256=" + 64 * "0", "b.h5 has the digest sha256:"),
    ],
)
def test_clients_hear_of_no_folder_and_no_bucket(weights_file: str, told: str) -> None:
    spec, files = model()
    with pytest.raises(InferenceError) as caught:
        files.with_files(spec, weights_file=weights_file)
    assert caught.value.to_dict()["detail"].startswith(told)


def test_a_name_of_an_object_is_one_of_the_models_bucket() -> None:
    assert ModelFiles(Settings()).in_bucket("vgg/w.h5") == "s3://inference/vgg/w.h5"
    assert ModelFiles(Settings()).in_bucket("/vgg/w.h5") == "s3://inference/vgg/w.h5"
    assert ModelFiles(Settings()).in_bucket("s3://other/w.h5") == "s3://other/w.h5"
    named = Settings(model_files=ModelFileSettings(bucket="models"))
    assert ModelFiles(named).in_bucket("w.h5") == "s3://models/w.h5"


class TestArchives:
    """A SavedModel may come as a .zip."""

    @pytest.fixture
    def archive(self) -> Path:
        with zipfile.ZipFile("models/saved.zip", "w") as packed:
            packed.writestr("saved_model.pb", b"graph")
            packed.writestr("variables/data", b"weights")
        return Path("models/saved.zip")

    def test_it_is_unpacked_into_the_cache_once(self, archive: Path) -> None:
        spec, _ = model(file=str(archive))
        folder = spec.local_files["file"].path
        assert folder.is_relative_to("data/model-files")
        assert (folder / "variables" / "data").read_bytes() == b"weights"
        made = folder.stat().st_mtime_ns
        again, _ = model(file=str(archive))
        assert (again.local_files["file"].path, folder.stat().st_mtime_ns) == (folder, made)

    def test_its_digest_is_that_of_the_folder_in_it(self, archive: Path) -> None:
        with zipfile.ZipFile(archive) as packed:
            packed.extractall("models/saved")
        assert model(file=str(archive))[0].digest == model(file="models/saved")[0].digest

    @pytest.mark.parametrize("damage", ["changed", "missing", "added"])
    def test_a_copy_that_was_changed_is_unpacked_again(self, archive: Path, damage: str) -> None:
        spec, _ = model(file=str(archive))
        file = spec.local_files["file"].path / "variables" / "data"
        harm: dict[str, Any] = {
            "changed": lambda: file.write_bytes(b"WEIGHTS"),
            "missing": file.unlink,
            "added": lambda: file.with_name("more").write_bytes(b"x"),
        }
        harm[damage]()
        again, _ = model(file=str(archive))
        assert again.digest == spec.digest
        assert [path.name for path in file.parent.iterdir()] == ["data"]
        assert file.read_bytes() == b"weights"

    def test_what_would_leave_the_folder_is_refused(self, archive: Path, workplace: Path) -> None:
        with zipfile.ZipFile(archive, "a") as packed:
            packed.writestr("../../../../escaped", b"x")
        with pytest.raises(ConfigurationError, match=r"saved\.zip has a member with a name that is not a path below the"):
            model(file=str(archive))
        assert not list(workplace.rglob("escaped"))

    def test_a_damaged_archive_is_refused(self, archive: Path) -> None:
        whole = archive.read_bytes()
        archive.write_bytes(whole.replace(b"weights", b"WEIGHTS"))
        with pytest.raises(ConfigurationError, match=r"saved\.zip is not a zip archive, or is damaged: Bad CRC-32"):
            model(file=str(archive))

    def test_a_fixed_digest_is_the_archives(self, archive: Path) -> None:
        digest = hashlib.sha256(archive.read_bytes()).hexdigest()
        assert model(file=f"{archive}#sha256={digest}")[0].name == "net"
