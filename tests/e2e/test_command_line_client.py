"""The command line `rohe-inference` on a running service: every command, and runs that are killed and resumed."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
from click.testing import CliRunner, Result
from PIL import Image
from rohe_inference.cli.app import program
from rohe_inference.cli.exits import ExitCode
from support.client import wait_until
from support.service import ROOT, Service

pytestmark = pytest.mark.process

SEVEN = str(ROOT / "samples" / "digit_7.png")
#: photos of the run that is killed
PHOTOS = 900


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service of its own: a test kills it."""
    service = Service(tmp_path_factory.mktemp("service"), {"models": ["models/digits"]})
    try:
        service.start()
        yield service
    finally:
        service.end()


@pytest.fixture(autouse=True)
def variables(running: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROHE_INFERENCE_URL", running.url)
    monkeypatch.delenv("ROHE_INFERENCE_API_KEY", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT / "client" / "src"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two photos, a file that is none, and a photo in a subfolder."""
    photos = tmp_path / "photos"
    (photos / "sub").mkdir(parents=True)
    for name in ("a.png", "b.png", "sub/c.png"):
        (photos / name).write_bytes(Path(SEVEN).read_bytes())
    (photos / "bad.jpg").write_bytes(b"no image")
    return photos


def call(*arguments: str | Path, stdin: str | bytes | None = None) -> Result:
    """Run the program in this process."""
    return CliRunner().invoke(program, list(map(str, arguments)), input=stdin)


def called(*arguments: str | Path, stdin: str | bytes | None = None) -> str:
    """Run the program, which has to succeed; its output."""
    result = call(*arguments, stdin=stdin)
    assert result.exit_code == ExitCode.OK, result.output
    return result.stdout


def started(*arguments: str | Path, **options: int) -> subprocess.Popen[str]:
    """Start the program in a process of its own."""
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", "from rohe_inference.cli import main; main()"]
    return subprocess.Popen([*command, *map(str, arguments)], text=True, stderr=subprocess.PIPE, **options)


def rows(output: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in output.splitlines()]


def journals(tmp_path: Path) -> list[Path]:
    return list(tmp_path.rglob("*.jsonl")) + list(tmp_path.rglob("*.journal"))


def test_one_photo_is_a_table() -> None:
    lines = called("predict", SEVEN, "--top", "2").splitlines()

    assert re.fullmatch(r"PHOTO +LABEL +CONFIDENCE", lines[0])
    assert re.fullmatch(rf"{SEVEN}  7 +█████████\S +\d+\.\d %", lines[1])
    assert len(lines) == 3
    assert "\x1b" not in "".join(lines)


def test_bytes_come_from_stdin() -> None:
    (row,) = rows(called("predict", "-", "--json", stdin=Path(SEVEN).read_bytes()))

    assert (row["file"], row["status"], row["result"]["label"]) == ("-", "succeeded", "7")
    assert "prediction" not in row["result"]


def test_vector_is_there_on_request() -> None:
    (row,) = rows(called("predict", SEVEN, "--json", "--vector"))

    assert len(row["result"]["prediction"]) == 10


def test_bad_image_fails_alone_and_in_its_place(folder: Path) -> None:
    result = call("predict", folder, "--csv")

    assert result.exit_code == ExitCode.FAILED
    found = list(csv.DictReader(io.StringIO(result.stdout)))
    assert [(Path(row["file"]).name, row["status"], row["label"]) for row in found] == [
        ("a.png", "succeeded", "7"),
        ("b.png", "succeeded", "7"),
        ("bad.jpg", "refused", ""),
    ]
    assert found[2]["error_code"] == "invalid_metadata"  # bytes that are no picture may be those of an array
    assert "3 images: 2 done, 1 failed" in result.stderr
    assert "--retry-failed" in result.stderr


def test_failed_images_are_sent_again_on_request_alone(folder: Path) -> None:
    first = rows(call("predict", folder, "--json").stdout)

    again = call("predict", folder, "--json")
    retried = call("predict", folder, "--json", "--retry-failed")
    restarted = call("predict", folder, "--json", "--restart")

    assert rows(again.stdout) == first
    assert "none sent" in again.stderr
    assert rows(retried.stdout)[:2] == first[:2]
    assert "1 sent" in retried.stderr
    assert "3 sent" in restarted.stderr
    assert not {row["task_id"] for row in rows(restarted.stdout)[:2]} & {row["task_id"] for row in first}


def test_output_file_appears_and_the_journal_goes(folder: Path, tmp_path: Path) -> None:
    (folder / "bad.jpg").unlink()
    output = tmp_path / "labels.jsonl"

    assert called("predict", folder, "--recursive", "--json", "-o", output) == ""

    assert [Path(row["file"]).name for row in rows(output.read_text(encoding="utf-8"))] == ["a.png", "b.png", "c.png"]
    assert journals(tmp_path) == [output]
    assert not list(tmp_path.glob("*.part"))


def test_named_journal_is_kept_and_new_images_alone_are_sent(folder: Path, tmp_path: Path) -> None:
    (folder / "bad.jpg").unlink()
    journal = tmp_path / "my.journal"
    first = rows(called("predict", folder, "--json", "--journal", journal))
    (folder / "z.png").write_bytes(Path(SEVEN).read_bytes())

    result = call("predict", folder, "--json", "--journal", journal)

    assert rows(result.stdout)[:2] == first
    assert len(rows(result.stdout)) == 3
    assert "1 sent" in result.stderr


def test_list_of_files(folder: Path) -> None:
    names = f"{folder}/a.png\n{folder}/missing.png\n{folder}/sub/c.png\n"

    result = call("predict", "--files-from", "-", "--json", stdin=names)

    assert result.exit_code == ExitCode.FAILED
    assert [row["status"] for row in rows(result.stdout)] == ["succeeded", "unreadable", "succeeded"]


def test_wrong_option_is_one_error_and_leaves_no_journal(folder: Path, tmp_path: Path) -> None:
    result = call("predict", folder, "--model", "flowers")

    assert result.exit_code == ExitCode.REFUSED
    assert result.stdout == ""
    assert "there is no model 'flowers'" in result.stderr
    assert journals(tmp_path) == []


def test_submitted_images_are_waited_for(folder: Path) -> None:
    (folder / "bad.jpg").unlink()

    lines = called("submit", folder)
    results = rows(called("wait", "-", "--json", stdin=lines))

    assert [line.split("  ")[1] for line in lines.splitlines()] == [f"{folder}/a.png", f"{folder}/b.png"]
    assert sorted(str(row["file"]) for row in results) == [f"{folder}/a.png", f"{folder}/b.png"]
    assert {row["result"]["label"] for row in results} == {"7"}


def test_wait_for_what_is_not_there() -> None:
    result = call("wait", "0" * 32)

    assert result.exit_code == ExitCode.FAILED
    assert "gone" in result.stdout


def test_waiting_queued_and_canceled_tasks(running: Service) -> None:
    (predictor,) = running.processes("predictor")
    predictor.suspend()
    try:
        task_id = called("submit", SEVEN).split()[0]
        waited = call("wait", task_id, "--timeout", "0.3")
        canceled = call("cancel", task_id)
    finally:
        predictor.resume()

    assert waited.exit_code == ExitCode.NOT_ENDED
    assert canceled.exit_code == ExitCode.OK
    assert "canceled" in canceled.stdout
    assert call("wait", task_id).exit_code == ExitCode.FAILED


def test_commands_for_a_task() -> None:
    task_id = called("submit", SEVEN, "--request-id", "mine").split()[0]
    called("wait", task_id)

    assert re.search(r"status +succeeded", called("status", task_id))
    assert rows(called("status", task_id, "--json"))[0]["task_id"] == task_id
    assert task_id in called("tasks", "--request-id", "mine", "--status", "succeeded")
    assert "succeeded" in called("events", task_id)
    (replay,) = rows(called("replay", task_id, "--json"))
    assert replay["replay_of"] == task_id
    called("wait", str(replay["task_id"]))
    assert len(rows(called("tasks", "--request-id", "mine", "--all", "--json"))) == 2
    assert len(rows(called("tasks", "--request-id", "mine", "-n", "1", "--json"))) == 1


def test_task_that_fails_does_not_stop_the_others() -> None:
    task_id = called("submit", SEVEN).split()[0]
    called("wait", task_id)

    result = call("replay", "0" * 32, task_id)

    assert result.exit_code == ExitCode.REFUSED
    assert f"replay of {task_id}" in result.stdout
    assert "0" * 32 in result.stderr


def test_erase_asks_first() -> None:
    result = call("erase", "0" * 32, stdin="n\n")

    assert result.exit_code == ExitCode.FAILED
    assert "cannot be undone" in result.stderr
    assert "nothing was erased" in result.stderr


def test_erase() -> None:
    task_ids = [
        called("submit", SEVEN, "--request-id", request_id).split()[0] for request_id in ("no longer", "no longer", "other")
    ]

    unknown = call("erase", "0" * 32, task_ids[2], "--yes")
    erased = called("erase", "--request-id", "no longer", "--yes")

    assert (unknown.exit_code, "there is no task" in unknown.stderr) == (ExitCode.REFUSED, True)
    assert unknown.stdout == f"{task_ids[2]}  erased\n"
    assert erased.splitlines() == [f"{task_id}  erased" for task_id in task_ids[1::-1]]
    assert not any(task_id in called("tasks") for task_id in task_ids)
    assert call("erase", "--request-id", "no longer", "--yes").exit_code == ExitCode.REFUSED


def test_service_and_models() -> None:
    assert "all is well" in called("status")
    assert "digits" in called("top", "--once")
    assert re.search(r"digits \* +1 +8x8x1 float32 +10", called("models"))
    assert "labels      0, 1, 2" in called("models", "digits")
    assert rows(called("models", "digits", "--json"))[0]["labels"] == list("0123456789")


def test_login_is_checked_stored_and_forgotten(running: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "stored in" in called("login", "--url", running.url, "--no-api-key")
    monkeypatch.delenv("ROHE_INFERENCE_URL")

    assert "digits" in called("models")
    assert (tmp_path / "config" / "rohe-inference" / "login.json").stat().st_mode & 0o777 == 0o600
    assert "deleted" in called("logout")


@pytest.mark.parametrize(
    "arguments", [("predict", SEVEN), ("predict", SEVEN, "--json"), ("models",), ("tasks", "--json"), ("--help",)]
)
def test_reader_that_has_ended_is_no_error(arguments: tuple[str, ...]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    process = started(*arguments, stdout=writing)
    os.close(writing)
    _, errors = process.communicate(timeout=60)

    assert (process.returncode, errors) == (ExitCode.CLOSED_PIPE, "")


def test_top_is_live_until_q() -> None:
    process, fd = in_terminal("top", "--interval", "0.2")
    try:
        shown = read_until(fd, "digits")
        os.write(fd, b"q")
        assert process.wait(30) == ExitCode.OK
        assert "Traceback" not in read_rest(fd)
    finally:
        process.kill()
        os.close(fd)

    assert "q ends" in shown


def test_progress_is_shown_on_a_terminal(folder: Path) -> None:
    process, fd = in_terminal("predict", folder)
    try:
        shown = read_until(fd, "1 failed")
        assert process.wait(30) == ExitCode.FAILED
    finally:
        process.kill()
        os.close(fd)

    assert "images" in shown
    assert "\x1b[" in shown


def in_terminal(*arguments: str | Path) -> tuple[subprocess.Popen[str], int]:
    """Start the program in a pseudo terminal; its process, and the terminal's other end."""
    ours, theirs = pty.openpty()
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", "from rohe_inference.cli import main; main()"]
    environment = {name: value for name, value in os.environ.items() if name != "NO_COLOR"} | {"TERM": "xterm", "COLUMNS": "120"}
    process = subprocess.Popen(
        [*command, *map(str, arguments)],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        text=True,
        env=environment,
        start_new_session=True,
    )
    os.close(theirs)
    return process, ours


def read_until(fd: int, text: str) -> str:
    """Read a terminal until a text is there; at most 30 s."""
    found, began = "", time.monotonic()
    while text not in found:
        assert time.monotonic() - began < 30, found
        if select.select([fd], [], [], 1)[0]:
            found += os.read(fd, 65536).decode("utf-8", "replace")
    return found


def read_rest(fd: int) -> str:
    """Read what a program that has ended left in its terminal."""
    found = ""
    with contextlib.suppress(OSError):  # the other end is closed
        while select.select([fd], [], [], 1)[0] and (data := os.read(fd, 65536)):
            found += data.decode("utf-8", "replace")
    return found


class KilledRun:
    """A run over a folder that is killed and started again, with the same command."""

    def __init__(self, photos: Path, output: Path) -> None:
        self._journal = Path(f"{output}.journal")
        limits = ("--batch-size", "2", "--concurrency", "1")  # slow enough to be killed before its end
        self._command = ("predict", photos, "--json", "-o", output, "--request-id", "killed", *limits)
        self.process = started(*self._command)

    def ended(self) -> int:
        """Count the photos with an outcome."""
        return self._journal.read_bytes().count(b'"photo":') if self._journal.exists() else 0

    def wait_for(self, photos: int) -> None:
        def has_come_so_far() -> bool:
            assert self.process.poll() is None, f"the run ended before it was killed: {self.process.communicate()}"
            return self.ended() >= photos

        wait_until(has_come_so_far, timeout_s=60, what=f"{photos} photos have ended")

    def kill(self, number: int) -> str:
        """Send a signal, wait for the end, and start the same command again; what it printed on stderr."""
        self.process.send_signal(number)
        _, errors = self.process.communicate(timeout=30)
        assert self.process.returncode in {ExitCode.INTERRUPTED, -signal.SIGKILL}
        assert self.ended() < PHOTOS
        self.process = started(*self._command)
        return errors


def test_run_that_is_killed_is_resumed_and_sends_nothing_twice(running: Service, tmp_path: Path) -> None:
    """SIGINT and SIGKILL to the command, then kill -9 to the whole service, which starts again."""
    photos, output = tmp_path / "many", tmp_path / "labels.jsonl"
    photos.mkdir()
    for number in range(PHOTOS):
        pixels = np.random.default_rng(number).integers(0, 255, (8, 8), dtype=np.uint8)
        Image.fromarray(pixels).save(photos / f"{number:03}.png")
    run = KilledRun(photos, output)
    run.wait_for(PHOTOS // 10)
    errors = run.kill(signal.SIGINT)
    assert re.match(rf"interrupted\n\d+ of {PHOTOS} images are done. The same command goes on", errors)
    run.wait_for(2 * PHOTOS // 10)
    run.kill(signal.SIGKILL)
    run.wait_for(3 * PHOTOS // 10)
    kill_service(running)
    assert not output.exists()
    running.start()
    _, errors = run.process.communicate(timeout=120)

    assert run.process.returncode == ExitCode.OK, errors
    results = rows(output.read_text(encoding="utf-8"))
    assert [row["file"] for row in results] == [f"{photos}/{number:03}.png" for number in range(PHOTOS)]
    assert {row["status"] for row in results} == {"succeeded"}
    listed = {row["task_id"] for row in rows(called("tasks", "--request-id", "killed", "--all", "--json"))}
    assert len(listed) == PHOTOS
    assert {row["task_id"] for row in results} == listed


def kill_service(service: Service) -> None:
    """Send SIGKILL to every process of a service."""
    assert service.process is not None
    service.remember_processes()
    tree = [psutil.Process(service.process.pid), *psutil.Process(service.process.pid).children(recursive=True)]
    for process in tree:
        process.kill()
    service.process.wait(30)
    wait_until(lambda: not service.survivors(), timeout_s=60, what="every process has ended")
