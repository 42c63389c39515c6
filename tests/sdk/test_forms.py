"""Inputs as JSON forms and back, with what the SDK itself makes of every type."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.managers import Manager, eventually
from tests.sdk.user import User

pytestmark = pytest.mark.sdk
SCOPE = {"project": "flytesnacks", "domain": "development"}


class Forms:
    """A run of the task with an input of every kind, and TranslatorService in JSON."""

    def __init__(self, user: User, manager: Manager, folder: Path) -> None:
        self.user, self.manager = user, manager
        self.run: str = user.python("forms.py", folder).lines()[-1]["name"]
        self.spec = user.details(self.run)["task"]
        self.action = {"run": {**SCOPE, "name": self.run}, "name": "a0"}
        self.variables = self.spec["taskTemplate"]["interface"]["inputs"]
        self.inputs = self._data(self.run)["inputs"]["literals"]
        self.result = self._result(self.run)

    def translate(self, method: str, **body: Any) -> Any:
        answer = self.manager.call(f"workflow.TranslatorService/{method}", body)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def result_with(self, literals: list[dict[str, Any]], name: str) -> str:
        """What the task returns for these inputs."""
        body = {"runId": {**SCOPE, "name": name}, "taskSpec": self.spec, "inputs": {"literals": literals}}
        self.manager.call("workflow.RunService/CreateRun", body).raise_for_status()
        eventually(lambda: self.user.phase(name) in ("SUCCEEDED", "FAILED"), what="the end of the run")
        assert self.user.phase(name) == "SUCCEEDED", self.user.flyte("get", "logs", name)
        return self._result(name)

    def _data(self, run: str) -> Any:
        body = {"actionId": {"run": {**SCOPE, "name": run}, "name": "a0"}}
        return self.manager.call("dataproxy.DataProxyService/GetActionData", body).raise_for_status().json()

    def _result(self, run: str) -> str:
        (output,) = self._data(run)["outputs"]["literals"]
        return str(output["value"]["scalar"]["primitive"]["stringValue"])


@pytest.fixture(scope="module")
def forms(user: User, manager: Manager, tmp_path_factory: pytest.TempPathFactory) -> Forms:
    return Forms(user, manager, tmp_path_factory.mktemp("inputs"))


def test_inputs_as_a_form_and_back_give_the_same_result(forms: Forms) -> None:
    form = forms.translate("LiteralsToLaunchFormJson", literals=forms.inputs, variables=forms.variables)["json"]
    shown = form["properties"]
    assert shown["point"]["default"] == {
        "x": 1,
        "y": 2,
        "name": "p",
        "inner": {"x": 3, "tags": ["t"]},
        "counts": {"n": 1},
    }
    assert (shown["span"]["default"], shown["huge"]["default"]) == ("1h0m1.5s", str(2**62 + 1))
    assert (shown["color"]["default"], shown["by_number"]["default"]) == ("BLUE", {"1": 2})
    literals = forms.translate("LaunchFormJsonToLiterals", json=form)["literals"]
    assert forms.result_with(literals, "by-form") == forms.result


def test_plain_values_by_the_types_of_the_task_give_the_same_result(forms: Forms) -> None:
    form = forms.translate("LiteralsToLaunchFormJson", literals=forms.inputs, variables=forms.variables)["json"]
    values = {name: value_of(field) for name, field in form["properties"].items()}
    del values["maybe"]
    literals = forms.translate("JsonValuesToLiterals", variables=forms.variables, values=values)["literals"]
    assert forms.result_with(literals, "by-values") == forms.result


def test_a_form_of_the_task_shows_its_defaults_and_what_must_be_given(forms: Forms) -> None:
    forms.user.flyte("deploy", "--version", "v1", "forms.py", "env")
    task = {**SCOPE, "name": "forms.kinds", "version": "v1"}
    deployed = forms.manager.call("task.TaskService/GetTaskDetails", {"taskId": task}).raise_for_status().json()
    form = forms.translate("TaskSpecToLaunchFormJson", taskSpec=deployed["details"]["spec"])["json"]
    names = {entry["key"] for entry in forms.variables["variables"]}
    assert set(form["properties"]) == names
    assert names - set(form["required"]) == {"maybe", "given", "other", "usual", "nothing"}
    assert form["properties"]["usual"]["default"] == 4
    assert form["properties"]["point"]["dataclass"] == "Point"
    given = forms.translate("LaunchFormJsonToLiterals", json=form)["literals"]
    assert {each["name"] for each in given} == {"maybe", "given", "other", "usual", "nothing"}


def test_inputs_and_outputs_of_an_action_are_read_where_they_lie(forms: Forms) -> None:
    uris = forms.manager.call("workflow.RunService/GetActionDataURIs", {"actionId": forms.action}).json()
    inline = forms.translate("LiteralsToLaunchFormJson", literals=forms.inputs, variables=forms.variables)
    stored = forms.translate(
        "LiteralsToLaunchFormJson", literalsUri=uris["inputsUri"], actionId=forms.action, variables=forms.variables
    )
    assert stored == inline
    outputs = forms.spec["taskTemplate"]["interface"]["outputs"]
    shown = forms.translate(
        "LiteralsToLaunchFormJson", literalsUri=uris["outputsUri"], actionId=forms.action, variables=outputs
    )
    assert [field["default"] for field in shown["json"]["properties"].values()] == [forms.result]


def value_of(field: dict[str, Any]) -> Any:
    if field.get("format") == "blob":
        return {name: inner["default"] for name, inner in field["properties"].items()}
    return json.loads(json.dumps(field["default"]))
