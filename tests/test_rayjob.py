"""The manifest for KubeRay, against the schema that it publishes; no Kubernetes runs here."""

from __future__ import annotations

import copy
import json
import shlex
import tomllib
from typing import Any

import jsonschema
import pytest
import typer
import yaml

from datapruner.cli import app
from tests.compose import ROOT

MANIFEST: dict[str, Any] = yaml.safe_load((ROOT / "docs" / "rayjob.yaml").read_text(encoding="utf-8"))
PODS = [
    MANIFEST["spec"]["rayClusterSpec"]["headGroupSpec"],
    *MANIFEST["spec"]["rayClusterSpec"]["workerGroupSpecs"],
]


def strict(schema: Any) -> Any:
    """The schema, with whatever it does not name refused: Kubernetes would drop it without a word."""
    if isinstance(schema, list):
        return [strict(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    found = {name: strict(each) for name, each in schema.items()}
    return found | {"additionalProperties": False} if "properties" in found else found


SCHEMA = strict(json.loads((ROOT / "tests" / "vendor" / "kuberay-rayjob.json").read_text(encoding="utf-8")))


def test_the_manifest_follows_the_published_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    jsonschema.validate(MANIFEST, SCHEMA)
    assert (MANIFEST["apiVersion"], MANIFEST["kind"]) == ("ray.io/v1", "RayJob")


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("spec/entrypont", "a misspelt name"),
        ("spec/rayClusterSpec/workerGroupSpecs/0/replicas", "4"),
        ("spec/rayClusterSpec/workerGroupSpecs/0/template/spec/containers/0/resources/limits/cpu", "many"),
        ("spec/rayClusterSpec/headGroupSpec/rayStartParams/num-cpus", 0),
    ],
)
def test_the_schema_refuses_what_is_wrong(path: str, value: object) -> None:
    wrong = copy.deepcopy(MANIFEST)
    *way, name = path.split("/")
    at: Any = wrong
    for part in way:
        at = at[int(part)] if isinstance(at, list) else at[part]
    at[name] = value
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(wrong, SCHEMA)


def test_its_command_is_one_of_ours() -> None:
    program, *command = shlex.split(MANIFEST["spec"]["entrypoint"])
    assert program == "datapruner"
    group = typer.main.get_command(app)
    context = group.make_context("datapruner", command, resilient_parsing=True)
    name, found, rest = group.resolve_command(context, command)  # type: ignore[attr-defined]
    parsed = found.make_context(name, rest).params
    assert parsed["engine"] == "ray"
    assert parsed["ray_address"] == "auto"


def test_every_pod_sees_the_home_and_the_version_of_ray_is_the_one_that_is_tested() -> None:
    for pod in PODS:
        spec = pod["template"]["spec"]
        [container] = spec["containers"]
        home = {each["name"]: each["value"] for each in container["env"]}["DATAPRUNER_HOME"]
        [mount] = container["volumeMounts"]
        assert home.startswith(mount["mountPath"] + "/")
        [volume] = spec["volumes"]
        assert (volume["name"], "persistentVolumeClaim" in volume) == (mount["name"], True)
    pinned = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    assert f"ray=={MANIFEST['spec']['rayClusterSpec']['rayVersion']}" in pinned
    version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    assert {pod["template"]["spec"]["containers"][0]["image"].partition(":")[2] for pod in PODS} == {version}


def test_the_number_of_workers_is_fixed() -> None:
    for group in MANIFEST["spec"]["rayClusterSpec"]["workerGroupSpecs"]:
        assert group["replicas"] == group["minReplicas"] == group["maxReplicas"]
