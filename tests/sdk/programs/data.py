"""Files, folders, data frames, a report and secrets."""

import hashlib
import os
from pathlib import Path

import flyte
import flyte.report
import pandas as pd
from flyte.io import DataFrame, Dir, File

env = flyte.TaskEnvironment(name="data")
SECRETS = [flyte.Secret("api-key", as_env_var="API_KEY"), flyte.Secret("certificate", mount=Path("/etc/flyte/secrets"))]
private = flyte.TaskEnvironment(name="private", secrets=SECRETS)
lacking = flyte.TaskEnvironment(name="lacking", secrets="no-such-secret")


@env.task
async def shout(text: File) -> File:
    async with text.open("rb") as source:
        content = bytes(await source.read())
    shouted = Path("shouted.txt")
    shouted.write_bytes(content.upper())
    return await File.from_local(str(shouted))


@env.task
async def sizes(folder: Dir) -> dict[str, int]:
    local = Path(await folder.download())
    return {path.name: path.stat().st_size for path in sorted(local.rglob("*")) if path.is_file()}


@env.task
async def folder_of(names: list[str]) -> Dir:
    folder = Path("made")
    folder.mkdir()
    for name in names:
        (folder / name).write_text(name)
    return await Dir.from_local(str(folder))


@env.task
async def table(rows: int) -> pd.DataFrame:
    return pd.DataFrame({"n": range(rows), "square": [n * n for n in range(rows)]})


@env.task
async def total(table: pd.DataFrame) -> int:
    return int(table["square"].sum())


@env.task
async def summarize(frame: DataFrame) -> int:
    return len(await frame.open(pd.DataFrame).all())


@env.task
async def pipeline() -> list[int]:
    """Each kind goes from one task into another."""
    frame = await table(4)
    folder = await folder_of(["a", "bb"])
    return [await total(frame), sum((await sizes(folder)).values())]


@env.task(report=True)
async def reports() -> None:
    await flyte.report.replace.aio("<h1>All is well</h1>")
    await flyte.report.flush.aio()


@private.task
async def knows() -> list[str]:
    """Its secrets, digested: outputs are kept in the open."""
    file = Path(os.environ["FLYTE_SECRETS_DEFAULT_DIR"], "certificate")
    return [hashlib.sha256(value).hexdigest() for value in (os.environb[b"API_KEY"], file.read_bytes())]


@env.task
async def knows_nothing() -> list[str]:
    return [name for name in os.environ if name in ("API_KEY", "FLYTE_SECRETS_DEFAULT_DIR")]


@lacking.task
async def lacks_a_secret() -> int:
    return 1
