"""Manifests that kustomize builds from deploy/kubernetes are valid: base, components and overlays."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import jsonschema
import kubernetes_validate
import pytest
import yaml
from support.kubernetes import FOLDER, KEDA, TARGETS, VERSIONS, build, module_folder, named, of_kind, validate

KUSTOMIZATIONS = sorted(FOLDER.rglob("kustomization.yaml"))


def _is_component(file: Path) -> bool:
    return bool(yaml.safe_load(file.read_text(encoding="utf-8"))["kind"] == "Component")


@pytest.mark.parametrize("version", VERSIONS)
def test_each_manifest_fits_its_schema(version: str) -> None:
    different = {json.dumps(manifest, sort_keys=True): manifest for target in TARGETS for manifest in build(target)}
    for manifest in different.values():
        validate(manifest, version)
    assert len(different) > len(build("everything"))


@pytest.mark.parametrize("target", TARGETS)
def test_no_two_manifests_have_the_same_name(target: str) -> None:
    names = [(manifest["kind"], manifest["metadata"]["name"]) for manifest in build(target)]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("target", TARGETS)
def test_everything_is_in_the_namespace(target: str) -> None:
    for manifest in build(target):
        where = manifest["metadata"].get("namespace", manifest["metadata"]["name"])
        assert where == "inference", manifest


def test_every_component_is_tested() -> None:
    production = yaml.safe_load((FOLDER / "overlays/production/kustomization.yaml").read_text(encoding="utf-8"))
    used = {Path(component).name for component in production["components"]}
    used |= {Path(part).name for parts in TARGETS.values() for part in parts}
    assert {file.parent.name for file in KUSTOMIZATIONS if _is_component(file)} <= used


def test_every_file_is_used() -> None:
    for file in FOLDER.rglob("*.yaml"):
        if file.name != "kustomization.yaml":
            assert file.name in (file.parent / "kustomization.yaml").read_text(encoding="utf-8"), file


def test_an_unknown_key_is_noticed() -> None:
    api = copy.deepcopy(named("base", "Deployment", "inference-api"))
    api["spec"]["template"]["spec"]["priority_class"] = "high"
    with pytest.raises(kubernetes_validate.ValidationError):
        validate(api, VERSIONS[-1])

    (scaled,) = copy.deepcopy(of_kind("production", "ScaledObject"))
    scaled["spec"]["minReplicas"] = 0
    with pytest.raises(jsonschema.ValidationError):
        validate(scaled, VERSIONS[-1])


def test_triggers_fit_the_schema_of_their_scalers() -> None:
    described = json.loads((module_folder(KEDA) / "schema/generated/scalers-schema.json").read_text(encoding="utf-8"))
    by_type = {scaler["type"]: scaler["parameters"] for scaler in described["scalers"]}
    (scaled,) = of_kind("production", "ScaledObject")
    given_by = {
        manifest["metadata"]["name"]: {secret["parameter"] for secret in manifest["spec"]["secretTargetRef"]}
        for manifest in of_kind("production", "TriggerAuthentication")
    }

    for trigger in scaled["spec"]["triggers"]:
        parameters = by_type[trigger["type"]]
        in_metadata = {one["name"]: one for one in parameters if one.get("metadataVariableReadable")}
        in_secrets = {one["name"] for one in parameters if one.get("triggerAuthenticationVariableReadable")}
        secrets = given_by[trigger["authenticationRef"]["name"]] if "authenticationRef" in trigger else set()

        assert set(trigger["metadata"]) <= set(in_metadata)
        assert secrets <= in_secrets
        for name, value in trigger["metadata"].items():
            assert isinstance(value, str)
            assert value in in_metadata[name].get("allowedValue", [value])
        needed = {one["name"] for one in parameters if not one.get("optional") and "default" not in one}
        assert needed <= {*trigger["metadata"], *secrets}
