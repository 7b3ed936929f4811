"""Model files in a real MinIO: fetched once for a host, checked, and fetched again when they are torn or changed."""

from __future__ import annotations

import hashlib
import io
import json
import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from minio import Minio
from support.real_servers import NOBODY, minio_settings

from inference.errors import ConfigurationError, ObjectNotFound, ServiceUnavailable
from inference.models.files import ModelFiles
from inference.models.locations import FileLocation
from inference.models.object_cache import ObjectCache
from inference.models.registry import ModelRegistry
from inference.settings import ModelFileSettings, S3Settings, Settings
from inference.storage.s3 import S3ObjectReader

ROOT = Path(__file__).parents[2]
WEIGHTS = bytes(range(256)) * 4000
KEY = "nets/vgg/weights.h5"

#: Puts an object into the test's bucket.
Put = Callable[[str, bytes], None]


@pytest.fixture
def bucket(services_env: dict[str, str], own_name: str) -> Iterator[Put]:
    """A bucket of this test alone, named `own_name`; the fixture puts objects into it."""
    client = Minio(
        services_env["MINIO_ENDPOINT"].removeprefix("http://"),
        access_key=services_env["MINIO_ACCESS_KEY"],
        secret_key=services_env["MINIO_SECRET_KEY"],
        secure=False,
    )
    client.make_bucket(own_name)

    def put(key: str, data: bytes) -> None:
        client.put_object(own_name, key, io.BytesIO(data), len(data))

    yield put
    for found in client.list_objects(own_name, recursive=True):
        client.remove_object(own_name, found.object_name or "")
    client.remove_bucket(own_name)


@pytest.fixture
def location(own_name: str) -> FileLocation:
    return FileLocation.parse(f"s3://{own_name}/{KEY}")


class CountingReader(S3ObjectReader):
    """Knows how often it downloaded."""

    downloads = 0

    def download(self, *arguments: Any) -> str:
        self.downloads += 1
        return super().download(*arguments)


@pytest.fixture
def reader(services_env: dict[str, str]) -> CountingReader:
    return CountingReader(minio_settings(services_env))


@pytest.fixture
def cache(tmp_path: Path, reader: CountingReader) -> ObjectCache:
    return ObjectCache(tmp_path / "cache", reader)


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


class TestFetching:
    def test_an_object_is_fetched_once(
        self, bucket: Put, cache: ObjectCache, reader: CountingReader, location: FileLocation
    ) -> None:
        bucket(KEY, WEIGHTS)
        paths = {cache.fetch(location) for _ in range(3)}
        (path,) = paths
        assert path.read_bytes() == WEIGHTS
        assert (path.parent.name, path.name) == (digest(WEIGHTS), "weights.h5")
        assert reader.downloads == 1

    def test_a_restart_does_not_fetch_again(
        self,
        bucket: Put,
        cache: ObjectCache,
        reader: CountingReader,
        location: FileLocation,
        tmp_path: Path,
    ) -> None:
        bucket(KEY, WEIGHTS)
        path = cache.fetch(location)
        assert ObjectCache(tmp_path / "cache", reader).fetch(location) == path
        assert reader.downloads == 1

    def test_a_changed_object_is_fetched_again(
        self, bucket: Put, cache: ObjectCache, reader: CountingReader, location: FileLocation
    ) -> None:
        bucket(KEY, WEIGHTS)
        first = cache.fetch(location)
        bucket(KEY, WEIGHTS[::-1])
        second = cache.fetch(location)
        assert second.read_bytes() == WEIGHTS[::-1]
        assert first.read_bytes() == WEIGHTS, "whoever runs on the old one keeps it"
        assert reader.downloads == 2

    @pytest.mark.parametrize("harm", ["torn", "changed", "gone", "empty"])
    def test_a_copy_that_was_harmed_is_fetched_again(
        self,
        bucket: Put,
        cache: ObjectCache,
        reader: CountingReader,
        location: FileLocation,
        harm: str,
    ) -> None:
        bucket(KEY, WEIGHTS)
        path = cache.fetch(location)
        if harm == "gone":
            path.unlink()
        else:
            path.write_bytes({"torn": WEIGHTS[:100_000], "changed": b"x" + WEIGHTS[1:], "empty": b""}[harm])
        assert cache.fetch(location).read_bytes() == WEIGHTS
        assert reader.downloads == 2

    @pytest.mark.parametrize("content", ["", "{", "[]", '{"etag": "x"}'])
    def test_a_harmed_note_of_what_was_fetched_costs_a_download(
        self,
        *,
        bucket: Put,
        cache: ObjectCache,
        reader: CountingReader,
        location: FileLocation,
        tmp_path: Path,
        content: str,
    ) -> None:
        bucket(KEY, WEIGHTS)
        cache.fetch(location)
        (note,) = (tmp_path / "cache" / "objects").glob("*.json")
        note.write_text(content, encoding="utf-8")
        assert cache.fetch(location).read_bytes() == WEIGHTS
        assert reader.downloads == 2

    def test_a_cache_may_be_deleted(self, bucket: Put, cache: ObjectCache, location: FileLocation, tmp_path: Path) -> None:
        bucket(KEY, WEIGHTS)
        cache.fetch(location)
        shutil.rmtree(tmp_path / "cache")
        assert cache.fetch(location).read_bytes() == WEIGHTS


