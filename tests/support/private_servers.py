"""Real servers of a test alone, which may be stopped: those of `make services` stay up for the others."""

from __future__ import annotations

from pathlib import Path

from support.service import ROOT

from dev.servers.layout import Layout
from dev.servers.ports import PortBook
from dev.servers.server import Kind, Server

_START_TIMEOUT_S = 120


class PrivateServer:
    """One server with data and ports of its own, of the programs that `make services` installed.

    Args:
        folder: of this server alone.
    """

    def __init__(self, kind: Kind, folder: Path) -> None:
        layout = _layout(folder)
        self._server = Server(kind, layout, PortBook(layout.ports))

    @property
    def endpoint(self) -> str:
        """HOST:PORT"""
        endpoint = self._server.endpoint()
        assert endpoint is not None
        return endpoint

    def start(self) -> None:
        self._server.bring_up(_START_TIMEOUT_S)

    def stop(self) -> None:
        self._server.stop()


def _layout(folder: Path) -> Layout:
    shared, own = Layout(ROOT), Layout(folder)
    own.log("any").parent.mkdir(parents=True)
    for programs in (shared.programs, shared.libraries, shared.stamp("any").parent):
        programs.mkdir(parents=True, exist_ok=True)
        (own.base / programs.relative_to(shared.base)).symlink_to(programs)
    return own
