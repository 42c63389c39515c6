"""The SDK's own storage code, in a process like a task's, on the S3 server.

Three variables are enough; what tasks write the manager reads, and the other way round.
"""

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest

from flyte_manager.blobs.object_store import ObjectStore
from flyte_manager.blobs.providers import Options
from tests.fakes.clock import FakeClock
from tests.s3 import S3Server

pytestmark = pytest.mark.sdk

TASK = """
import asyncio, os, sys
import flyte.storage as storage

async def main(base, folder):
    content = os.urandom(12_000_000)
    open(f"{folder}/big", "wb").write(content)
    await storage.put(f"{folder}/big", f"{base}/raw/big")
    assert open(await storage.get(f"{base}/raw/big", f"{folder}/again"), "rb").read() == content
    await storage.put_stream(b"from the task", to_path=f"{base}/a0/1/outputs.pb")
    read = b"".join([piece async for piece in storage.get_stream(f"{base}/a0/inputs.pb")])
    assert read == b"from the manager", read
    assert await storage.exists(f"{base}/a0/1/outputs.pb")
    assert not await storage.exists(f"{base}/a0/1/error.pb")

asyncio.run(main(*sys.argv[1:]))
"""


def run(base: str, folder: Path, env: dict[str, str]) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-c", TASK, base, str(folder)],
        env={"PATH": os.defpath, "HOME": str(folder), "LOG_LEVEL": "40"} | env,
        capture_output=True,
        text=True,
        timeout=120,
    )


def store_of(s3: S3Server, prefix: str) -> ObjectStore:
    options = Options(endpoint=s3.endpoint, access_key_id=s3.access_key, secret_access_key=s3.secret_key)
    return ObjectStore(f"s3://{s3.bucket}/{prefix}", options, FakeClock())


async def test_tasks_and_manager_read_what_the_other_wrote(s3: S3Server, tmp_path: Path) -> None:
    store = store_of(s3, tmp_path.name)
    base = store.join("flytesnacks/development/r1")
    await store.write(f"{base}/a0/inputs.pb", b"from the manager")
    ended = await asyncio.to_thread(run, base, tmp_path, s3.task_env)
    assert ended.returncode == 0, ended.stderr
    assert await store.read(f"{base}/a0/1/outputs.pb") == b"from the task"
    assert await store.read(f"{base}/raw/big") == (tmp_path / "big").read_bytes()


async def test_a_task_without_the_right_key_is_shut_out(s3: S3Server, tmp_path: Path) -> None:
    store = store_of(s3, tmp_path.name)
    ended = await asyncio.to_thread(run, store.root, tmp_path, s3.task_env | {"FLYTE_AWS_SECRET_ACCESS_KEY": "wrong"})
    assert ended.returncode != 0
    assert (tmp_path / "big").exists()
    assert not await store.exists(store.join("raw/big"))
