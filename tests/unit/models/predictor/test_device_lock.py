"""The lock files of GPUs, which every user of a host shares."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.other_user import as_nobody, folder_of_all

from inference.errors import ConfigurationError
from inference.models.predictor import device_lock
from inference.models.predictor.arena import SlotArena
from inference.models.predictor.client import PredictorProcess
from inference.models.predictor.device_lock import GpuLock, gpu_lock, host_has_gpu
from inference.models.registry import ModelRegistry
from inference.settings import GpuSettings, load_settings

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user")


@pytest.fixture
def shared() -> Iterator[Path]:
    """As the folder for temporary files: everybody may write, and removes only files of his own."""
    with folder_of_all() as folder:
        folder.chmod(0o1777)
        yield folder


def fresh_lock(folder: Path, gpu: str = "0") -> GpuLock:
    """As another process opens it."""
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
