"""The lock files of GPUs, which every user of a host shares."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.other_user import as_nobody, folder_of_all

from inference.errors import ConfigurationError
from inference.models.predictor import device_lock
from inference.models.predictor.arena import SlotArena
from inference.models.predictor.client import PredictorProcess
from inference.models.predictor.device_lock import GpuLock, gpu_index, gpu_lock, host_has_gpu
from inference.models.registry import ModelRegistry
from inference.settings import GpuSettings, load_settings

ROOT = Path(__file__).parents[4]

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user")


@pytest.fixture
def shared() -> Iterator[Path]:
    """Folder like that for temporary files: everybody may write, and removes only files of his own."""
    with folder_of_all() as folder:
        folder.chmod(0o1777)
        yield folder


def fresh_lock(folder: Path, gpu: str = "0") -> GpuLock:
    """Lock as another process opens it."""
    return GpuLock(gpu, device_lock._open(folder / f"inference-gpu-{gpu}.lock"))


def held(lock: GpuLock) -> str:
    try:
        lock.hold(0)
    except ConfigurationError as error:
        return error.detail
    return "held"


@needs_root
@pytest.mark.parametrize("mode", [0o666, 0o644, 0o600])
def test_another_user_locks_a_file_that_was_left_behind(shared: Path, mode: int) -> None:
    lock = fresh_lock(shared)
    assert held(lock) == "held"
    os.close(lock.descriptor)
    (shared / "inference-gpu-0.lock").chmod(mode)
    said = as_nobody(lambda: held(fresh_lock(shared)))
    assert said == "held" if mode != 0o600 else "Permission denied" in said


@needs_root
def test_another_user_is_refused_while_the_gpu_is_in_use(shared: Path) -> None:
    lock = fresh_lock(shared)
    lock.hold(0)
    said = as_nobody(lambda: held(fresh_lock(shared)))
    assert said.startswith(f"GPU 0 is in use by another worker (its predictor is process {os.getpid()})")
    os.close(lock.descriptor)


def test_a_file_is_for_all_users_whatever_the_umask(shared: Path) -> None:
    before = os.umask(0o077)
    try:
        fresh_lock(shared)
    finally:
        os.umask(before)
    assert stat.S_IMODE((shared / "inference-gpu-0.lock").stat().st_mode) == 0o666


@pytest.mark.parametrize("kind", ["symbolic link", "hard link", "pipe", "folder"])
def test_what_somebody_put_there_is_not_written_to(shared: Path, tmp_path: Path, kind: str) -> None:
    target = tmp_path / "precious"
    target.write_text("precious", encoding="utf-8")
    place = shared / "inference-gpu-0.lock"
    match kind:
        case "symbolic link":
            place.symlink_to(target)
        case "hard link":
            try:
                place.hardlink_to(target)
            except OSError:
                pytest.skip("two file systems")
        case "pipe":
            os.mkfifo(place)
        case _:
            place.mkdir()
    with pytest.raises(ConfigurationError, match=r"^gpu\.lock_dir: cannot open "):
        gpu_lock(0, shared)
    assert target.read_text(encoding="utf-8") == "precious"


def test_a_mig_device_is_a_file_name(shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "MIG-GPU-8d/1/0")
    lock = gpu_lock(0, shared)
    assert (lock.gpu, [file.name for file in shared.iterdir()]) == ("MIG-GPU-8d/1/0", ["inference-gpu-MIG-GPU-8d_1_0.lock"])


@pytest.mark.parametrize(
    ("nodes", "visible", "has_gpu"),
    [
        ([], None, False),
        (["null", "nvidiactl"], None, False),
        (["nvidia0"], None, True),
        (["nvidia12"], "1", True),
        (["dxg"], None, True),
        (["kfd"], None, True),
        (["nvidia0"], "", False),
        (["nvidia0"], "-1", False),
    ],
)
def test_a_host_with_gpus_has_their_device_nodes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nodes: list[str], visible: str | None, has_gpu: bool
) -> None:
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    for node in nodes:
        (tmp_path / node).touch()
    assert host_has_gpu(tmp_path) is has_gpu


@pytest.mark.parametrize("has_gpu", [True, False])
def test_without_a_gpu_no_lock_file_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, repository: Path, has_gpu: bool
) -> None:
    monkeypatch.setattr("inference.models.predictor.client.host_has_gpu", lambda: has_gpu)
    (spec,) = ModelRegistry.load(load_settings(None, {"models": [str(repository / "models" / "digits")]}))
    spec = spec.model_copy(update={"device": "gpu"})
    arena = SlotArena(spec.input, 1)
    process = PredictorProcess(
        {spec.name: (spec, arena)},
        max_batch_size=1,
        predict_timeout_s=1,
        load_timeout_s=1,
        gpu=GpuSettings(lock_dir=tmp_path if has_gpu else tmp_path / "nowhere"),
    )
    assert len(process._gpu_locks()) == len(list(tmp_path.iterdir())) == int(has_gpu)
    assert arena._file is not None
    arena._file.close()


HOLD = """
import sys
from pathlib import Path
from inference.models.predictor.device_lock import gpu_lock
gpu_lock(0, Path(sys.argv[1])).hold(float(sys.argv[2]))
print("held", flush=True)
sys.stdin.readline()
"""


class TestLock:
    """Never two workers on one GPU."""

    @staticmethod
    def holder(folder: Path, timeout_s: float = 0.3, **environment: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-c", HOLD, str(folder), str(timeout_s)],
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": str(ROOT)} | environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    @pytest.fixture
    def first(self, tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
        """A worker that has GPU 0."""
        process = self.holder(tmp_path)
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()
        process.communicate()

    def test_a_second_worker_is_refused_with_the_process_that_has_it(self, tmp_path: Path, first: subprocess.Popen[str]) -> None:
        _, said = self.holder(tmp_path).communicate(timeout=30)
        assert f"GPU 0 is in use by another worker (its predictor is process {first.pid})" in said
        assert "CUDA_VISIBLE_DEVICES" in said

    @pytest.mark.usefixtures("first")
    def test_a_worker_may_have_another_gpu(self, tmp_path: Path) -> None:
        assert self.holder(tmp_path, CUDA_VISIBLE_DEVICES="1").communicate(timeout=30)[0] == "held\n"
        assert "GPU 0 is in use" in self.holder(tmp_path, CUDA_VISIBLE_DEVICES="0").communicate(timeout=30)[1]

    def test_the_next_worker_waits_for_the_end_of_the_one_before(self, tmp_path: Path, first: subprocess.Popen[str]) -> None:
        second = self.holder(tmp_path, timeout_s=20)
        first.kill()
        assert second.communicate(timeout=30)[0] == "held\n"

    def test_processes_of_one_worker_have_it_together(self, tmp_path: Path) -> None:
        """A new model is loaded beside the old; and the lock stays as long as any of them."""
        lock = gpu_lock(0, tmp_path)
        code = (
            "import sys\nfrom inference.models.predictor.device_lock import GpuLock\n"
            "GpuLock('0', int(sys.argv[1])).hold(0)\nprint('held', flush=True)\nsys.stdin.readline()"
        )
        predictors = [
            subprocess.Popen(
                [sys.executable, "-c", code, str(lock.descriptor)],
                pass_fds=[lock.descriptor],
                cwd=ROOT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for _ in range(2)
        ]
        assert [process.stdout.readline() for process in predictors if process.stdout] == ["held\n", "held\n"]
        for process in predictors:
            process.communicate("\n", timeout=30)
            assert "GPU 0 is in use" in self.holder(tmp_path).communicate(timeout=30)[1]

    def test_a_folder_that_is_not_there_is_told(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigurationError, match=r"gpu\.lock_dir: cannot open .*inference-gpu-0\.lock: No such file"):
            gpu_lock(0, tmp_path / "nowhere")

    @pytest.mark.parametrize(("device", "index"), [(None, 0), ("gpu", 0), ("gpu:0", 0), ("gpu:12", 12), ("cpu", None)])
    def test_a_device_names_a_gpu(self, device: str | None, index: int | None) -> None:
        assert gpu_index(device) == index
