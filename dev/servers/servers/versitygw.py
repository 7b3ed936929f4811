"""VersityGW: S3 in front of a folder, the second S3 that the object store is tested with; built from source."""

from __future__ import annotations

from pathlib import Path

from dev.servers import probes
from dev.servers.console import say
from dev.servers.installation import GO_BUILD, GO_BUILD_OPTIONS, GO_DOWNLOAD, install_once, require_program, run_step
from dev.servers.layout import Layout
from dev.servers.ports import HOST
from dev.servers.processes import Launch
from dev.servers.server import Kind, Ports
from dev.servers.servers import minio

_MODULE = "github.com/versity/versitygw/cmd/versitygw"
_VERSION = "v1.8.0"
#: Base domain of the addresses BUCKET.DOMAIN, for clients that name buckets so; other requests name them in the path.
VIRTUAL_DOMAIN = "s3.localhost"


def _install(layout: Layout) -> None:
    install_once(layout, "versitygw", _VERSION, [], lambda: _build(layout), makes=_program(layout))


def _program(layout: Layout) -> Path:
    return layout.programs / "versitygw"


def _build(layout: Layout) -> None:
    go = require_program("go", "VersityGW, an S3 server, is built from source with Go 1.25 or newer (https://go.dev/dl)")
    say("versitygw: downloading and building (about a minute and a half on two cores, once)")
    install = [go, "install", *GO_BUILD_OPTIONS]
    module = f"{_MODULE}@{_VERSION}"
    # `-n` downloads the modules and builds nothing.
    run_step(layout, "versitygw", [*install, "-n", module], doing="downloading", environment=GO_DOWNLOAD)
    environment = GO_BUILD | {"GOBIN": str(layout.programs)}
    run_step(layout, "versitygw", [*install, module], doing="building", environment=environment)


def _prepare(layout: Layout, ports: Ports) -> Launch:
    data = layout.data("versitygw")
    buckets, metadata = data / "buckets", data / "metadata"
    for folder in (buckets, metadata):
        folder.mkdir(exist_ok=True)
    access_key, secret_key = minio.keys(layout)
    options = ["--quiet", "--keep-alive", "--port", f"{HOST}:{ports['client']}", "--virtual-domain", VIRTUAL_DOMAIN]
    # Metadata are files, since not every file system has extended attributes.
    backend = ["posix", "--sidecar", str(metadata), str(buckets)]
    environment = {"ROOT_ACCESS_KEY": access_key, "ROOT_SECRET_KEY": secret_key}
    return Launch([str(_program(layout)), *options, *backend], environment)


KIND = Kind("versitygw", ("client",), _install, _prepare, probes.s3)
