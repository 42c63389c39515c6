"""A task with an input of every kind. `forms.py FOLDER` runs it with values of all of them."""

import asyncio
import sys
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from enum import Enum
from pathlib import Path
from typing import Literal

import flyte
import pandas as pd
from flyte.io import DataFrame, Dir, File
from pydantic import BaseModel

env = flyte.TaskEnvironment(name="forms")


class Color(Enum):
    RED = "red"
    BLUE = "blue"


@dataclass
class Inner:
    x: int
    tags: list[str] = field(default_factory=list)


@dataclass
class Point:
    x: int
    y: float
    name: str = "p"
    inner: Inner | None = None
    counts: dict[str, int] = field(default_factory=dict)


class Model(BaseModel):
    a: int
    b: str | None = None
    inner: Color = Color.RED


@env.task
async def kinds(
    whole: int,
    huge: int,
    number: float,
    endless: float,
    text: str,
    flag: bool,
    moment: datetime,
    span: timedelta,
    color: Color,
    word: Literal["a", "b"],
    numbers: list[int],
    nested: list[list[str]],
    named: dict[str, float],
    by_number: dict[int, int],
    anything: dict,
    point: Point,
    points: list[Point],
    model: Model,
    pair: tuple[int, str],
    maybe: int | None,
    given: int | None,
    either: int | str | list[int],
    other: Point | Model | None,
    pickled: bytes,
    file: File,
    folder: Dir,
    frame: DataFrame,
    usual: int = 4,
    nothing: None = None,
) -> str:
    async with file.open("rb") as source:
        content = bytes(await source.read())
    names = sorted(path.name for path in Path(await folder.download()).rglob("*"))
    rows = (await frame.open(pd.DataFrame).all())["n"].tolist()
    plain = [whole, huge, number, endless, text, flag, moment, span, color, word, numbers, nested, named, by_number]
    classes = [
        sorted(anything.items()),
        asdict(point),
        [type(each.y) for each in points],
        model,
        pair,
        maybe,
        given,
        either,
        other,
    ]
    return repr([*plain, *classes, pickled, content, names, rows, usual, nothing])


async def main(folder: Path) -> None:
    (folder / "file.txt").write_text("content")
    point = Point(1, 2.0, inner=Inner(3, ["t"]), counts={"n": 1})
    run = await flyte.run.aio(
        kinds,
        whole=-3,
        huge=2**62 + 1,
        number=0.5,
        endless=float("inf"),
        text="naïve 123",
        flag=True,
        moment=datetime(2026, 11, 23, 9, 0, 0, 123456, tzinfo=UTC),
        span=timedelta(hours=1, seconds=1.5),
        color=Color.BLUE,
        word="b",
        numbers=[1, 2],
        nested=[["a"], []],
        named={"x": 1.0},
        by_number={1: 2},
        anything={"k": [1, {"deep": None}], "f": 1.5},
        point=point,
        points=[point, Point(4, 5.0)],
        model=Model(a=7, b="x", inner=Color.BLUE),
        pair=(1, "one"),
        maybe=None,
        given=6,
        either=[1, 2],
        other=Model(a=8),
        pickled=b"\x00\xff",
        file=await File.from_local(str(folder / "file.txt")),
        folder=await Dir.from_local(str(folder)),
        frame=await DataFrame.from_local(pd.DataFrame({"n": [0, 1]})),
    )
    await run.wait.aio(quiet=True)
    run.raise_for_status()
    print(f'{{"name": "{run.name}"}}')


if __name__ == "__main__":
    flyte.init_from_config()
    asyncio.run(main(Path(sys.argv[1])))
