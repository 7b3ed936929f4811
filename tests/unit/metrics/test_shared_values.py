"""The folder in which the processes of an API share the values of their instruments."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[3]
BEGIN = "from pathlib import Path\nfrom inference.metrics import shared_values\nshared_values.share_metrics(Path({folder!r}))\n"


def run(code: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run code in a process that shares its values below `folder`."""
    command = [sys.executable, "-c", BEGIN.format(folder=str(folder)) + code]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def folders(parent: Path) -> list[Path]:
    return list(parent.glob("inference-metrics-*"))


def test_forked_processes_are_summed_and_ended_ones_stay(tmp_path: Path) -> None:
    code = """
import os
from inference.metrics import api, exposition, process_files
api.http_requests.labels("/", "GET", "200").inc()
for _ in range(2):
    pid = os.fork()
    if pid == 0:
        api.http_requests.labels("/", "GET", "200").inc(10)
        api.http_request_duration.labels("/").observe(0.3)
        api.event_streams.set(5)
        raise SystemExit
    os.waitpid(pid, 0)
    process_files.add_ended_process(pid)
api.event_streams.set(2)
text = exposition.exposition().decode()
print(*sorted(line for line in text.splitlines() if line.startswith((
    "inference_http_requests_total", "inference_event_streams", "inference_http_request_duration_seconds_count"))), sep="\\n")
print(*sorted(file.name for file in shared_values.shared_folder().glob("*.db") if not file.name.endswith(f"_{os.getpid()}.db")))
"""
    done = run(code, tmp_path)
    assert done.stdout.splitlines() == [
        "inference_event_streams 2.0",
        'inference_http_request_duration_seconds_count{route="/"} 2.0',
        'inference_http_requests_total{code="200",method="GET",route="/"} 21.0',
        "counter_ended.db histogram_ended.db",
    ], done.stderr
    assert folders(tmp_path) == []


def test_folder_of_a_killed_process_is_removed_by_the_next_and_that_of_another_is_kept(tmp_path: Path) -> None:
    killed = run("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)", tmp_path)
    assert killed.returncode == -signal.SIGKILL
    (left,) = folders(tmp_path)
    long_ago = time.time() - 3600

    code = f"""
import os, subprocess, sys
own = shared_values.shared_folder()
for folder in (own, {str(left)!r}):
    os.utime(folder, ({long_ago}, {long_ago}))
subprocess.run([sys.executable, "-c", {BEGIN.format(folder=str(tmp_path))!r}], check=True)
print(own.exists())
"""
    done = run(code, tmp_path)
    assert done.stdout.splitlines()[-1:] == ["True"], done.stderr
    assert not left.exists()
    assert folders(tmp_path) == []


def test_a_new_folder_that_has_no_lock_yet_is_kept(tmp_path: Path) -> None:
    new = tmp_path / "inference-metrics-new"
    new.mkdir()
    assert run("", tmp_path).returncode == 0
    assert new.exists()


def test_instruments_that_are_there_already_cannot_be_shared() -> None:
    code = "import prometheus_client\nfrom inference.metrics.shared_values import share_metrics\nshare_metrics()"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert "RuntimeError" in done.stderr


def test_a_folder_that_cannot_be_created_is_a_configuration_error(tmp_path: Path) -> None:
    done = run("", tmp_path / "missing")
    assert "ConfigurationError: no folder for the values of metrics can be created" in done.stderr


def test_a_process_that_shares_nothing_has_its_values_for_itself(tmp_path: Path) -> None:
    """Even if its environment has the variable of the library."""
    code = """
from inference.metrics import exposition, process_files, shared_values, worker
worker.predictor_restarts.inc()
worker.tasks_in_flight.set_function(lambda: 3)
process_files.add_ended_process(1)
print(shared_values.shared_folder(), *sorted(line for line in exposition.exposition().decode().splitlines() if line.startswith((
    "inference_predictor_restarts_total", "inference_tasks_in_flight"))))
"""
    environment = os.environ | {"PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.stdout == "None inference_predictor_restarts_total 1.0 inference_tasks_in_flight 3.0\n", done.stderr


def test_a_file_of_a_killed_process_that_cannot_be_read_is_removed(tmp_path: Path) -> None:
    """An error would end gunicorn's main process, and the file would fail each later scrape."""
    code = """
from inference.metrics import api, exposition, process_files
api.http_requests.labels("/", "GET", "200").inc()
folder = shared_values.shared_folder()
(folder / "counter_999999.db").touch()
(folder / "histogram_999999.db").write_bytes(b"\\xff" * 64)
process_files.add_ended_process(999999)
text = exposition.exposition().decode()
print(*(line for line in text.splitlines() if line.startswith("inference_http_requests_total")))
print(*folder.glob("*_999999.db"))
"""
    done = run(code, tmp_path)
    assert done.stdout.splitlines() == ['inference_http_requests_total{code="200",method="GET",route="/"} 1.0', ""], done.stderr


def test_a_folder_that_has_vanished_ends_no_process(tmp_path: Path) -> None:
    """The system removes the shared memory of a user who logs out: logind.conf(5), RemoveIPC."""
    code = """
import os, shutil
from inference.metrics import api, exposition, process_files
api.http_requests.labels("/", "GET", "200").inc()
shutil.rmtree(shared_values.shared_folder())
process_files.add_ended_process(999999)
pid = os.fork()
if pid == 0:
    api.http_requests.labels("/", "GET", "200").inc(10)
    raise SystemExit
print(os.waitpid(pid, 0)[1])
text = exposition.exposition().decode()
print(*(line for line in text.splitlines() if line.startswith("inference_http_requests_total")))
"""
    done = run(code, tmp_path)
    assert done.stdout.splitlines() == ["0", 'inference_http_requests_total{code="200",method="GET",route="/"} 10.0'], done.stderr
