"""The one configuration: where each value comes from, and what is said of a wrong one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError
from support.settings_files import complaint, enter_workplace, load

from inference.errors import ConfigurationError
from inference.settings import CONFIG_VARIABLE, Settings, config_path, effective, load_settings, shown_value


@pytest.fixture(autouse=True)
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory, and no setting in the environment."""
    return enter_workplace(tmp_path, monkeypatch)


class TestSources:
    def test_without_anything_the_defaults_are_complete(self) -> None:
        settings = load()
        assert settings.is_embedded
        assert (settings.api.host, settings.api.port) == ("127.0.0.1", 30005)
        assert settings.uploads_path == Path("data/uploads")
        assert settings.jsonl_path == Path("data/results.jsonl")

    @pytest.mark.parametrize("name", ["local.yaml"])
    def test_the_configurations_of_this_repository_load(self, repository: Path, name: str) -> None:
        settings = load_settings(repository / "configurations" / name)
        assert all((repository / folder / "model.yaml").is_file() for folder in settings.models)
        assert settings.sample_image is None or (repository / settings.sample_image).is_file()

    def test_a_file_changes_what_it_names(self) -> None:
        settings = load({"api": {"port": 1}, "data_dir": "elsewhere", "sinks": []})
        assert (settings.api.port, settings.api.host) == (1, "127.0.0.1")
        assert (settings.uploads_path, settings.sinks) == (Path("elsewhere/uploads"), ())

    def test_the_environment_beats_env_file_beats_file_and_the_command_line_beats_all(
        self, workplace: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        names = ("port", "workers", "max_body_bytes", "max_wait_s")
        document = {"api": dict.fromkeys(names, 1)}
        (workplace / ".env").write_text("".join(f"INFERENCE_API__{name.upper()}=2\n" for name in names[1:]), encoding="utf-8")
        for name in names[2:]:
            monkeypatch.setenv(f"INFERENCE_API__{name.upper()}", "3")
        settings = load(document, {"api": {"max_wait_s": 4}})
        assert [getattr(settings.api, name) for name in names] == [1, 2, 3, 4]

    def test_an_env_file_is_read_from_the_working_directory(self, workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (workplace / ".env").write_text("# a comment\nINFERENCE_PIPELINE_ID='of the file'\n", encoding="utf-8")
        assert load().pipeline_id == "of the file"
        (workplace / "elsewhere").mkdir()
        monkeypatch.chdir(workplace / "elsewhere")
        assert load().pipeline_id == "default"

    def test_an_env_file_may_hold_what_others_need(self, workplace: Path) -> None:
        """Docker Compose reads the same file, for the passwords of the other servers."""
        (workplace / ".env").write_text("MINIO_ROOT_PASSWORD=secret\nINFERENCE_API__PORT=7\n", encoding="utf-8")
        assert load().api.port == 7

    def test_an_env_file_may_name_the_configuration(self, workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (workplace / ".env").write_text(f"{CONFIG_VARIABLE}=configurations/full.yaml\n", encoding="utf-8")
        assert load().api.port == 30005
        assert config_path() == Path("configurations/full.yaml")
        monkeypatch.setenv(CONFIG_VARIABLE, "of-the-environment.yaml")
        assert config_path() == Path("of-the-environment.yaml")

    @pytest.mark.parametrize("source", ["environment", ".env"])
    def test_an_empty_variable_is_not_set(self, workplace: Path, monkeypatch: pytest.MonkeyPatch, source: str) -> None:
        """Docker Compose sets it so for `${X:-}`."""
        names = ("INFERENCE_TASK_STORE__URL", "INFERENCE_SINKS", "INFERENCE_API__PORT", "INFERENCE_DATA_DIR")
        if source == ".env":
            (workplace / ".env").write_text("".join(f"{name}=\n" for name in names), encoding="utf-8")
        else:
            for name in names:
                monkeypatch.setenv(name, "")
        assert load({"api": {"port": 7}}).api.port == 7
        assert load().model_dump() == load_settings(None).model_dump()

    def test_lists_and_sections_of_the_environment_are_json(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("INFERENCE_MODELS", '["models/a", "models/b"]')
        monkeypatch.setenv("INFERENCE_API", '{"port": 5}')
        monkeypatch.setenv("INFERENCE_API__WORKERS", "2")
        settings = load()
        assert settings.models == (Path("models/a"), Path("models/b"))
        assert (settings.api.port, settings.api.workers) == (5, 2)

    @pytest.mark.parametrize("text", ["", "# nothing but a comment\n", "{}"])
    def test_an_empty_file_is_the_defaults(self, text: str) -> None:
        assert load(text).model_dump() == load().model_dump()

    def test_loading_leaves_nothing_behind(self) -> None:
        load({"api": {"port": 1}})
        assert load().api.port == 30005

    def test_settings_cannot_be_changed(self) -> None:
        with pytest.raises(ValueError, match="frozen"):
            setattr(load().api, "port", 1)  # noqa: B010 a type checker knows it too


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


class TestErrors:
    @pytest.mark.parametrize("value", [0, 10, 179.9, "inf"])
    def test_uploads_are_not_taken_for_orphans_while_clients_may_still_send_them(self, value: Any) -> None:
        said = complaint({"uploads": {"orphan_after_s": value}})
        assert "uploads.orphan_after_s" in said
        assert ("180" in said) is (value != "inf")

    @pytest.mark.parametrize(
        ("document", "key"),
        [
            ({"api": {"port": 0}}, "api.port"),
            ({"api": {"port": 70_000}}, "api.port"),
            ({"api": {"port": "http"}}, "api.port"),
            ({"api": {"port": None}}, "api.port"),
            ({"api": {"workers": 0}}, "api.workers"),
            ({"api": {"max_body_bytes": 1.5}}, "api.max_body_bytes"),
            ({"api": {"max_wait_s": 0}}, "api.max_wait_s"),
            ({"api": {"max_wait_s": float("nan")}}, "api.max_wait_s"),
            ({"api": [1]}, "api"),
            ({"broker": {"url": "http://host"}}, "broker.url"),
            ({"broker": {"url": "redis://"}}, "broker.url"),
            ({"broker": {"url": 3}}, "broker.url"),
            ({"task_store": {"url": "mongodb://host"}}, "task_store.url"),
            ({"task_store": {"key_prefix": "with space"}}, "task_store.key_prefix"),
            ({"task_store": {"key_prefix": ""}}, "task_store.key_prefix"),
            ({"task_store": {"lease_s": -1}}, "task_store.lease_s"),
            ({"worker": {"max_batch_size": 0}}, "worker.max_batch_size"),
            ({"worker": {"max_batch_wait_ms": -1}}, "worker.max_batch_wait_ms"),
            ({"models": []}, "models"),
            ({"models": "models/a"}, "models"),
            ({"models": ["models/a", 3]}, "models.1"),
            ({"model_files": {"bucket": "No Bucket"}}, "model_files.bucket"),
            ({"gpu": {"memory_limit_mb": 0}}, "gpu.memory_limit_mb"),
            ({"sinks": ["carrier pigeon"]}, "sinks.0"),
            ({"sinks": ["jsonl", "jsonl"]}, "sinks"),
            ({"log": {"level": "loud"}}, "log.level"),
            ({"deadlines": {"max_s": 10}}, "deadlines.max_s"),
            ({"pipeline_id": 3}, "pipeline_id"),
            ({"pipeline_id": "a line end\n"}, "pipeline_id"),
            ({"pipeline_id": " a blank"}, "pipeline_id"),
            ({"data_dir": ""}, "data_dir"),
            ({"data_dir": "a\0b"}, "data_dir"),
            ({"data_dir": 3}, "data_dir"),
            ({"models": ["models/a\n"]}, "models"),
            ({"sinks": "jsonl"}, "sinks"),
            ({"ensemble": "maybe"}, "ensemble"),
            ({"api": {"port": True}}, "api.port"),
            ({"api": {"max_wait_s": True}}, "api.max_wait_s"),
            ({"task_store": {"result_ttl_s": 1e18}}, "task_store.result_ttl_s"),
            ({"uploads": {"retention_days": 10**9}}, "uploads.retention_days"),
            ({"worker": {"io_threads": 10**9}}, "worker.io_threads"),
            ({"worker": {"max_batch_wait_ms": float("inf")}}, "worker.max_batch_wait_ms"),
            ({"log": {"level": False}}, "log.level"),
            ({"uploads": {"bucket": "a..b"}}, "uploads.bucket"),
            ({"uploads": {"bucket": "10.0.0.1"}}, "uploads.bucket"),
            ({"uploads": {"store": "minio"}, "minio": {"access_key": "a"}}, "minio.secret_key"),
            ({"minio": {"region": "us east"}}, "minio.region"),
            ({"mongodb": {"database": "a/b"}}, "mongodb.database"),
            ({"mongodb": {"database": ""}}, "mongodb.database"),
            ({"mongodb": {"collection": "a$b"}}, "mongodb.collection"),
            ({"mongodb": {"collection": "system.a"}}, "mongodb.collection"),
            ({"kafka": {"topic": ".."}}, "kafka.topic"),
            ({"kafka": {"timeout_s": 1e-9}}, "kafka.timeout_s"),
            ({"kafka": {"timeout_s": 1e9}}, "kafka.timeout_s"),
            ({"data_dir": "\ud800"}, "data_dir"),
        ],
    )
    def test_an_error_names_its_key(self, document: dict[str, Any], key: str) -> None:
        said = complaint(document)
        assert f"{key}:" in said or f"{key} is" in said
        assert "\n" not in said

    def test_ensemble_and_sinks_cannot_both_say_where_results_go(self) -> None:
        assert "ensemble and sinks both choose the sinks of results" in complaint({"ensemble": True, "sinks": ["jsonl"]})

    def test_warn_is_a_level(self) -> None:
        assert load({"log": {"level": "warn"}}).log.level == "WARNING"

    @pytest.mark.parametrize("key", ["lease_s", "result_ttl_s", "idempotency_ttl_s", "requeue_lost_after_s"])
    def test_a_time_has_an_end(self, key: str) -> None:
        """What becomes milliseconds of a Redis command cannot be infinite."""
        assert complaint({"task_store": {key: float("inf")}}).startswith(f"task_store.{key}:")

    def test_a_wrong_value_is_shown(self) -> None:
        assert complaint({"api": {"port": "http"}}).endswith("(got 'http')")

    def test_every_error_is_told_at_once_one_a_line(self) -> None:
        said = complaint({"api": {"port": 0}, "log": {"level": "loud"}, "sinks": ["x"], "foo": 1}).splitlines()
        assert [line.partition(":")[0] for line in said] == ["sinks.0", "api.port", "log.level", "foo"]

    @pytest.mark.parametrize(
        ("document", "says"),
        [
            ({"sink": []}, "sink: unknown key; did you mean sinks?"),
            ({"api": {"prot": 1}}, "api.prot: unknown key; did you mean port?"),
            ({"worker": {"max_batchsize": 1}}, "worker.max_batchsize: unknown key; did you mean max_batch_size?"),
            ({"api": {"Port": 1}}, "api.Port: unknown key; did you mean port?"),
            ({"zzz": 1}, "zzz: unknown key"),
            ({"api": {"zzz": 1}}, "api.zzz: unknown key"),
        ],
    )
    def test_an_unknown_key_is_refused_with_the_nearest_that_is_known(self, document: dict[str, Any], says: str) -> None:
        assert complaint(document) == says
        assert complaint(None, document) == says

    @pytest.mark.parametrize("document", ["1: 2", "on: true"])
    def test_a_key_that_is_no_text_is_refused(self, document: str) -> None:
        assert "key" in complaint(document)

    def test_a_section_of_the_environment_is_checked_too(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("INFERENCE_API__PROT", "1")
        monkeypatch.setenv("INFERENCE_WORKER__IO_THREADS", "many")
        said = complaint()
        assert "api.prot: unknown key; did you mean port?" in said
        assert "worker.io_threads:" in said

    @pytest.mark.parametrize(
        ("variable", "value", "key"),
        [
            ("INFERENCE_SINKS", "jsonl", "sinks"),
            ("INFERENCE_MODELS", "models/a", "models"),
            ("INFERENCE_MODELS", "[", "models"),
            ("INFERENCE_API", "x", "api"),
        ],
    )
    def test_what_should_be_json_in_the_environment_names_its_key(
        self, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, key: str
    ) -> None:
        monkeypatch.setenv(variable, value)
        assert key in complaint()

    def test_what_should_be_json_in_an_env_file_names_its_key(self, workplace: Path) -> None:
        (workplace / ".env").write_text("INFERENCE_SINKS=jsonl\n", encoding="utf-8")
        assert "sinks" in complaint()

    def test_a_default_deadline_over_the_longest_is_told_with_both(self) -> None:
        said = complaint({"deadlines": {"async_s": 100, "max_s": 50}})
        assert "deadlines.max_s is 50; it must be at least sync_s and async_s (100)" in said


class TestSecrets:
    URLS = (
        "redis://user:secret@host:6379/0",
        "rediss://:secret@host/0",
        "redis://:p@secret@host/0",
        "unix:///run/redis.sock?db=0&password=secret",
        "redis://host/0?password=secret",
        "sentinel://:secret@host:1,other:2/0?master=m&sentinel_password=secret",
    )

    @pytest.mark.parametrize("url", URLS)
    def test_the_effective_settings_show_no_password(self, url: str) -> None:
        shown = effective(load({"broker": {"url": url}, "task_store": {"url": url}}))
        assert "secret" not in str([shown["broker"], shown["task_store"]])
        assert "host" in shown["broker"]["url"] or "redis.sock" in shown["broker"]["url"]

    @pytest.mark.parametrize(
        "url",
        [
            "http://user:secret@host",
            "https://:p@secret@host/",
            "http://host?password=secret",
            "redis://secret@host",
            "redis://:p/secret@host",
            "redis://:p?secret@host",
            "redis://:p#secret@host",
            "sentinel://host?sentinel_password=secret",
        ],
    )
    def test_an_error_shows_no_password(self, url: str) -> None:
        said = complaint({"broker": {"url": url}})
        assert said.startswith("broker.url:")
        assert "secret" not in said

    @pytest.mark.parametrize(
        ("key", "value"),
        [
            ("broker.url", "user:S3krit@host"),
            ("broker.url", "S3krit@host"),
            ("task_store.url", "redis:S3krit"),
            ("task_store.url", "redis://host?password=a&S3krit=1"),
            ("broker.url", "redis://user:12?S3=krit@host"),
            ("minio.endpoint", "key:S3krit@host:9000"),
            ("kafka.bootstrap_servers", "user:S3krit@host"),
            ("kafka.bootstrap_servers", ["user:S3krit@host"]),
            ("api.host", "user:S3krit@host"),
            ("mongodb.url", "mongodb://user:12/?S3=krit@host"),
            ("broker.url", "amqp://user:12?S3=krit@host"),
            ("broker.url", "amqp://user:p@host?S3krit=1"),
        ],
    )
    def test_an_error_shows_nothing_before_an_at_sign(self, key: str, value: Any) -> None:
        section, _, name = key.partition(".")
        said = complaint({"task_store": {"url": "redis://h"}} | {section: {name: value}})
        assert said.startswith(f"{key}: ")
        assert "S3" not in said
        assert "krit" not in said

    @pytest.mark.parametrize("value", ["key:S3krit@host:9000", "http://key:S3krit@host"])
    def test_a_translated_value_shows_no_secret(self, value: str) -> None:
        assert "S3krit" not in shown_value({"endpoint": [value]})["endpoint"][0]
        assert shown_value("team@example.org") == "team@example.org"

    def test_an_error_of_the_whole_shows_no_secret(self) -> None:
        """What is wrong with the whole is not told by showing all of it: what is to be masked is plain text there."""
        said = complaint({"broker": {"url": "amqp://host"}, "minio": {"secret_key": "hidden"}})
        assert said == "settings: task_store.url is needed: the task records are stored in Redis, and the broker is RabbitMQ"

    @pytest.mark.parametrize(
        "document",
        [
            {"broker": {"url": "redis://:S3krit@host/0"}},
            {"task_store": {"url": "sentinel://me:S3krit@host?master=m&sentinel_password=S3krit"}},
            {"broker": {"url": "unix://:S3krit@/run/redis.sock"}},
            {
                "broker": {"url": "amqp://me:S3krit@one;amqp://me:S3krit@two"},
                "task_store": {"url": "rediss://host?password=S3krit"},
            },
            {"mongodb": {"url": "mongodb://me:S3krit@host"}, "minio": {"access_key": "S3krit", "secret_key": "S3krit"}},
        ],
        ids=str,
    )
    def test_a_printed_setting_shows_no_secret(self, document: dict[str, Any]) -> None:
        """As a traceback, a debugger or a careless log line prints it."""
        settings = load(document)
        sections = [getattr(settings, name) for name in document]
        printed = [form(one) for one in (settings, *sections) for form in (repr, str, format)]
        assert not [text for text in printed if "S3krit" in text]

    @pytest.mark.parametrize(
        "wrong", [{"broker": "redis://:S3krit@host"}, {"broker": {"url": "redis://:S3krit@host/x"}}], ids=str
    )
    def test_a_raw_validation_error_shows_no_secret(self, wrong: dict[str, Any]) -> None:
        with pytest.raises(ValidationError) as error:
            Settings(**wrong)
        assert "S3krit" not in repr(error.value) + str(error.value)

    def test_the_effective_settings_mask_every_secret(self) -> None:
        shown = effective(
            load({"minio": {"access_key": "hidden", "secret_key": "hidden"}, "mongodb": {"url": "mongodb://hidden"}})
        )
        assert "hidden" not in str(shown)

    def test_the_effective_settings_are_plain_and_complete(self) -> None:
        shown = effective(load({"broker": {"url": "redis://host/0"}}))
        assert yaml.safe_load(yaml.safe_dump(shown)) == shown
        again = shown | {"mongodb": shown["mongodb"] | {"url": "mongodb://host"}}  # a masked URL is none
        assert effective(load(again)) == shown


class TestConfigPath:
    def test_the_argument_comes_first(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv(CONFIG_VARIABLE, "of-the-environment.yaml")
        assert config_path(Path("argument.yaml")) == Path("argument.yaml")

    def test_then_the_environment(self, workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        default_here(workplace)
        monkeypatch.setenv(CONFIG_VARIABLE, "of-the-environment.yaml")
        assert config_path() == Path("of-the-environment.yaml")

    @pytest.mark.parametrize("variable", [None, ""])
    def test_then_the_default_where_it_exists(
        self, workplace: Path, monkeypatch: pytest.MonkeyPatch, variable: str | None
    ) -> None:
        if variable is not None:
            monkeypatch.setenv(CONFIG_VARIABLE, variable)
        assert config_path() is None
        default_here(workplace)
        assert config_path() == Path("configurations/local.yaml")


def default_here(folder: Path) -> None:
    (folder / "configurations").mkdir()
    (folder / "configurations" / "local.yaml").touch()


def test_a_mistyped_setting_in_an_env_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path(".env").write_text("INFERENCE_SINK=jsonl\n", encoding="utf-8")

    with pytest.raises(ConfigurationError, match="INFERENCE_SINK: unknown setting"):
        load_settings(None)


class TestWhereResultsMayGo:
    @pytest.mark.parametrize("ensemble", [True, False])
    def test_with_an_ensemble_mode_both_ways_are_open(self, ensemble: bool) -> None:
        settings = load({"ensemble": ensemble})
        assert settings.sinks == (("kafka",) if ensemble else ("mongodb",))
        assert settings.possible_sinks == ("kafka", "mongodb")

    @pytest.mark.parametrize("sinks", [(), ("jsonl",), ("mongodb", "kafka")])
    def test_without_one_it_is_the_sinks(self, sinks: tuple[str, ...]) -> None:
        assert load({"sinks": list(sinks)}).possible_sinks == sinks


@pytest.mark.parametrize("said", ["none", "null", "None"])
def test_uploads_that_are_never_removed_can_be_asked_for_in_the_environment(monkeypatch: pytest.MonkeyPatch, said: str) -> None:
    monkeypatch.setenv("INFERENCE_UPLOADS__RETENTION_DAYS", said)
    assert load_settings(None, {}).uploads.retention_days is None
