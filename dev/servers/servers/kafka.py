"""Apache Kafka, from Maven Central: one node, broker and controller in one process."""

from __future__ import annotations

import re
import secrets
import shutil
import subprocess
from pathlib import Path

from dev.servers import probes
from dev.servers.console import ServicesError, say
from dev.servers.installation import install_once, require_program, run_step
from dev.servers.layout import ASSETS, Layout
from dev.servers.ports import HOST
from dev.servers.processes import Launch
from dev.servers.server import Kind, Ports

_VERSION = "4.1.1"
_OLDEST_JAVA = 17
_POM = ASSETS / "kafka" / "pom.xml"
_SETTINGS = """\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@{host}:{controller}
listeners=PLAINTEXT://{host}:{client},CONTROLLER://{host}:{controller}
advertised.listeners=PLAINTEXT://{host}:{client}
controller.listener.names=CONTROLLER
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
log.dirs={data}
# One node cannot store the default of three copies.
offsets.topic.replication.factor=1
offsets.topic.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
share.coordinator.state.topic.num.partitions=1
group.initial.rebalance.delay.ms=0
"""


def _install(layout: Layout) -> None:
    _java()
    install_once(layout, "kafka", _VERSION, [_POM], lambda: _download(layout), makes=_libraries(layout))


def _libraries(layout: Layout) -> Path:
    return layout.libraries / "kafka"


def _download(layout: Layout) -> None:
    mvn = require_program("mvn", "Apache Kafka's libraries are downloaded with Maven (Debian: apt-get install maven)")
    say("kafka: downloading (about 45 MB, once)")
    libraries = _libraries(layout)
    shutil.rmtree(libraries, ignore_errors=True)
    goal = ["dependency:copy-dependencies", f"-DoutputDirectory={libraries}", "-DincludeScope=runtime"]
    run_step(layout, "kafka", [mvn, "-B", "-q", "-C", "-f", str(_POM), *goal], doing="downloading")


def _java() -> str:
    java = require_program(
        "java", f"Apache Kafka runs on Java {_OLDEST_JAVA} or newer (Debian: apt-get install openjdk-17-jre-headless)"
    )
    output = subprocess.run([java, "-version"], capture_output=True, text=True, check=False).stderr  # noqa: S603
    version = re.search(r'version "(\d+)', output)
    if version and int(version[1]) < _OLDEST_JAVA:
        raise ServicesError(f"Apache Kafka needs Java {_OLDEST_JAVA} or newer; `java` is version {version[1]}")
    return java


def _prepare(layout: Layout, ports: Ports) -> Launch:
    log = layout.data("kafka") / "log"
    settings = layout.settings("kafka") / "server.properties"
    settings.write_text(_SETTINGS.format(host=HOST, data=log, **ports), encoding="utf-8")
    java = [_java(), "-Xmx512m", f"-Dlog4j2.configurationFile={ASSETS / 'kafka' / 'log4j2.properties'}"]
    java += ["-cp", str(_libraries(layout) / "*")]
    if not (log / "meta.properties").exists():
        cluster = secrets.token_urlsafe(16)  # may begin with a hyphen, like an option
        tool = ["kafka.tools.StorageTool", "format", f"--cluster-id={cluster}", "--config", str(settings)]
        run_step(layout, "kafka", [*java, *tool], doing="formatting its data folder")
    return Launch([*java, "kafka.Kafka", str(settings)])


KIND = Kind("kafka", ("client", "controller"), _install, _prepare, probes.kafka, stop_timeout_s=30.0)
