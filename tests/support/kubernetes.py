"""deploy/kubernetes as kustomize builds it, and the schemas that it is checked with: of Kubernetes, KEDA, Prometheus Operator."""

from __future__ import annotations

import fcntl
import functools
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import yaml
from support.service import ROOT

from dev.servers.installation import GO_BUILD, GO_BUILD_OPTIONS, require_program, run_step
from dev.servers.layout import Layout

FOLDER = ROOT / "deploy/kubernetes"
#: The oldest and the newest version of Kubernetes that the manifests are checked for.
VERSIONS = ("1.31.0", "1.37.0")
#: Built with Go where there is neither kubectl nor kustomize: a minute of CPU time.
_KUSTOMIZE = "sigs.k8s.io/kustomize/kustomize/v5@v5.8.1"
#: Modules with the schemas, and their digests.
KEDA = ("github.com/kedacore/keda/v2@v2.21.0", "h1:R6z2HZvstK4RLUMxroNACzBj74xGxt3kG59b5Xc+Xps=")
_OPERATOR = (
    "github.com/prometheus-operator/prometheus-operator@v0.85.0",
    "h1:M5xLCLEoaW2IJfnuCwFzzpL+jSVQu3KGT84Pye+fW8s=",
)
_CRDS = {
    "ScaledObject": (KEDA, "config/crd/bases/keda.sh_scaledobjects.yaml"),
    "TriggerAuthentication": (KEDA, "config/crd/bases/keda.sh_triggerauthentications.yaml"),
    "PodMonitor": (_OPERATOR, "example/prometheus-operator-crd/monitoring.coreos.com_podmonitors.yaml"),
}

Manifest = dict[str, Any]
#: Builds by name: parts of deploy/kubernetes, the first a resource and the others components.
TARGETS = {
    "base": ("base",),
    "dev": ("overlays/dev",),
    "production": ("overlays/production",),
    "rabbitmq": ("base", "components/rabbitmq"),
    "gpu": ("base", "components/gpu"),
    "s3-role": ("base", "components/s3-role"),
    "everything": ("base", *(f"components/{name}" for name in ("keda", "monitoring", "servers", "rabbitmq", "gpu"))),
}


@functools.cache
def kustomize_command() -> tuple[str, ...]:
    """Return the command that builds a folder: kustomize's or kubectl's, else kustomize is built.

    Raises:
        ServicesError: it cannot be built, and why.
    """
    for name, command in (("kustomize", ("kustomize", "build")), ("kubectl", ("kubectl", "kustomize"))):
        if shutil.which(name):
            return command
    return str(_build_kustomize(Layout(ROOT))), "build"


def _build_kustomize(layout: Layout) -> Path:
    program = layout.programs / "kustomize"
    go = require_program("go", "the tests build kustomize with it (Debian: apt-get install golang)")
    for folder in (layout.programs, layout.install_log("kustomize").parent):
        folder.mkdir(parents=True, exist_ok=True)
    with layout.install_log("kustomize").open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # pytest-xdist runs several processes
        if not program.exists():
            environment = {**GO_BUILD, "GOBIN": str(layout.programs)}
            run_step(
                layout, "kustomize", [go, "install", *GO_BUILD_OPTIONS, _KUSTOMIZE], doing="building", environment=environment
            )
    return program


