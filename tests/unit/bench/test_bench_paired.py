"""Figures of `bench.paired`, without a load."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from bench import paired
from bench.paired import Burst


def test_the_second_service_is_divided_by_the_first() -> None:
    first = Burst(100.0, {"api": 2.0, "broker": 1.0, "relay": 0.0})
    second = Burst(90.0, {"api": 3.0, "broker": 1.5, "relay": 0.5})
    assert paired.ratios(first, second) == {
        "requests a second": 0.9,
        "CPU of a request": 5.0 / 3.0,
        "CPU of a request, api": 1.5,
        "CPU of a request, broker": 1.5,
    }


def test_the_table_has_the_median_and_quartiles_of_each_figure() -> None:
    text = paired.as_table([{"requests a second": ratio} for ratio in (0.5, 1.0, 2.0)])
    assert text.splitlines()[1].split() == ["requests", "a", "second", "1.000", "0.750", "to", "1.500"]


def test_settings_are_nested_and_their_values_yaml() -> None:
    assert paired.settings_of(["tracing.enabled=true", "tracing.sample_ratio=0.5", "sinks=[]"]) == {
        "tracing": {"enabled": True, "sample_ratio": 0.5},
        "sinks": [],
    }


@pytest.mark.parametrize(
    ("arguments", "said"), [(["--set", "sinks"], "KEY=VALUE is expected"), (["--base", "-x y"], "no such revision")]
)
def test_wrong_arguments_are_said_so(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        paired.main([arguments[0], arguments[1]] if arguments[0] == "--set" else ["=".join(arguments)])
    assert said in capsys.readouterr().err


def test_the_base_has_the_files_of_its_revision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paired, "ROOT", tmp_path)
    monkeypatch.setattr(paired, "WORK", tmp_path / "work")
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@example.com"]
    (tmp_path / "server.py").write_text("before")
    for command in (["init", "--quiet"], ["add", "server.py"], ["commit", "--quiet", "-m", "one"]):
        subprocess.run([*git, *command], check=True)
    (tmp_path / "server.py").write_text("after")
    tree = paired._tree_of("HEAD")
    assert [file.name for file in tree.iterdir()] == ["server.py"]
    assert (tree / "server.py").read_text() == "before"
