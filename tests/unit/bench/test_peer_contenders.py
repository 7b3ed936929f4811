"""The list of peers, their requirements and their servers fit together. Nothing is installed here."""

from __future__ import annotations

import base64
import re
import sysconfig
from dataclasses import replace
from pathlib import Path

import pytest

from bench.peer_contenders import PEERS, Peer
from bench.peer_environment import PeerEnvironment
from bench.workload import ROOT, Workload

FOLDER = ROOT / "bench" / "peers"
PORT = 40_404

each_peer = pytest.mark.parametrize("peer", PEERS, ids=lambda peer: peer.name)


@pytest.fixture
def workload(tmp_path: Path) -> Workload:
    image = tmp_path / "image.bin"
    image.write_bytes(bytes(range(12)))  # 2 by 2 pixels
    return Workload("small", ROOT / "models" / "efficientnet-lite0", image, side=2)


def test_every_server_and_requirements_file_is_of_a_peer_in_the_list() -> None:
    assert sorted(FOLDER.glob("requirements-*.txt")) == sorted(peer.installed.requirements for peer in PEERS)
    assert {f"bench.peers.{file.stem}" for file in FOLDER.glob("*_server.py")} == {peer.module for peer in PEERS}


@each_peer
def test_its_requirements_are_pinned_and_say_why(peer: Peer) -> None:
    lines = peer.installed.requirements.read_text(encoding="utf-8").splitlines()
    assert lines
    assert [line for line in lines if not re.fullmatch(r"[\w-]+(\[\w+\])?==[\w.]+ +# \S.*", line)] == []


@each_peer
def test_it_starts_its_own_server_in_its_own_environment_on_this_machine_alone(
    peer: Peer, workload: Workload, tmp_path: Path
) -> None:
    ((program, *arguments),) = peer.commands(workload, PORT, tmp_path)
    settings = " ".join([*arguments, *(file.read_text(encoding="utf-8") for file in tmp_path.glob("*.json"))])
    server = (ROOT / peer.module.replace(".", "/")).with_suffix(".py").read_text(encoding="utf-8")
    assert Path(program).parent == peer.installed.programs
    assert peer.module in settings
    assert str(PORT) in settings
    assert re.search(r"""host"?[ =:]+"127\.0\.0\.1"|--(host|address) 127\.0\.0\.1""", settings + server)


@each_peer
def test_its_request_carries_the_image(peer: Peer, workload: Workload) -> None:
    body, _ = peer.body(workload)
    image = workload.image.read_bytes()
    assert image in body or base64.b64encode(image) in body


@each_peer
def test_its_model_is_the_workload_s(peer: Peer, workload: Workload, tmp_path: Path) -> None:
    environment = peer.environment(workload, tmp_path)
    assert Path(environment["PEER_MODEL_FILE"]).parent == workload.folder
    assert environment["PEER_CROP_FRACTION"] == ""
    assert peer.environment(replace(workload, side=0), tmp_path)["PEER_CROP_FRACTION"] == "0.875"


def test_an_environment_is_not_made_again_from_the_same_requirements(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    requirements = tmp_path / "requirements.txt"
    requirements.write_text("one==1  # why\n", encoding="utf-8")
    environment = PeerEnvironment(tmp_path, requirements)
    (tmp_path / "made-from.txt").write_text("one==1  # why\n", encoding="utf-8")
    packages = Path(sysconfig.get_path("purelib", "venv", {"base": str(tmp_path)}))
    packages.mkdir(parents=True)
    environment.make("One")
    assert capsys.readouterr().err == ""
    assert requirements.exists()
    (borrowed,) = packages.glob("*.pth")  # where our packages lie now
    assert borrowed.read_text(encoding="utf-8").strip() == sysconfig.get_path("purelib")
