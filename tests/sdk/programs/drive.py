"""A user at the Python API: `drive.py '[{"task": "basics.double", "inputs": {"x": 4}}]'`.

Starts all the runs, then waits for each and prints what the SDK says of it, one line of JSON a run. A run may carry
"env" (variables of its tasks), "name" and "context" (more of the run); "wait": false only starts it, "after": true
starts it when those before it have ended. It finds the manager through the user's configuration file, as `flyte create
config` wrote it.
"""

import importlib
import json
import sys
from typing import Any

import flyte
import flyte.errors
import flyte.remote


def start(order: dict[str, Any]) -> flyte.remote.Run:
    module, _, task = order["task"].rpartition(".")
    function = getattr(importlib.import_module(module), task)
    runner = flyte.with_runcontext(name=order.get("name"), env_vars=order.get("env"), **order.get("context", {}))
    run = runner.run(function, **order.get("inputs", {}))
    assert isinstance(run, flyte.remote.Run)
    return run


def tell(run: flyte.remote.Run) -> dict[str, Any]:
    run.wait(quiet=True)
    told = {"name": run.name, "phase": run.phase, "error": "", "outputs": None, "inputs": None}
    try:
        run.raise_for_status()
    except flyte.errors.BaseRuntimeError as error:
        return {**told, "error": f"{type(error).__name__}: {error}", "code": error.code}
    return {**told, "outputs": list(run.outputs()), "inputs": dict(run.inputs())}


if __name__ == "__main__":
    flyte.init_from_config()
    started: list[tuple[dict[str, Any], flyte.remote.Run]] = []
    for each in json.loads(sys.argv[1]):
        if each.get("after"):
            for _, before in started:
                before.wait(quiet=True)
        started.append((each, start(each)))
    for order, run in started:
        told = tell(run) if order.get("wait", True) else {"name": run.name}
        print(json.dumps(told, default=str), flush=True)
