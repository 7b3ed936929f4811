"""Settings in environment variables: those that are none, and those that Kubernetes sets."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from support.settings_files import complaint, load


class TestVariables:
    """A variable that begins as ours do and is none is an error, also in the environment; those of Kubernetes are not."""

    @pytest.mark.parametrize("source", ["environment", ".env"])
    @pytest.mark.parametrize(
        ("name", "meant"),
        [
            ("INFERENCE_API_PORT", "INFERENCE_API__PORT"),
            ("inference_api_port", "INFERENCE_API__PORT"),
            ("INFERENCE_REDIS_URL", None),
            ("INFERENCE_BROKER_URL", "INFERENCE_BROKER__URL"),
            ("INFERENCE__API__PORT", "INFERENCE_API__PORT"),
            ("INFERENCE_DATADIR", "INFERENCE_DATA_DIR"),
            ("INFERENCE_DATA__DIR", "INFERENCE_DATA_DIR"),
            ("INFERENCE_PIPELINE_ID__X", "INFERENCE_PIPELINE_ID"),
            ("INFERENCE_", None),
        ],
    )
    def test_a_mistyped_one_is_named_with_what_is_meant(
        self, monkeypatch: pytest.MonkeyPatch, source: str, name: str, meant: str | None
    ) -> None:
        if source == ".env":
            Path(".env").write_text(f"{name}=8080\n", encoding="utf-8")
        else:
            monkeypatch.setenv(name, "8080")
        said = complaint()
        assert f"{name}: unknown setting" in said
        assert meant is None or f"did you mean {meant}?" in said
        assert "\n" not in said

    @pytest.mark.parametrize("service", ["INFERENCE", "INFERENCE_API", "INFERENCE_DATA"])
    def test_what_kubernetes_sets_is_passed_over(self, monkeypatch: pytest.MonkeyPatch, service: str) -> None:
        for name, value in {
            "SERVICE_HOST": "10.0.0.1",
            "SERVICE_PORT": "30005",
            "SERVICE_PORT_HTTP": "30005",
            "PORT": "tcp://10.0.0.1:30005",
            "PORT_30005_TCP": "tcp://10.0.0.1:30005",
            "PORT_30005_TCP_PROTO": "tcp",
            "PORT_30005_TCP_PORT": "30005",
            "PORT_30005_TCP_ADDR": "10.0.0.1",
            "PORT_53_UDP": "udp://[fd00::1]:53",
        }.items():
            monkeypatch.setenv(f"{service}_{name}", value)
        assert load().api.port == 30005

    def test_all_are_told_with_the_other_errors(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("INFERENCE_API_PORT", "1")
        monkeypatch.setenv("INFERENCE_SINK", "1")
        said = complaint({"api": {"prot": 1}})
        assert [line.partition(":")[0] for line in said.splitlines()] == ["INFERENCE_API_PORT", "INFERENCE_SINK", "api.prot"]

    def test_a_port_of_kubernetes_is_no_port_in_a_file(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("MINIO_PORT", "tcp://10.0.0.1:9000")
        monkeypatch.setenv("MINIO_SERVICE_PORT", "9001")
        settings = load({"s3": {"endpoint": "h:${MINIO_PORT:-9000}"}, "pipeline_id": "${MINIO_SERVICE_PORT}"})
        assert (settings.s3.endpoint, settings.pipeline_id) == ("h:9000", "9001")

    def test_every_missing_variable_is_named_at_once(self) -> None:
        said = complaint({"pipeline_id": "${NO_SUCH_ONE}", "s3": {"endpoint": "${NO_SUCH_TWO}"}})
        assert [line.rpartition(" ")[2] for line in sorted(said.splitlines())] == ["NO_SUCH_ONE", "NO_SUCH_TWO"]

    @pytest.mark.parametrize("text", ["\ufeffINFERENCE_API__PORT=7\n", "INFERENCE_API__PORT=7\r\nOTHER=1\r\n"])
    def test_an_env_file_of_another_system_is_read(self, workplace: Path, text: str) -> None:
        (workplace / ".env").write_bytes(text.encode())
        assert load().api.port == 7

    def test_an_env_file_in_utf_16_is_told(self, workplace: Path) -> None:
        (workplace / ".env").write_bytes("INFERENCE_API__PORT=7\n".encode("utf-16"))
        assert complaint() == ".env is UTF-16; save it as UTF-8"

    def test_an_env_file_in_latin_1_is_told(self, workplace: Path) -> None:
        (workplace / ".env").write_bytes("INFERENCE_PIPELINE_ID=größe\n".encode("latin-1"))
        assert complaint().startswith(".env is not UTF-8: ")

    @pytest.mark.parametrize("line", ["INFERENCE_API__PORT='7", "='S3cret'", 'A="S3cret'])
    def test_a_line_of_an_env_file_that_cannot_be_read_is_told(self, workplace: Path, line: str) -> None:
        (workplace / ".env").write_text(f"# comment\nA=1\n{line}\n", encoding="utf-8")
        said = complaint()
        assert said.startswith(".env: line 3 is not NAME=VALUE")
        assert "S3cret" not in said

    def test_an_env_file_that_is_a_pipe_or_a_folder_is_passed_over(self, workplace: Path) -> None:
        os.mkfifo(workplace / ".env")
        assert load().api.port == 30005
        (workplace / ".env").unlink()
        (workplace / ".env").mkdir()
        assert load().api.port == 30005

    @pytest.mark.parametrize("source", ["environment", ".env"])
    def test_a_file_may_ask_for_an_empty_one(self, workplace: Path, monkeypatch: pytest.MonkeyPatch, source: str) -> None:
        if source == ".env":
            (workplace / ".env").write_text("OWN_EMPTY=\n", encoding="utf-8")
        else:
            monkeypatch.setenv("OWN_EMPTY", "")
        assert load({"pipeline_id": "a${OWN_EMPTY}"}).pipeline_id == "a"
