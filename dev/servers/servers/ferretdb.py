"""FerretDB: MongoDB's wire protocol in front of SQLite."""

from __future__ import annotations

import shutil
from pathlib import Path

from dev.servers import probes
from dev.servers.console import say
from dev.servers.installation import GO_BUILD, GO_BUILD_OPTIONS, GO_DOWNLOAD, install_once, require_program, run_step
from dev.servers.layout import ASSETS, Layout
from dev.servers.ports import HOST
from dev.servers.processes import Launch
from dev.servers.server import Kind, Ports

_MODULE = "github.com/FerretDB/FerretDB"
_VERSION = "v1.24.2"
_MODULE_FILES = (ASSETS / "ferretdb" / "go.mod", ASSETS / "ferretdb" / "go.sum")


def _install(layout: Layout) -> None:
    install_once(layout, "mongo", _VERSION, _MODULE_FILES, lambda: _build(layout), makes=_program(layout))


def _program(layout: Layout) -> Path:
    return layout.programs / "ferretdb"


def _build(layout: Layout) -> None:
    """Build it as a tool of our own Go module.

    `go install` refuses a module with `replace` lines, and FerretDB does not start without a file that only its releases have.
    So its source is copied (`go mod vendor`), and that file is added.
    """
    go = require_program(
        "go", "FerretDB, which speaks MongoDB's protocol, is built from source with Go 1.24 or newer (https://go.dev/dl)"
    )
    say("mongo: downloading and building FerretDB (about two minutes on two cores, once)")
    source = layout.sources / "ferretdb"
    shutil.rmtree(source, ignore_errors=True)
    source.mkdir(parents=True)
    for file in _MODULE_FILES:
        shutil.copy(file, source)
    run_step(layout, "mongo", [go, "mod", "vendor"], doing="downloading", cwd=source, environment=GO_DOWNLOAD)
    version_file = source / "vendor" / _MODULE / "build" / "version" / "version.txt"
    version_file.write_text(_VERSION, encoding="utf-8")
    build = [go, "build", "-mod=vendor", *GO_BUILD_OPTIONS, "-o", str(_program(layout)), f"{_MODULE}/cmd/ferretdb"]
    run_step(layout, "mongo", build, doing="building", cwd=source, environment=GO_BUILD)
    shutil.rmtree(source)


def _prepare(layout: Layout, ports: Ports) -> Launch:
    data = layout.data("mongo")
    databases = data / "databases"
    databases.mkdir(exist_ok=True)
    options = {
        "listen-addr": f"{HOST}:{ports['client']}",
        "handler": "sqlite",
        "sqlite-url": f"file:{databases}/",
        "state-dir": str(data),
        "debug-addr": "-",
        "telemetry": "disable",
        "log-level": "WARN",  # otherwise two lines per connection
    }
    return Launch([str(_program(layout)), *(f"--{name}={value}" for name, value in options.items())])


KIND = Kind("mongo", ("client",), _install, _prepare, probes.mongo)
