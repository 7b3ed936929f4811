"""Checks of this host before a part starts: by key, all at once, and without a trace."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any, get_args

import pytest
from support.other_user import as_nobody, folder_of_all

from inference.errors import ConfigurationError, InferenceError
from inference.launcher.start_checks import Part, check_everything, check_open_files, check_start
from inference.runtime.open_files import raise_open_file_limit
from inference.settings import CONFIG_VARIABLE, config_path, load_settings

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user")
PARTS = get_args(Part)
WITH_SINKS = {"everything", "relay"}
WITH_KEYS = {"everything", "api", "relay"}


def complaint(part: Part, tmp_path: Path, **settings: Any) -> str:
    """The error of the part; nothing when it would start."""
    try:
        check_start(load_settings(None, {"data_dir": tmp_path / "data", "models": ["models/digits"]} | settings), part)
    except ConfigurationError as error:
        return error.detail
    return ""


@pytest.fixture
def a_file(tmp_path: Path) -> Path:
    file = tmp_path / "file"
    file.touch()
    return file


@pytest.mark.parametrize("part", PARTS)
def test_a_part_that_can_start_leaves_nothing_behind(part: Part, tmp_path: Path) -> None:
    assert complaint(part, tmp_path) == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("part", [part for part in PARTS if part != "flower"])
def test_a_file_in_the_place_of_the_data_folder_is_named(part: Part, tmp_path: Path, a_file: Path) -> None:
    assert complaint(part, tmp_path, data_dir=a_file / "below") == f"data_dir: {a_file} is not a folder"


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("name", ["x" * 300, "\N{LATIN SMALL LETTER O WITH DIAERESIS}" * 200])
def test_a_name_that_is_too_long_is_told(part: Part, name: str, tmp_path: Path) -> None:
    assert "has more than 255 bytes" in complaint(part, tmp_path, data_dir=tmp_path / name)


@needs_root
@pytest.mark.parametrize("part", PARTS)
def test_a_folder_of_another_user_is_told(part: Part) -> None:
    with folder_of_all() as folder:
        assert complaint(part, folder) == ""
        assert as_nobody(lambda: complaint(part, folder)) == f"data_dir: cannot write to {folder}: Permission denied"


@pytest.mark.parametrize(
    ("settings", "key", "parts"),
    [
        ({"uploads": {"path": "FILE"}}, "uploads.path", {"everything", "api", "worker", "relay"}),
        ({"jsonl": {"path": "FILE/results.jsonl"}}, "jsonl.path", WITH_SINKS),
        ({"jsonl": {"path": "FOLDER"}}, "jsonl.path", WITH_SINKS),
        ({"sample_image": "FOLDER"}, "sample_image", {"everything"}),
        ({"gpu": {"lock_dir": "FILE"}}, "gpu.lock_dir", {"everything", "worker"}),
        ({"gpu": {"lock_dir": "FOLDER/none"}}, "gpu.lock_dir", {"everything", "worker"}),
        ({"sinks": ["mongodb"], "mongodb": {"url": "mongodb://h/?unknown=1"}}, "mongodb.url", WITH_SINKS),
        ({"sinks": ["mongodb"], "mongodb": {"url": "mongodb://h/?w=0"}}, "mongodb.url", WITH_SINKS),
        ({"security": {"audit_file": "FILE/audit.jsonl"}}, "security.audit_file", WITH_KEYS),
        ({"security": {"audit_file": "FOLDER/none/audit.jsonl"}}, "", set()),
        ({"data_dir": "FOLDER/" + "a/" * 3000}, "data_dir", {*PARTS}),
        ({"data_dir": "FOLDER/loop"}, "data_dir", {*PARTS}),
        ({"data_dir": "FOLDER/loop/below"}, "data_dir", {*PARTS}),
        ({"sinks": ["mongodb"], "mongodb": {"url": "mongodb://h/?tls=true&tlsCAFile=/no"}}, "mongodb.url", WITH_SINKS),
    ],
    ids=lambda value: ", ".join(sorted(value)) if isinstance(value, set) else str(value)[:80],
)
def test_a_part_names_the_key_that_it_uses(
    settings: dict[str, Any], key: str, parts: set[str], tmp_path: Path, a_file: Path
) -> None:
    def filled(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: filled(item) for name, item in value.items()}
        return value.replace("FILE", str(a_file)).replace("FOLDER", str(tmp_path)) if isinstance(value, str) else value

    (tmp_path / "loop").symlink_to("loop")
    for part in PARTS:
        said = complaint(part, tmp_path, **filled(settings))
        assert said.startswith(f"{key}: ") if part in parts else said == ""
        assert "\n" not in said


@pytest.mark.parametrize("part", PARTS)
def test_wrong_file_with_keys_is_told(part: Part, tmp_path: Path) -> None:
    file = tmp_path / "keys.yaml"
    file.write_text("keys: {aB3dE6gH9k: {owner: ada, role: boss}}", encoding="utf-8")
    expected = [
        f"{file}: keys.aB3dE6gH9k.role: Input should be 'predict', 'read' or 'admin' (got 'boss')",
        f"{file}: keys.aB3dE6gH9k.sha256: Field required",
    ]
    assert complaint(part, tmp_path, security={"keys_file": file}).splitlines() == (expected if part in WITH_KEYS else [])


def test_what_a_configuration_does_not_use_is_not_asked_for(tmp_path: Path, a_file: Path) -> None:
    assert complaint("api", tmp_path, data_dir=a_file, uploads={"store": "s3"}, broker={"url": "redis://h"}) == ""
    assert complaint("relay", tmp_path, jsonl={"path": a_file}, uploads={"path": tmp_path}) == ""


def test_all_errors_come_at_once(tmp_path: Path, a_file: Path) -> None:
    settings = {"data_dir": a_file, "sample_image": "none.jpg", "models": ["models/digits", "models/digits"]}
    with pytest.raises(ConfigurationError) as caught:
        check_everything(load_settings(None, settings))
    assert [line.partition(":")[0] for line in caught.value.detail.splitlines()] == ["data_dir", "sample_image", "models"]


@needs_root
def test_a_model_that_may_not_be_read_is_told(repository: Path) -> None:
    def read() -> str:
        try:
            check_everything(settings)
        except ConfigurationError as error:
            return error.detail
        return ""

    with folder_of_all() as folder:
        for name in ("model.yaml", "digits.keras"):
            (folder / name).write_bytes((repository / "models" / "digits" / name).read_bytes())
        (folder / "digits.keras").chmod(0o600)
        settings = load_settings(None, {"models": [str(folder)], "data_dir": tempfile.gettempdir()})
        assert as_nobody(read) == f"{folder / 'model.yaml'}: file: cannot read digits.keras: Permission denied"


def test_far_too_few_open_files_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    check_open_files()
    monkeypatch.setattr("inference.launcher.start_checks.raise_open_file_limit", lambda _files: 64)
    with pytest.raises(ConfigurationError, match=r"may open 64 files .* \(ulimit -n\)"):
        check_open_files()


def test_check_config_tells_of_too_few_open_files_too(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("inference.launcher.start_checks.raise_open_file_limit", lambda _files: 64)
    with pytest.raises(ConfigurationError, match="may open 64 files"):
        check_everything(load_settings(None, {"data_dir": tmp_path, "models": ["models/digits"]}))


@pytest.mark.parametrize("name", ["pipe", "loop", "\ud800", "a/" * 3000 + "a"], ids=["pipe", "loop", "surrogate", "long"])
@pytest.mark.parametrize("key", ["file", "architecture_file", "labels_file", "folder"])
def test_a_model_of_a_path_that_is_no_file_is_told(tmp_path: Path, key: str, name: str) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "model.yaml").symlink_to(name if name in {"pipe", "loop"} else "loop")
    place = f"{tmp_path}/{name}"
    both = {"architecture_file": place, "weights_file": place} if key == "architecture_file" else {"file": place}
    files = {"file": "models/digits/digits.keras", "labels_file": place} if key == "labels_file" else both
    model: Any = str(tmp_path) if key == "folder" else {"name": "a", "input": {"shape": [8, 8, 3]}} | files
    with pytest.raises(InferenceError) as caught:
        check_everything(load_settings(None, {"data_dir": tmp_path, "models": [model]}))
    assert caught.value.detail.isprintable() or name == "\ud800"


@needs_root
@pytest.mark.parametrize("hidden", [".env", "configurations", "configurations/local.yaml"])
def test_a_configuration_that_may_not_be_read_is_told(hidden: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def read() -> str:
        try:
            load_settings(config_path())
        except ConfigurationError as error:
            return error.detail
        return ""

    monkeypatch.delenv(CONFIG_VARIABLE, raising=False)
    with folder_of_all() as folder:
        (folder / "configurations").mkdir()
        for name in (".env", "configurations/local.yaml"):
            (folder / name).write_text("")
        (folder / hidden).chmod(0)
        monkeypatch.chdir(folder)
        assert as_nobody(read).startswith("cannot read the ")
        assert as_nobody(read).endswith(": Permission denied")


def test_a_limit_is_never_lowered() -> None:
    before = raise_open_file_limit(300)
    assert raise_open_file_limit(1) == before


@pytest.mark.parametrize("part", PARTS)
def test_a_webhook_that_is_not_allowed_stops_the_parts_that_use_it(part: Part, tmp_path: Path) -> None:
    webhooks = {"secret": f"whsec_{'c2l4' * 8}", "url": "https://127.0.0.1/"}
    said = complaint(part, tmp_path, webhooks=webhooks)
    assert ("webhooks.url: the URL is not allowed" in said) is (part in {"everything", "api", "relay"})
