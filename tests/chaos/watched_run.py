"""One run of a real manager, made and changed by plain calls, for those who watch it."""

from tests.managers import Manager, run_of

SCOPE = {"project": "flytesnacks", "domain": "development"}
NAMED = {**SCOPE, "name": "watched"}


def call(manager: Manager, method: str, body: object) -> None:
    manager.call(method, body).raise_for_status()


def start(manager: Manager) -> None:
    call(manager, "workflow.RunService/CreateRun", run_of("watched", "sleep", "600"))


def action(name: str) -> dict[str, object]:
    return {"run": NAMED, "name": name}


def enqueue(manager: Manager, name: str, **kind: object) -> None:
    child = {"actionId": action(name), "parentActionName": "a0", **kind}
    call(manager, "actions.ActionsService/Enqueue", {"action": child})


def abort(manager: Manager) -> None:
    call(manager, "workflow.RunService/AbortRun", {"runId": NAMED})


def ended(manager: Manager) -> dict[str, str]:
    """The phases of its actions that are final, as rows tell."""
    return dict(manager.rows("SELECT name, phase FROM actions WHERE run = 'watched' AND ended_at IS NOT NULL"))
