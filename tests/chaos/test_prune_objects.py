"""A manager whose tasks are pods keeps its data in an object store: `flyte-manager prune` takes it from there.

The cluster is a made-up one, the store a real S3 server; the runs sleep, so that nobody need run pods.
"""

import asyncio
import json
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path

from flyte_manager.kubernetes import crd
from tests.chaos.test_prune import OLD
from tests.fakes.kubernetes_api import FakeKubernetes
from tests.managers import Manager, eventually
from tests.s3 import S3Server
from tests.sdk.test_object_store import store_of

SCOPE = {"project": "flytesnacks", "domain": "development"}


def sleep_of(name: str, duration: str = "0.1s") -> dict[str, object]:
    """CreateRun's body for a sleep."""
    variable = {"key": "duration", "value": {"type": {"simple": "DURATION"}}}
    template = {
        "id": {**SCOPE, "resourceType": "TASK", "name": "sleep", "version": "1"},
        "type": "core-sleep",
        "interface": {"inputs": {"variables": [variable]}},
    }
    value = {"scalar": {"primitive": {"duration": duration}}}
    return {
        "runId": {**SCOPE, "name": name},
        "taskSpec": {"taskTemplate": template},
        "inputs": {"literals": [{"name": "duration", "value": value}]},
    }


def settings_of(api: FakeKubernetes, s3: S3Server, folder: Path) -> dict[str, str]:
    file = folder / "kubeconfig"
    cluster = {"name": "c", "cluster": {"server": api.url}}
    context = {"name": "c", "context": {"cluster": "c", "user": "u", "namespace": "flyte"}}
    user = {"name": "u", "user": {}}
    config = {"clusters": [cluster], "contexts": [context], "users": [user], "current-context": "c"}
    file.write_text(json.dumps(config))
    return {
        "manager.kubernetes.kubeconfig": str(file),
        "manager.kubernetes.taskEndpoint": "127.0.0.1:9",
        "storage.url": f"s3://{s3.bucket}/{folder.name}",
        "storage.s3.endpoint": s3.endpoint,
        "storage.s3.accessKeyId": s3.access_key,
        "storage.s3.secretAccessKey": s3.secret_key,
    }


def prune(manager: Manager, *flags: str) -> str:
    own = {"database.sqlite.file": str(manager.database), "dataDir": str(manager.folder / "data"), **manager.settings}
    ended = subprocess.run(
        [*manager.command, "prune", *(f"--{name}={value}" for name, value in own.items()), *flags],
        env=manager.environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def finish(manager: Manager, *names: str) -> None:
    """Runs them to their end."""
    for name in names:
        answer = manager.call("workflow.RunService/CreateRun", sleep_of(name))
        assert answer.status_code == 200, answer.text
    eventually(lambda: set(manager.rows("SELECT phase FROM runs")) == {("SUCCEEDED",)}, what="the end of the runs")


def grow_old(manager: Manager, *names: str) -> None:
    with closing(sqlite3.connect(manager.database, timeout=10)) as connection, connection:
        for name in names:
            connection.execute("UPDATE runs SET ended_at = ? WHERE name = ?", (OLD, name))


async def test_old_runs_go_from_the_object_store_beside_a_manager_of_pods(s3: S3Server, tmp_path: Path) -> None:
    store = store_of(s3, tmp_path.name)

    async def runs_in_store() -> set[str]:
        base = store.join("flytesnacks/development")
        found = [each.uri async for page in store.stored(base) for each in page]
        return {uri.removeprefix(f"{base}/").partition("/")[0] for uri in found}

    async with FakeKubernetes() as api:
        api.put("namespaces", {"metadata": {"name": "flyte"}})
        api.put("customresourcedefinitions", crd.definition())
        manager = Manager(tmp_path, settings_of(api, s3, tmp_path))
        try:
            await asyncio.to_thread(manager.start)
            await asyncio.to_thread(finish, manager, "old", "older", "young")
            assert api.names("pods") == []
            grow_old(manager, "old", "older")
            assert await runs_in_store() == {"old", "older", "young"}

            told = await asyncio.to_thread(prune, manager, "--older-than=1d", "--dry-run")
            assert "2 runs would be deleted: 6 rows" in told
            assert await runs_in_store() == {"old", "older", "young"}

            told = await asyncio.to_thread(prune, manager, "--older-than=1d")
            assert "2 runs deleted: 6 rows" in told
            assert await runs_in_store() == {"young"}
            assert manager.rows("SELECT name FROM runs") == [("young",)]
            assert manager.rows("SELECT run FROM prunings") == []

            await asyncio.to_thread(finish, manager, "old")
            assert await runs_in_store() == {"old", "young"}
            assert "internal error" not in manager.log
        finally:
            await asyncio.to_thread(manager.close)