class TestDigests:
    def test_the_right_one_is_asked_for_once_and_then_found(
        self,
        *,
        bucket: Put,
        cache: ObjectCache,
        services_env: dict[str, str],
        own_name: str,
        tmp_path: Path,
    ) -> None:
        bucket(KEY, WEIGHTS)
        fixed = FileLocation.parse(f"s3://{own_name}/{KEY}#sha256={digest(WEIGHTS)}")
        path = cache.fetch(fixed)
        away = ObjectCache(tmp_path / "cache", S3ObjectReader(minio_settings(services_env, endpoint=NOBODY)))
        assert away.fetch(fixed) == path

    def test_another_content_is_refused_and_not_kept(
        self, bucket: Put, cache: ObjectCache, own_name: str, tmp_path: Path
    ) -> None:
        bucket(KEY, WEIGHTS)
        fixed = FileLocation.parse(f"s3://{own_name}/{KEY}#sha256={digest(b'other')}")
        with pytest.raises(ConfigurationError) as caught:
            cache.fetch(fixed)
        assert caught.value.detail == (
            f"s3://{own_name}/{KEY} has the digest sha256:{digest(WEIGHTS)}, not sha256:{digest(b'other')}"
        )
        left = [path.name for path in (tmp_path / "cache").rglob("*") if path.is_file()]
        assert [name for name in left if not name.endswith(".lock")] == []


