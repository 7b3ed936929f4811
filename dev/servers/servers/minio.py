"""MinIO, built from source: there are no binaries of its community edition any more."""

from __future__ import annotations

import json
import secrets
from pathlib import Path

from dev.servers import probes
from dev.servers.addresses import write_private
from dev.servers.console import say
from dev.servers.installation import GO_BUILD, GO_BUILD_OPTIONS, GO_DOWNLOAD, install_once, require_program, run_step
from dev.servers.layout import Layout
from dev.servers.ports import HOST
from dev.servers.processes import Launch
from dev.servers.server import Kind, Ports

_MODULE = "github.com/minio/minio"
_VERSION = "v0.0.0-20260212201848-7aac2a2c5b7c"
#: Excludes gRPC's xDS (123 packages, a tenth of the build): Google's storage client needs it, but MinIO never uses it.
_BUILD_TAGS = "-tags=disable_grpc_modules"


def keys(layout: Layout) -> tuple[str, str]:
    """Read the access key and secret key of the root user; they are created at the first call."""
    path = layout.base / "minio-keys.json"
    if not path.exists():
        made = {"access_key": secrets.token_hex(10), "secret_key": secrets.token_hex(20)}
        write_private(path, json.dumps(made) + "\n")
    kept = json.loads(path.read_text(encoding="utf-8"))
    return kept["access_key"], kept["secret_key"]


def _install(layout: Layout) -> None:
    install_once(layout, "minio", _VERSION, [], lambda: _build(layout), makes=_program(layout))


def _program(layout: Layout) -> Path:
    return layout.programs / "minio"


def _build(layout: Layout) -> None:
    go = require_program("go", "MinIO's server is built from source with Go 1.24 or newer (https://go.dev/dl)")
    say("minio: downloading and building (about 4 minutes on two cores, once)")
    install = [go, "install", _BUILD_TAGS, *GO_BUILD_OPTIONS]
    module = f"{_MODULE}@{_VERSION}"
    # `-n` downloads the modules and builds nothing.
    run_step(layout, "minio", [*install, "-n", module], doing="downloading", environment=GO_DOWNLOAD)
    environment = GO_BUILD | {"GOBIN": str(layout.programs)}
    run_step(layout, "minio", [*install, module], doing="building", environment=environment)


def _prepare(layout: Layout, ports: Ports) -> Launch:
    data = layout.data("minio")
    access_key, secret_key = keys(layout)
    command = [str(_program(layout)), "server", "--quiet", "--address", f"{HOST}:{ports['client']}"]
    environment = {
        "MINIO_ROOT_USER": access_key,
        "MINIO_ROOT_PASSWORD": secret_key,
        "MINIO_BROWSER": "off",
        "MINIO_UPDATE": "off",
        # MinIO's scanner reads all objects again and again: a fifth of a core with the objects that tests and benches leave.
        "MINIO_SCANNER_SPEED": "slowest",
    }
    return Launch([*command, "--certs-dir", str(layout.settings("minio") / "certs"), str(data / "drive")], environment)


KIND = Kind("minio", ("client",), _install, _prepare, probes.minio)
