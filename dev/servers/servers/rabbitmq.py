"""RabbitMQ from Debian's package, separate from a system-wide one: own node, ports, folders, cookie and epmd."""

from __future__ import annotations

import shutil
from pathlib import Path

from dev.servers import probes
from dev.servers.console import ServicesError
from dev.servers.installation import debian_package
from dev.servers.layout import Layout
from dev.servers.ports import HOST
from dev.servers.processes import Launch
from dev.servers.server import Kind, Ports

#: Debian's /usr/sbin/rabbitmq-server is a wrapper that switches to a user of its own.
_LAUNCHER = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")
_SETTINGS = """\
listeners.tcp.1 = {host}:{client}
log.console = true
log.console.level = info
log.file = false
"""


def _find() -> str | None:
    return str(_LAUNCHER) if _LAUNCHER.exists() else shutil.which("rabbitmq-server")


def _install(layout: Layout) -> None:
    debian_package(layout, "rabbitmq", "rabbitmq-server", _find)


def _prepare(layout: Layout, ports: Ports) -> Launch:
    launcher = _find()
    if launcher is None:
        raise ServicesError("`rabbitmq-server` is not installed")
    settings = layout.settings("rabbitmq")
    texts = {
        "rabbitmq.conf": _SETTINGS.format(host=HOST, **ports),
        "enabled_plugins": "[].\n",
        # Both replace files under /etc/rabbitmq, which belong to the system-wide server.
        "rabbitmq-env.conf": "",
        "advanced.config": "[].\n",
    }
    for name, text in texts.items():
        (settings / name).write_text(text, encoding="utf-8")
    return Launch([launcher], _environment(layout, ports))


def _environment(layout: Layout, ports: Ports) -> dict[str, str]:
    settings = layout.settings("rabbitmq")
    data = layout.data("rabbitmq")
    return {
        "RABBITMQ_NODENAME": "inference@localhost",
        "RABBITMQ_NODE_IP_ADDRESS": HOST,
        "RABBITMQ_NODE_PORT": str(ports["client"]),
        "RABBITMQ_DIST_PORT": str(ports["distribution"]),
        "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}",
        "ERL_EPMD_ADDRESS": HOST,
        "ERL_EPMD_PORT": str(ports["epmd"]),
        "RABBITMQ_MNESIA_BASE": str(data / "mnesia"),
        "RABBITMQ_LOG_BASE": str(data / "log"),
        "RABBITMQ_LOGS": "-",
        "RABBITMQ_CONF_ENV_FILE": str(settings / "rabbitmq-env.conf"),
        "RABBITMQ_CONFIG_FILE": str(settings / "rabbitmq.conf"),
        "RABBITMQ_ADVANCED_CONFIG_FILE": str(settings / "advanced.config"),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(settings / "enabled_plugins"),
        # With it the launcher becomes the server; otherwise a shell would wait for it.
        "RUNNING_UNDER_SYSTEMD": "true",
    }


KIND = Kind("rabbitmq", ("client", "distribution", "epmd"), _install, _prepare, probes.rabbitmq, stop_timeout_s=30.0)
