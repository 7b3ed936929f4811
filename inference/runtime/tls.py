"""TLS of the connections to other servers: certificates are always verified, and their files are settings."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any, Protocol

from inference.errors import ConfigurationError
from inference.settings import BrokerSettings


class TlsFiles(Protocol):
    """A section of the settings with files of certificates."""

    #: authorities that sign the server's certificate; None: those of the system
    @property
    def ca_file(self) -> Path | None: ...

    #: certificate of the client, if the server asks for one, and its key
    @property
    def cert_file(self) -> Path | None: ...

    @property
    def key_file(self) -> Path | None: ...


def client_context(section: str, files: TlsFiles) -> ssl.SSLContext:
    """Return a context that verifies the server's certificate and host name.

    Args:
        section: name of the settings' section, for errors.

    Raises:
        ConfigurationError: a file cannot be read or is no certificate, or the key does not fit.
    """
    context = authority_context(section, files.ca_file)
    if files.cert_file is not None:
        try:
            context.load_cert_chain(files.cert_file, files.key_file)
        except (OSError, ssl.SSLError) as error:
            raise _unusable(f"{section}.cert_file", files.cert_file, error, f" with the key {files.key_file}") from error
    return context


def authority_context(section: str, ca_file: Path | None) -> ssl.SSLContext:
    """Return a context as `client_context` without a certificate of the client. Raises ConfigurationError."""
    try:
        return ssl.create_default_context(cafile=ca_file)
    except (OSError, ssl.SSLError) as error:
        raise _unusable(f"{section}.ca_file", ca_file, error) from error


def amqp_tls(settings: BrokerSettings) -> dict[str, Any] | None:
    """Return kombu's `ssl` options for an amqps:// URL; None: no TLS. Raises ConfigurationError: a file is not usable."""
    if not settings.has_amqp_tls:
        return None
    client_context("broker", settings)  # a wrong file is an error of the settings, not of each connection
    files = {"ca_certs": settings.ca_file, "certfile": settings.cert_file, "keyfile": settings.key_file}
    # Without `server_hostname` py-amqp checks no host name; kombu replaces None by the host of the URL.
    options: dict[str, Any] = {"cert_reqs": ssl.CERT_REQUIRED, "server_hostname": None}
    return options | {name: str(file) for name, file in files.items() if file is not None}


def _unusable(key: str, file: Path | None, error: Exception, more: str = "") -> ConfigurationError:
    reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or error
    return ConfigurationError(f"{key}: cannot use {file}{more}: {reason}", field=key)
