"""Runs of plain commands as pods, without the SDK, and what database and cluster say of them.

Each command can leave marks: lines in a file that the node has under the same path. A task that never ran lacks its
mark, and one that was started twice has it twice.
"""

import json
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flyteidl2.core import tasks_pb2
from google.protobuf.json_format import ParseDict

from flyte_manager.domain.phases import Phase
from flyte_manager.kubernetes.status import NAMES
from tests.kubernetes.clusters import Kubectl
from tests.managers import Manager, eventually, run_of

SECONDS = 90.0
"""for whatever must come at last, on a busy machine"""

SCOPE = {"project": "flytesnacks", "domain": "development"}
FINAL = frozenset(phase.name for phase in Phase if phase.final)


def pod_defaults(folder: Path) -> str:
    """The setting podDefaults by which commands reach the marks: at /marks."""
    mount = {"name": "marks", "mountPath": "/marks"}
    volume = {"name": "marks", "hostPath": {"path": str(folder), "type": "Directory"}}
    return json.dumps({"spec": {"volumes": [volume], "containers": [{"name": "default", "volumeMounts": [mount]}]}})


def mark(text: str) -> str:
    """The shell's words that leave a mark."""
    return f'echo "{text}" >> /marks/all'


def until_file(name: str) -> str:
    """The shell's words that wait for a file; see Runs.let."""
    return f"until [ -e /marks/{name} ]; do sleep 0.1; done"


@dataclass(frozen=True, slots=True)
class Runs:
    manager: Manager
    kubectl: Kubectl
    folder: Path
    image: str

    def order(self, run: str, script: str, *, retries: int = 0, **template: Any) -> dict[str, Any]:
        body: dict[str, Any] = run_of(run, "sh", "-c", script, retries=retries)
        task = body["taskSpec"]["taskTemplate"]
        task["container"]["image"] = self.image
        task["container"] |= template.pop("container", {})
        task |= template
        return body

    def template(self, script: str) -> bytes:
        """The task template, as TaskActions hold it."""
        template = self.order("any", script)["taskSpec"]["taskTemplate"]
        return ParseDict(template, tasks_pb2.TaskTemplate()).SerializeToString()

    def start(self, run: str, script: str, **order: Any) -> None:
        self._call("workflow.RunService/CreateRun", self.order(run, script, **order))

    def enqueue(self, run: str, name: str, script: str, **order: Any) -> None:
        spec = self.order(run, script, **order)["taskSpec"]
        action = {"actionId": self.id(run, name), "parentActionName": "a0", "task": {"spec": spec}}
        self._call("actions.ActionsService/Enqueue", {"action": action})

    def abort(self, run: str) -> None:
        self._call("workflow.RunService/AbortRun", {"runId": {**SCOPE, "name": run}})

    def details(self, run: str, name: str = "a0") -> dict[str, Any]:
        found = self._call("workflow.RunService/GetActionDetails", {"actionId": self.id(run, name)})
        return dict(found["details"])

    def id(self, run: str, name: str = "a0") -> dict[str, object]:
        return {"run": {**SCOPE, "name": run}, "name": name}

    def _call(self, method: str, body: object) -> dict[str, Any]:
        answer = self.manager.call(method, body)
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    def rows(self, run: str) -> dict[str, tuple[str, int]]:
        """name -> phase and number of the last attempt."""
        query = "SELECT name, phase, attempt FROM actions WHERE run = ?"
        return {name: (phase, attempt) for name, phase, attempt in self.manager.rows(query, run)}

    def live(self) -> list[str]:
        """Runs that have not ended."""
        ends = ", ".join(f"'{name}'" for name in sorted(FINAL))
        return [run for (run,) in self.manager.rows(f"SELECT DISTINCT run FROM actions WHERE phase NOT IN ({ends})")]

    def phase(self, run: str, name: str = "a0") -> str:
        return self.rows(run).get(name, ("none", 0))[0]

    def until(self, wanted: str, run: str, *names: str) -> None:
        for name in names or ("a0",):
            self.eventually(lambda name=name: self.phase(run, name) == wanted, f"{run}/{name} {wanted}")  # type: ignore[misc]

    def reason(self, run: str, name: str = "a0") -> str:
        """What the API tells of why an action is not further, or ended so."""
        return json.dumps(self.details(run, name), ensure_ascii=False)

    def eventually(self, holds: Callable[[], bool], what: str) -> None:
        eventually(holds, SECONDS, what=what)

    @property
    def marks(self) -> Counter[str]:
        file = self.folder / "all"
        return Counter(file.read_text().splitlines() if file.exists() else [])

    def let(self, name: str) -> None:
        """Lets the commands go on that wait for this file."""
        (self.folder / name).touch()

    def pods(self, run: str) -> dict[str, str]:
        """name -> phase."""
        found = self.kubectl.json("get", "pods", f"--selector=flyte.org/run={run}")["items"]
        return {pod["metadata"]["name"]: pod["status"]["phase"] for pod in found}

    def task_action(self, name: str) -> dict[str, Any]:
        return dict(self.kubectl.json("get", "taskaction", name))

    def live_pods(self) -> list[str]:
        found = self.kubectl.json("get", "pods")["items"]
        return [each["metadata"]["name"] for each in found if each["status"]["phase"] in ("Pending", "Running")]

    def unlike(self) -> list[str]:
        """TaskActions that don't show what their row says, or that have not ended."""
        rows = {
            f"{run}-{name}": NAMES[Phase[phase]]
            for run, name, phase in self.manager.rows("SELECT run, name, phase FROM actions")
        }
        wrong = []
        for each in self.kubectl.json("get", "taskactions")["items"]:
            key = f"{each['spec']['runName']}-{each['spec']['actionName']}"
            shown, recorded = each.get("status", {}).get("phase"), rows.get(key, "Failed")
            if shown != recorded or Phase[_upper(shown)].name not in FINAL:
                wrong.append(f"{each['metadata']['name']}: {shown}, the row says {recorded}")
        return wrong


def _upper(shown: str) -> str:
    return {name: phase.name for phase, name in NAMES.items()}[shown]


def foreign(spec: Mapping[str, Any], name: str) -> dict[str, Any]:
    return {"apiVersion": "flyte.org/v1", "kind": "TaskAction", "metadata": {"name": name}, "spec": dict(spec)}
