"""A user's program that gives files to tasks and gets files back."""

import sys
from pathlib import Path

import flyte
import flyte.remote
import pandas as pd
from data import folder_of, shout, sizes, summarize, table
from flyte.io import DataFrame, Dir, File


def ended(run: object) -> flyte.remote.Run:
    assert isinstance(run, flyte.remote.Run)
    run.wait(quiet=True)
    return run


def outcome(run: object) -> object:
    return ended(run).outputs()[0]


if __name__ == "__main__":
    flyte.init_from_config()
    folder = Path(sys.argv[1])
    text = folder / "text.txt"
    text.write_text("hello")
    upload = File.from_local_sync(str(text))
    shouted = outcome(flyte.run(shout, text=upload))
    assert isinstance(shouted, File)
    with shouted.open_sync("rb") as file:
        print("file", bytes(file.read()).decode())
    given = folder / "given"
    (given / "deep").mkdir(parents=True)
    (given / "deep" / "one.txt").write_text("1")
    (given / "three.txt").write_text("333")
    sized = outcome(flyte.run(sizes, folder=Dir.from_local_sync(str(given))))
    assert isinstance(sized, dict)
    print("dir in", sorted(sized.items()))
    made = outcome(flyte.run(folder_of, names=["x", "yy"]))
    assert isinstance(made, Dir)
    print("dir out", sorted(Path(file.path).name for file in made.list_files_sync()))
    print("frame out", ended(flyte.run(table, rows=3)).typed_outputs({"o0": pd.DataFrame})["o0"]["square"].tolist())
    local = DataFrame.from_local_sync(pd.DataFrame({"n": [1, 2, 3, 4]}))
    print("frame in", outcome(flyte.run(summarize, frame=local)))
