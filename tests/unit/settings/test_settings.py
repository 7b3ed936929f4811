"""The one configuration: where each value comes from, and what is said of a wrong one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.settings_files import complaint, load

from inference.errors import ConfigurationError
from inference.settings import CONFIG_VARIABLE, config_path, load_settings


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
            ({"uploads": {"retention_hours": 10**9}}, "uploads.retention_hours"),
            ({"uploads": {"retention_hours": 23.9}}, "uploads.retention_hours"),
            ({"worker": {"io_threads": 10**9}}, "worker.io_threads"),
            ({"worker": {"max_batch_wait_ms": float("inf")}}, "worker.max_batch_wait_ms"),
            ({"log": {"level": False}}, "log.level"),
            ({"uploads": {"bucket": "a..b"}}, "uploads.bucket"),
            ({"webhooks": {"secret": "short"}}, "webhooks.secret"),
            ({"webhooks": {"secret": "c2l4dGVlbiBieXRlcyBhbmQgc2l4dGVlbiBtb3Jl"}}, "webhooks.secret"),
            ({"webhooks": {"secret": f"whsec_{'c2l4' * 8} whsec_short"}}, "webhooks.secret"),
            ({"webhooks": {"url": "https://hooks.example/"}}, "webhooks"),
            ({"webhooks": {"events": []}}, "webhooks.events"),
            ({"webhooks": {"events": ["task.done"]}}, "webhooks.events.0"),
            ({"webhooks": {"hosts": ["*"]}}, "webhooks.hosts.0"),
            ({"webhooks": {"hosts": ["hooks.example:443"]}}, "webhooks.hosts.0"),
            ({"webhooks": {"private_networks": ["10.1"]}}, "webhooks.private_networks.0"),
            ({"webhooks": {"ports": [0]}}, "webhooks.ports.0"),
            ({"uploads": {"bucket": "10.0.0.1"}}, "uploads.bucket"),
            ({"uploads": {"store": "s3"}, "s3": {"access_key": "a"}}, "s3.secret_key"),
            ({"s3": {"region": "us east"}}, "s3.region"),
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
        """Milliseconds of a Redis command cannot be infinite."""
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
    monkeypatch.setenv("INFERENCE_UPLOADS__RETENTION_HOURS", said)
    assert load_settings(None, {}).uploads.retention_hours is None
