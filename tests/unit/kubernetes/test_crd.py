"""The definition of TaskAction: what the Go executor's takes, ours takes; and the file is the definition."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from flyte_manager.kubernetes import crd

ROOT = Path(__file__).parents[3]

UPSTREAM_SPEC = {
    "runName": "string 1..30",
    "actionName": "string 1..30",
    "parentActionName": "string 1..30",
    "project": "string 1..63",
    "domain": "string 1..63",
    "actionType": "string task|condition",
    "conditionSpec": "string byte",
    "inputUri": "string",
    "runOutputBase": "string",
    "cacheKey": "string ..256",
    "taskType": "string ..63",
    "shortName": "string ..63",
    "group": "string ..256",
    "taskTemplate": "string byte",
    "envVars": "object",
    "interruptible": "boolean",
}
UPSTREAM_STATUS = {
    "stateJson": "string",
    "pluginState": "string byte",
    "pluginStateVersion": "integer",
    "pluginPhase": "string",
    "pluginPhaseVersion": "integer int32",
    "attempts": "integer int32",
    "systemFailures": "integer int32",
    "cacheStatus": "integer int32",
    "conditions": "array",
    "phaseHistory": "array",
    "errorState": "object",
    "signalValue": "string byte",
    "signalledBy": "string",
    "signalledAt": "string date-time",
}
OURS = {"phase": "string", "message": "string", "podName": "string", "recordDigest": "string"}


def test_the_file_is_what_the_definition_says() -> None:
    assert (ROOT / crd.FILE).read_text() == crd.manifest()
    assert yaml.safe_load(crd.manifest()) == crd.definition()
    listed = yaml.safe_load((ROOT / "executor/config/crd/kustomization.yaml").read_text())["resources"]
    assert [ROOT / "executor/config/crd" / each for each in listed] == [ROOT / crd.FILE]


def test_the_names_are_upstreams() -> None:
    spec = crd.definition()["spec"]
    assert crd.definition()["metadata"]["name"] == "taskactions.flyte.org"
    assert (spec["group"], spec["scope"]) == ("flyte.org", "Namespaced")
    assert spec["names"] == {
        "kind": "TaskAction",
        "listKind": "TaskActionList",
        "plural": "taskactions",
        "singular": "taskaction",
    }
    (version,) = spec["versions"]
    assert (version["name"], version["served"], version["storage"]) == ("v1", True, True)
    assert version["subresources"] == {"status": {}}


def test_the_printer_columns_are_phase_and_upstreams() -> None:
    columns = crd.definition()["spec"]["versions"][0]["additionalPrinterColumns"]
    assert [each["name"] for each in columns] == [
        *("Phase", "Run", "Action", "TaskType", "Status", "Age", "Progressing", "Succeeded", "Failed"),
    ]
    by_name = {each["name"]: each for each in columns}
    assert by_name["Phase"]["jsonPath"] == ".status.phase"
    assert by_name["Status"]["jsonPath"] == ".status.conditions[?(@.type=='Progressing')].reason"
    assert by_name["Failed"]["jsonPath"] == ".status.conditions[?(@.type=='Failed')].status"
    assert {each["name"] for each in columns if each.get("priority")} == {"Progressing", "Succeeded", "Failed"}
    assert by_name["Age"]["type"] == "date"


@pytest.mark.parametrize(("part", "fields"), [("spec", UPSTREAM_SPEC), ("status", UPSTREAM_STATUS | OURS)])
def test_every_field_has_upstreams_type_and_limits(part: str, fields: dict[str, str]) -> None:
    assert {name: _short(each) for name, each in _schema()["properties"][part]["properties"].items()} == fields


def test_no_more_is_required_than_upstream_requires() -> None:
    properties = _schema()["properties"]
    assert _schema()["required"] == ["spec"]
    assert set(properties["spec"]["required"]) == {"actionName", "domain", "project", "runName"}
    assert "required" not in properties["status"]
    status = properties["status"]["properties"]
    assert set(status["phaseHistory"]["items"]["required"]) == {"phase", "occurredAt"}
    assert "required" not in status["errorState"]


def test_conditions_are_a_map_by_type() -> None:
    conditions = _schema()["properties"]["status"]["properties"]["conditions"]
    assert conditions["x-kubernetes-list-type"] == "map"
    assert conditions["x-kubernetes-list-map-keys"] == ["type"]
    item = conditions["items"]
    assert set(item["required"]) == {"type", "status", "lastTransitionTime", "reason", "message"}
    assert item["properties"]["status"]["enum"] == ["True", "False", "Unknown"]
    assert item["properties"]["message"]["maxLength"] == 32768
    assert (item["properties"]["reason"]["minLength"], item["properties"]["reason"]["maxLength"]) == (1, 1024)


def test_every_field_is_described() -> None:
    assert [path for path, schema in _walk("", _schema()) if not schema.get("description")] == ["metadata"]


def _schema() -> dict[str, Any]:
    schema: dict[str, Any] = crd.definition()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    return schema


def _short(schema: dict[str, Any]) -> str:
    limits = ""
    if "maxLength" in schema:
        limits = f"{schema.get('minLength', '')}..{schema['maxLength']}"
    return " ".join(filter(None, [schema["type"], schema.get("format"), limits, "|".join(schema.get("enum", ()))]))


def _walk(path: str, schema: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    found = [(path, schema)] if path else []
    for name, each in schema.get("properties", {}).items():
        found += _walk(f"{path}.{name}".lstrip("."), each)
    return found + (_walk(f"{path}[]", schema["items"]) if "items" in schema else [])
