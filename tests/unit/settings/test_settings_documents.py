"""Files of settings: how they are read, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.settings_files import complaint, load

from inference.errors import ConfigurationError
from inference.settings import load_settings


class TestFiles:
    @pytest.mark.parametrize("indent", [None, 2, "\t"])
    def test_json_is_read_however_it_is_indented(self, workplace: Path, indent: int | str | None) -> None:
        document = {"pipeline_id": "größer", "api": {"port": 1, "max_wait_s": 1e1}, "sinks": []}
        (workplace / "config.json").write_text(json.dumps(document, indent=indent), encoding="utf-8")
        settings = load_settings(Path("config.json"))
        assert (settings.pipeline_id, settings.api.port, settings.api.max_wait_s) == ("größer", 1, 10)

    @pytest.mark.parametrize("escaped", [True, False])
    def test_json_is_read_however_it_is_escaped(self, workplace: Path, escaped: bool) -> None:
        (workplace / "config.json").write_text(json.dumps({"pipeline_id": "😀"}, ensure_ascii=escaped), encoding="utf-8")
        assert load_settings(Path("config.json")).pipeline_id == "😀"

    @pytest.mark.parametrize(
        ("path", "says"),
        [("nowhere.yaml", "No such file"), (".", "Is a directory"), ("nowhere/else.yaml", "No such file")],
    )
    def test_a_file_that_cannot_be_read_is_named(self, path: str, says: str) -> None:
        with pytest.raises(ConfigurationError, match=f"cannot read the configuration {path}: {says}"):
            load_settings(Path(path))

    @pytest.mark.parametrize("text", ["- a\n- list\n", "just a text", "42"])
    def test_what_is_no_mapping_is_refused(self, text: str) -> None:
        assert complaint(text).startswith("config.yaml must be a mapping of settings, not ")

    @pytest.mark.parametrize("text", ["api: {port: 1", "a: b: c", "--- {}\n--- {}\n", "{[1]: 2}"])
    def test_what_is_neither_yaml_nor_json_is_refused_in_one_line(self, text: str) -> None:
        said = complaint(text)
        assert said.startswith("config.yaml is neither YAML nor JSON: ")
        assert "\n" not in said

    @pytest.mark.parametrize(
        "value",
        [
            *("'S3krit", '"S3krit', "@S3krit", "%S3krit", "*S3krit", "!S3krit x", "!S3!cret x", "`S3krit", "S3krit: x"),
            *("[S3krit", "\tS3krit\n\tb: 2", '"\\S3krit"', "!!int S3krit", "!!bool S3krit", "!!timestamp S3krit"),
            *("{<<: S3krit}", "S3\x01cret"),
        ],
    )
    def test_the_text_of_a_file_is_not_shown(self, value: str) -> None:
        said = complaint(f"mongodb:\n  url: {value}\n")
        assert said.startswith("config.yaml is neither YAML nor JSON: ")
        assert "S3" not in said
        assert "krit" not in said
        assert "line 2, column" in said or "position" in said

    @pytest.mark.parametrize(
        ("value", "says"),
        [("2024-13-45", "no timestamp in line 1"), ("9" * 5000, "no int in line 1"), ("&a [*a]", "an alias refers to")],
    )
    def test_a_value_that_is_none_is_told(self, value: str, says: str) -> None:
        said = complaint(f"pipeline_id: {value}\n")
        assert says in said
        assert "\n" not in said

    @pytest.mark.parametrize(
        ("name", "text"), [("c.json", '{"api": {"port": 7}}'), ("c.yaml", "api: {port: 7}"), ("C.JSON", "{}")]
    )
    def test_a_byte_order_mark_means_nothing(self, workplace: Path, name: str, text: str) -> None:
        (workplace / name).write_bytes(b"\xef\xbb\xbf" + text.encode())
        assert load_settings(Path(name)).api.port == (7 if "7" in text else 30005)

    @pytest.mark.parametrize(("name", "text"), [("c.json", "{}"), ("c.yaml", "api: {port: 7}")])
    @pytest.mark.parametrize("encoding", ["utf-16", "utf-32"])
    def test_other_encodings_are_named(self, workplace: Path, name: str, text: str, encoding: str) -> None:
        (workplace / name).write_bytes(text.encode(encoding))
        with pytest.raises(ConfigurationError, match=rf"{name} is UTF-(16|32); save it as UTF-8"):
            load_settings(Path(name))

    @pytest.mark.parametrize(
        ("name", "text"),
        [
            ("c.json", '{"api": {"port": 1, "port": 2}}'),
            ("c.yaml", "api:\n  port: 1\n  port: 2\n"),
            ("c.yaml", "api: {port: 1, 'port': 2}"),
        ],
    )
    def test_a_key_that_is_there_twice_is_refused(self, workplace: Path, name: str, text: str) -> None:
        (workplace / name).write_text(text, encoding="utf-8")
        with pytest.raises(ConfigurationError, match="the key 'port' is there twice"):
            load_settings(Path(name))

    def test_a_merged_key_of_yaml_is_there_once(self) -> None:
        settings = load("api: &a {port: 1, workers: 2}\nmodel_files: {}\nworker: {}\n")
        assert settings.api.workers == 2
        merged = "x-limits: &a {max_pixels: 5}\nlimits:\n  <<: *a\n  max_pixels: 7\n"
        assert "x-limits" in complaint(merged)

    @pytest.mark.parametrize("name", ["c.json", "c.yaml"])
    def test_one_that_is_nested_too_deeply_is_refused(self, workplace: Path, name: str) -> None:
        (workplace / name).write_text('{"a":' * 50_000, encoding="utf-8")
        with pytest.raises(ConfigurationError, match=name):
            load_settings(Path(name))

    def test_what_is_no_text_is_refused(self, workplace: Path) -> None:
        (workplace / "config.yaml").write_bytes(b"pipeline_id: \xff\xfe")
        with pytest.raises(ConfigurationError, match=r"config\.yaml is neither YAML nor JSON"):
            load_settings(workplace / "config.yaml")