class TestMissing:
    @pytest.mark.usefixtures("bucket")
    def test_a_missing_object_is_told_from_a_missing_bucket(self, cache: ObjectCache, own_name: str) -> None:
        with pytest.raises(ObjectNotFound, match=f"there is no object {KEY} in the bucket {own_name}"):
            cache.fetch(FileLocation.parse(f"s3://{own_name}/{KEY}"))
        with pytest.raises(ObjectNotFound, match="there is no bucket no-such-bucket-here"):
            cache.fetch(FileLocation.parse(f"s3://no-such-bucket-here/{KEY}"))

    def test_a_store_that_is_away_is_done_without_where_there_is_a_copy(
        self,
        *,
        bucket: Put,
        cache: ObjectCache,
        location: FileLocation,
        services_env: dict[str, str],
        tmp_path: Path,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        bucket(KEY, WEIGHTS)
        away = ObjectCache(tmp_path / "cache", S3ObjectReader(minio_settings(services_env, endpoint=NOBODY)))
        with pytest.raises(ServiceUnavailable):
            away.fetch(location)
        path = cache.fetch(location)
        with caplog.at_level(logging.WARNING):
            assert away.fetch(location) == path
        assert "its last copy is used" in caplog.text

    def test_a_cache_that_cannot_be_written_is_told(self, reader: CountingReader, location: FileLocation, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        with pytest.raises(ConfigurationError, match=r"model_files\.cache_dir: .*file/cache: Not a directory"):
            ObjectCache(tmp_path / "file" / "cache", reader).fetch(location)


def settings_for(minio: S3Settings, bucket: str, folder: Path, *models: Any) -> Settings:
    return Settings(data_dir=folder / "data", models=models, s3=minio, model_files=ModelFileSettings(bucket=bucket))


class TestModels:
    @pytest.fixture
    def settings(self, bucket: Put, services_env: dict[str, str], own_name: str, tmp_path: Path) -> Settings:
        """One model whose files are all in the bucket."""
        bucket("net/model.json", b"{}")
        bucket("net/w.h5", WEIGHTS)
        bucket("net/labels.txt", b"cat\ndog\n")
        files = {"architecture_file": "model.json", "weights_file": "w.h5", "labels_file": "labels.txt"}
        located = {key: f"s3://{own_name}/net/{name}" for key, name in files.items()}
        model = {"name": "net", "input": {"shape": [8, 6, 3]}, **located}
        return settings_for(minio_settings(services_env), own_name, tmp_path, model)

    def test_a_model_in_a_bucket_has_its_files_here(self, settings: Settings) -> None:
        spec = ModelRegistry.load(settings).get()
        assert spec.local_files["weights_file"].path.read_bytes() == WEIGHTS
        assert spec.local_files["weights_file"].path.is_relative_to(settings.data_dir / "model-files")
        assert spec.labels == ("cat", "dog")

    def test_its_digest_is_that_of_the_same_files_in_a_folder(self, settings: Settings, tmp_path: Path) -> None:
        (tmp_path / "net").mkdir()
        (tmp_path / "net" / "model.json").write_bytes(b"{}")
        (tmp_path / "net" / "w.h5").write_bytes(WEIGHTS)
        description = {"name": "net", "architecture_file": "model.json", "weights_file": "w.h5", "input": {"shape": [8, 6, 3]}}
        (tmp_path / "net" / "model.yaml").write_text(yaml.safe_dump(description), encoding="utf-8")
        local = ModelRegistry.load(Settings(models=(tmp_path / "net",))).get()
        assert local.digest == ModelRegistry.load(settings).get().digest

    def test_a_missing_file_is_a_configuration_error_that_names_its_key(self, settings: Settings, own_name: str) -> None:
        (model,) = settings.models
        assert isinstance(model, dict)
        missing = settings.model_copy(update={"models": ({**model, "weights_file": f"s3://{own_name}/gone.h5"},)})
        with pytest.raises(
            ConfigurationError, match=f"models.0: weights_file: there is no object gone.h5 in the bucket {own_name}"
        ):
            ModelRegistry.load(missing)

    def test_new_weights_come_from_the_models_bucket(self, bucket: Put, settings: Settings) -> None:
        bucket("net/new.h5", b"new")
        files = ModelFiles(settings)
        spec = ModelRegistry.load(settings).get()
        changed = files.with_files(spec, weights_file=files.in_bucket("net/new.h5"))
        assert changed.local_files["weights_file"].path.read_bytes() == b"new"
        assert changed.local_files["architecture_file"] == spec.local_files["architecture_file"]
        with pytest.raises(ObjectNotFound, match=r"there is no object net/gone\.h5"):
            files.with_files(spec, weights_file=files.in_bucket("net/gone.h5"))


FETCH = """
import json, logging, sys
from pathlib import Path
from pydantic import SecretStr
from inference.models.locations import FileLocation
from inference.models.object_cache import ObjectCache
from inference.settings import S3Settings
from inference.storage.s3 import S3ObjectReader

logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
class Slow(S3ObjectReader):
    def download(self, *arguments):
        print("downloads", flush=True)
        sys.stdin.readline()  # go on when the test says so
        return super().download(*arguments)

options = json.loads(sys.argv[1])
cache = ObjectCache(Path(options["folder"]), Slow(S3Settings(**options["s3"])))
print("path", cache.fetch(FileLocation.parse(options["location"])), flush=True)
"""


class TestProcesses:
    """Two workers and an API that start at once."""

    @pytest.fixture
    def start(
        self, services_env: dict[str, str], location: FileLocation, tmp_path: Path
    ) -> Iterator[Callable[[], subprocess.Popen[str]]]:
        """Starts a process that fetches the object; it waits for a line before it downloads."""
        options = {
            "folder": str(tmp_path / "cache"),
            "location": location.text,
            "s3": {
                "endpoint": services_env["MINIO_ENDPOINT"],
                "access_key": services_env["MINIO_ACCESS_KEY"],
                "secret_key": services_env["MINIO_SECRET_KEY"],
            },
        }
        processes: list[subprocess.Popen[str]] = []

        def start() -> subprocess.Popen[str]:
            process = subprocess.Popen(
                [sys.executable, "-c", FETCH, json.dumps(options)],
                cwd=ROOT,
                env=os.environ | {"PYTHONPATH": str(ROOT)},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            processes.append(process)
            return process

        yield start
        for process in processes:
            process.kill()
            process.communicate()

    def test_who_starts_at_once_downloads_once(self, bucket: Put, start: Callable[[], subprocess.Popen[str]]) -> None:
        bucket(KEY, WEIGHTS)
        first = start()
        assert until(first, "downloads")
        others = [start(), start()]
        for other in others:
            assert until(other, "waiting for another process")
        said = [process.communicate("go on\n", timeout=60)[0] for process in (first, *others)]
        paths = {line for text in said for line in text.splitlines() if line.startswith("path ")}
        assert len(paths) == 1
        assert Path(paths.pop().removeprefix("path ")).read_bytes() == WEIGHTS
        assert [text.count("downloads") for text in said] == [0, 0, 0]

    def test_when_the_one_that_downloads_is_killed_another_does_it(
        self, bucket: Put, start: Callable[[], subprocess.Popen[str]]
    ) -> None:
        bucket(KEY, WEIGHTS)
        first = start()
        assert until(first, "downloads")
        second = start()
        assert until(second, "waiting for another process")
        first.kill()
        said, _ = second.communicate("go on\n", timeout=60)
        assert "downloads" in said
        (path,) = (line.removeprefix("path ") for line in said.splitlines() if line.startswith("path "))
        assert Path(path).read_bytes() == WEIGHTS


def until(process: subprocess.Popen[str], begin: str) -> str:
    """The first line that begins so; empty when there is none."""
    assert process.stdout is not None
    return next((line for line in process.stdout if line.startswith(begin)), "")
