"""An authority of one test alone, and a certificate of it, as server and as client."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
_LEAF = """\
[req]
distinguished_name = name
x509_extensions = leaf
[name]
[leaf]
basicConstraints = critical, CA:FALSE
subjectAltName = {names}
keyUsage = critical, digitalSignature
extendedKeyUsage = serverAuth, clientAuth
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
"""


@dataclass(frozen=True)
class Certificates:
    authority: Path
    certificate: Path
    key: Path


def make_certificates(folder: Path, names: str = "IP:127.0.0.1") -> Certificates:
    """Make them; `names` is the certificate's `subjectAltName`, such as DNS:hooks.example."""
    made = Certificates(folder / "ca.crt", folder / "node.crt", folder / "node.key")
    leaf = folder / "leaf.cnf"
    leaf.write_text(_LEAF.format(names=names), encoding="utf-8")
    ca_key = folder / "ca.key"
    may_sign = ("-addext", "keyUsage = critical, keyCertSign")  # without it Python from 3.13 on does not trust it
    _req(*_KEY, *may_sign, "-subj", "/CN=authority of a test", "-keyout", ca_key, "-out", made.authority)
    by = ("-CA", made.authority, "-CAkey", ca_key, "-config", leaf)
    _req(*_KEY, *by, "-subj", "/CN=node of a test", "-keyout", made.key, "-out", made.certificate)
    return made


def _req(*arguments: str | Path) -> None:
    command = ["openssl", "req", "-x509", "-days", "2", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
