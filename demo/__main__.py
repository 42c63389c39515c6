"""`python -m demo`: starts a manager on free ports in a temporary folder, runs `example.py` through the SDK, draws the
run while it happens, says what to type next, and stops everything."""

import asyncio
import json
import os
import shutil
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

from flyteidl2.common import identifier_pb2, phase_pb2
from flyteidl2.workflow import run_definition_pb2, run_service_pb2
from flyteidl2.workflow.run_service_connect import RunServiceClient
from google.protobuf.timestamp_pb2 import Timestamp

from bench.manager import Manager, running
from demo.timeline import Bar, lines, renewed

FRAME_SECONDS = 0.08
LONGEST_SECONDS = 60.0
EXAMPLE = Path(__file__).with_name("example.py")
NEXT = """\
What to type next:

  make run                            # a manager that stays

  # in a second terminal, with the SDK (source .venv/bin/activate, or pip install flyte):
  cd demo                             # where config.yaml lies, the SDK would take it for its own
  flyte create config --endpoint localhost:8090 --insecure --project flytesnacks --domain development --builder remote
  flyte run --follow example.py forecast --stations 5
"""
NOTHING: dict[str, str] = {}
QUEUED = (phase_pb2.ACTION_PHASE_QUEUED, phase_pb2.ACTION_PHASE_WAITING_FOR_RESOURCES)


class Screen:
    """Where the timeline appears: redrawn in place on a terminal, else a line for each change and one picture at the
    end."""

    def __init__(self) -> None:
        size = shutil.get_terminal_size()
        self._width, self._height = min(size.columns, 110), size.lines
        self._live = sys.stdout.isatty() and os.environ.get("TERM") != "dumb"
        self._colours = self._live and not os.environ.get("NO_COLOR")
        self._drawn = 0
        self._phases: dict[str, tuple[str, int]] = {}
        self._began = time.time()

    def show(self, bars: dict[str, Bar], *, last: bool = False) -> None:
        if not self._live:
            self._tell(bars)
        if not self._live and not last:
            return
        picture = lines(bars, now=time.time(), width=self._width, colours=self._colours)
        if self._live and not last:
            picture = picture[: self._height - 2]
        up = f"\x1b[{self._drawn}A" if self._drawn else ""
        clear = "\x1b[K" if self._live else ""
        sys.stdout.write(up + "".join(f"{line}{clear}\n" for line in picture))
        sys.stdout.flush()
        self._drawn = len(picture)

    def _tell(self, bars: dict[str, Bar]) -> None:
        for bar in bars.values():
            news = (bar.phase, bar.attempts)
            if self._phases.get(bar.id) != news:
                self._phases[bar.id] = news
                tries = f", attempt {bar.attempts}" if bar.attempts > 1 else ""
                print(f"  {time.time() - self._began:5.2f} s  {bar.name} {bar.phase}{tries}", flush=True)


async def follow(client: RunServiceClient, run: str, bars: dict[str, Bar]) -> None:
    """Keeps `bars` up to date until the root action has ended."""
    asked = run_service_pb2.WatchActionsRequest(
        run_id=identifier_pb2.RunIdentifier(project="flytesnacks", domain="development", name=run)
    )
    async for news in client.watch_actions(asked):
        for each in news.enriched_actions:
            bar = _bar(each.action)
            bars[bar.id] = renewed(bar, bars.get(bar.id))
        root = bars.get("a0")
        if root and root.ended is not None:
            return


def _bar(action: run_definition_pb2.Action) -> Bar:
    status, metadata = action.status, action.metadata
    start = _seconds(status.start_time)
    ended = _seconds(status.end_time) if status.HasField("end_time") else None
    return Bar(
        id=action.id.name,
        parent=metadata.parent,
        name=metadata.funtion_name or metadata.trace.name or action.id.name,
        phase=phase_pb2.ActionPhase.Name(status.phase).removeprefix("ACTION_PHASE_"),
        attempts=status.attempts,
        asked=start if ended is None else min(start, ended - status.duration_ms / 1000),
        started=None if status.phase in QUEUED and status.attempts < 2 else start,
        ended=ended,
    )


def _seconds(moment: Timestamp) -> float:
    return moment.seconds + moment.nanos / 1e9


async def _play(manager: Manager) -> str:
    """Runs the example and draws it; what it answered."""
    home = manager.folder / "user"
    script = shutil.copy(EXAMPLE, home)
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        script,
        cwd=home,
        env={**os.environ, "HOME": str(home), "ENDPOINT": manager.endpoint},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    complaints = asyncio.create_task(_all_of(process.stderr))
    try:
        said = _said(process.stdout)
        screen, bars = Screen(), dict[str, Bar]()
        run = (await anext(said, NOTHING)).get("run")
        if run is not None:
            await _draw(manager, run, screen, bars)
        answer = (await anext(said, NOTHING)).get("answer")
        if await process.wait() or answer is None:
            raise SystemExit(f"the example failed:\n{await complaints}")
        return answer
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def _draw(manager: Manager, run: str, screen: Screen, bars: dict[str, Bar]) -> None:
    client = RunServiceClient(manager.url)
    following = asyncio.create_task(follow(client, run, bars))
    try:
        while not following.done():
            screen.show(bars)
            await asyncio.wait([following], timeout=FRAME_SECONDS)
        following.result()
        screen.show(bars, last=True)
    finally:
        following.cancel()
        await client.close()


async def _said(stream: asyncio.StreamReader | None) -> AsyncIterator[dict[str, str]]:
    """The JSON lines of the example; what else it prints is not ours."""
    assert stream
    async for line in stream:
        if line.startswith(b"{"):
            told: dict[str, str] = json.loads(line)
            yield told


async def _all_of(stream: asyncio.StreamReader | None) -> str:
    assert stream
    return (await stream.read()).decode(errors="replace")[-3000:]


def main() -> int:
    print("Starting a manager on free ports, in a temporary folder ...", flush=True)
    with running() as manager:
        print(
            f"It serves at {manager.url} after {manager.ready.seconds:.1f} s.\n\nRunning demo/example.py:", flush=True
        )
        answer = asyncio.run(asyncio.wait_for(_play(manager), LONGEST_SECONDS))
        print(f"\nIt answered: {answer}\n")
    print(f"The manager is stopped, its folder is gone.\n\n{NEXT}", end="")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
