"""docker-compose.yml as Docker Compose reads it, and the secrets that its script makes."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
NETWORKS = COMPOSE["networks"]
ONE_SHOT = "minio-user"
LASTING = sorted(set(SERVICES) - {ONE_SHOT})
PARTS = ["api", "flower", "relay", "worker", "worker-gpu"]
_INNERMOST = re.compile(r"\$\{(\w+)(?:(:-)([^{}]*))?\}|\$(?!\$)(\w+)")


def filled(text: str, variables: Mapping[str, str]) -> str:
    """Values that Compose gives to `$A`, `${A}` and `${A:-default}`."""

    def value(found: re.Match[str]) -> str:
        name, operator, word = found[1] or found[4], found[2], found[3]
        given = variables.get(name, "")
        return given or (word if operator == ":-" else "")

    while (changed := _INNERMOST.sub(value, text)) != text:
        text = changed
    return text


def environment(service: str, variables: Mapping[str, str] | None = None) -> dict[str, str]:
    return {name: filled(value, variables or {}) for name, value in SERVICES[service].get("environment", {}).items()}


def secrets_of(service: str) -> set[str]:
    return {secret["source"] if isinstance(secret, dict) else secret for secret in SERVICES[service].get("secrets", [])}


def make_secrets(folder: Path) -> subprocess.CompletedProcess[str]:
    command = ["sh", str(ROOT / "deploy/docker/make-secrets.sh"), str(folder)]
    return subprocess.run(command, env={"PATH": os.environ["PATH"]}, capture_output=True, text=True, check=False)


def made_secrets(folder: Path) -> dict[str, str]:
    """Make all secrets in a folder; return them by name."""
    done = make_secrets(folder)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    return {file.name: file.read_text("utf-8").strip() for file in folder.iterdir()}