def build_folder(folder: Path) -> list[Manifest]:
    """The manifests of a folder with a kustomization.yaml."""
    done = subprocess.run([*kustomize_command(), str(folder)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return list(yaml.load_all(done.stdout, Loader=yaml.CSafeLoader))


@functools.cache
def build(target: str) -> tuple[Manifest, ...]:
    """The manifests of one of `TARGETS`."""
    resource, *components = TARGETS[target]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        kustomization = {
            "apiVersion": "kustomize.config.k8s.io/v1beta1",
            "kind": "Kustomization",
            "resources": [os.path.relpath(FOLDER / resource, folder.resolve())],
            "components": [os.path.relpath(FOLDER / component, folder.resolve()) for component in components],
        }
        (folder / "kustomization.yaml").write_text(yaml.safe_dump(kustomization), encoding="utf-8")
        return tuple(build_folder(folder))


def of_kind(target: str, *kinds: str) -> list[Manifest]:
    """The manifests of these kinds."""
    return [manifest for manifest in build(target) if manifest["kind"] in kinds]


def named(target: str, kind: str, name: str) -> Manifest:
    """The one manifest of this kind and name."""
    (found,) = (manifest for manifest in of_kind(target, kind) if manifest["metadata"]["name"] == name)
    return found


def workloads(target: str) -> list[Manifest]:
    """All that has pods."""
    return of_kind(target, "Deployment", "StatefulSet")


def pod(workload: Manifest) -> dict[str, Any]:
    return dict(workload["spec"]["template"]["spec"])


def container(workload: Manifest) -> dict[str, Any]:
    (only,) = pod(workload)["containers"]
    return dict(only)


def matches(selector: Manifest, labels: dict[str, str]) -> bool:
    """Whether a label selector selects an object with these labels."""
    if any(labels.get(name) != value for name, value in selector.get("matchLabels", {}).items()):
        return False
    expressions = selector.get("matchExpressions", [])
    assert all(expression["operator"] == "In" for expression in expressions)
    return all(labels.get(expression["key"]) in expression["values"] for expression in expressions)


def labels_of_pods(workload: Manifest) -> dict[str, str]:
    return dict(workload["spec"]["template"]["metadata"]["labels"])


def validate(manifest: Manifest, version: str) -> None:
    """Check a manifest strictly: nothing may be in it that its schema does not have.

    Raises:
        kubernetes_validate.ValidationError: it does not fit.
        jsonschema.ValidationError: the same, in a custom resource.
        kubernetes_validate.SchemaNotFoundError: there is no schema for it.
    """
    if manifest["kind"] in _CRDS:
        jsonschema.Draft202012Validator(_custom_schema(manifest["kind"], manifest["apiVersion"])).validate(manifest)
    else:
        kubernetes_validate.validate(manifest, version, strict=True)


@functools.cache
def module_folder(module: tuple[str, str]) -> Path:
    """The folder of a Go module, which is downloaded unless it is there; its digest must be the one that is pinned."""
    version, digest = module
    go = require_program("go", "the tests fetch KEDA's schemas with it (Debian: apt-get install golang)")
    with tempfile.TemporaryDirectory() as outside:
        done = subprocess.run([go, "mod", "download", "-json", version], cwd=outside, capture_output=True, text=True, check=False)
    found = json.loads(done.stdout or "{}")
    assert done.returncode == 0, found.get("Error", done.stderr)
    assert found["Sum"] == digest
    return Path(found["Dir"])


@functools.cache
def _custom_schema(kind: str, api_version: str) -> dict[str, Any]:
    module, path = _CRDS[kind]
    definition = yaml.load((module_folder(module) / path).read_text(encoding="utf-8"), Loader=yaml.CSafeLoader)
    group, _, version = api_version.partition("/")
    assert definition["spec"]["group"] == group
    (schema,) = (served["schema"]["openAPIV3Schema"] for served in definition["spec"]["versions"] if served["name"] == version)
    for part in _objects(schema):
        if "properties" in part and part is not schema["properties"]["metadata"]:
            part.setdefault("additionalProperties", bool(part.get("x-kubernetes-preserve-unknown-fields")))
    return dict(schema)


def _objects(schema: Any) -> Iterator[dict[str, Any]]:
    """All schemas of objects below a schema."""
    if isinstance(schema, list):
        for part in schema:
            yield from _objects(part)
    elif isinstance(schema, dict):
        if schema.get("type") == "object":
            yield schema
        for part in schema.values():
            yield from _objects(part)
