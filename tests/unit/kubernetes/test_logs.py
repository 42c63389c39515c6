"""Logs of pods: kept once, told from the first line on, over cuts, late starts and early ends."""

import asyncio
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from flyte_manager.domain.attempts import Presence
from flyte_manager.domain.ids import AttemptId
from flyte_manager.domain.ports import LogLine
from flyte_manager.kubernetes import log_tail, logs
from flyte_manager.kubernetes.logs import LogUnread, while_useful
from tests.fakes.clock import NOW
from tests.fakes.kubernetes_answers import LogPiece
from tests.unit.kubernetes.world import NAMESPACE, World, attempt_id, eventually, world


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[World]:
    async with world(tmp_path) as made:
        yield made


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_tail, "LOOK_SECONDS", 0.01)
    monkeypatch.setattr(log_tail, "ASK_SECONDS", 0.02)
    monkeypatch.setattr(log_tail, "KEPT_SECONDS", 0.2)
    monkeypatch.setattr(logs, "SILENCE_SECONDS", 0.1)


def said(number: int, text: str = "") -> tuple[datetime, bytes]:
    return NOW + timedelta(milliseconds=number * 10), f"{text or f'line {number}'}\n".encode()


def numbered(*numbers: int) -> list[str]:
    return [f"line {number}" for number in numbers]


class Reader:
    """Somebody who follows the log of an attempt."""

    def __init__(self, cluster: World, attempt: AttemptId) -> None:
        self.over = False
        self.lines: list[LogLine] = []
        self._task = asyncio.create_task(self._read(cluster, attempt))

    async def _read(self, cluster: World, attempt: AttemptId) -> None:
        async def ended() -> bool:
            return self.over

        async for page in cluster.pods.tail(attempt, ended=ended):
            self.lines += page

    @property
    def output(self) -> list[str]:
        return [line.message for line in self.lines if not line.system]

    @property
    def remarks(self) -> list[str]:
        return [line.message for line in self.lines if line.system]

    async def ends(self) -> None:
        self.over = True
        async with asyncio.timeout(10):
            await self._task

    @property
    def done(self) -> bool:
        return self._task.done()

    async def leaves(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)


def writing(cluster: World, attempt: AttemptId, *pieces: LogPiece) -> list[LogPiece]:
    log: list[LogPiece] = list(pieces)
    cluster.api.logs[cluster.name(attempt)] = log
    return log


async def test_a_settled_log_outlives_its_pod(cluster: World) -> None:
    attempt = await cluster.ended(log=b"one\n\x1b[1mtwo\x1b[0m \xff\n")
    await cluster.pods.settle(attempt)
    cluster.api.delete("pods", cluster.name(attempt), namespace=NAMESPACE)
    await eventually(lambda: attempt not in cluster.pods._pods)
    before = cluster.api.counts
    assert await cluster.output(attempt) == ["one", "\x1b[1mtwo\x1b[0m \ufffd"]
    assert cluster.api.counts == before
    assert (cluster.root / "flytesnacks/development/r1/a0/1/task.log").exists()


async def test_a_log_is_kept_once_also_after_a_restart(cluster: World) -> None:
    attempt = await cluster.ended(log=b"first\n")
    await cluster.pods.settle(attempt)
    cluster.api.logs[cluster.name(attempt)] = b"second\n"
    await cluster.pods.settle(attempt)
    await cluster.make().settle(attempt)
    assert await cluster.output(attempt) == ["first"]
    assert cluster.api.counts["get", "pods/log"] == 1


async def test_settling_twice_at_once_reads_once(cluster: World) -> None:
    attempt = await cluster.ended(log=b"first\n")
    await asyncio.gather(*(cluster.pods.settle(attempt) for _ in range(5)))
    assert cluster.api.counts["get", "pods/log"] == 1


async def test_the_log_ends_with_why_the_pod_failed_and_begins_with_the_notes(cluster: World) -> None:
    attempt = await cluster.launched(notes=("caching is not enforced", "second note"))
    cluster.schedule(attempt)
    cluster.api.logs[cluster.name(attempt)] = b"working\n"
    cluster.end(attempt, 137, reason="OOMKilled")
    await cluster.seen(attempt, lambda seen: seen.presence is Presence.EXITED)
    live = await cluster.lines(attempt)
    await cluster.pods.settle(attempt)
    kept = await cluster.lines(attempt)
    for lines in (live, kept):
        assert [line.message for line in lines[:3]] == ["caching is not enforced", "second note", "working"]
        assert [line.system for line in lines] == [True, True, False, True]
        assert "killed for want of memory" in lines[3].message


async def test_a_pod_that_never_ran_has_a_log_that_says_why(cluster: World) -> None:
    attempt = await cluster.launched()
    cluster.schedule(attempt)
    cluster.status(attempt, phase="Failed", reason="Evicted", message="The node was low on resource: memory.")
    await cluster.seen(attempt, lambda seen: seen.presence is Presence.EXITED)
    await cluster.pods.settle(attempt)
    assert cluster.api.counts["get", "pods/log"] == 0
    (remark,) = await cluster.remarks(attempt)
    assert "low on resource" in remark


async def test_of_an_init_container_that_failed_the_log_is_kept(cluster: World) -> None:
    attempt = await cluster.launched()
    document = cluster.document(attempt)
    document["spec"]["initContainers"] = [{"name": "prepare", "image": "x"}]
    cluster.api.put("pods", document, namespace=NAMESPACE)
    cluster.schedule(attempt)
    state = {"terminated": {"exitCode": 2, "reason": "Error", "startedAt": "2026-11-23T09:00:00Z"}}
    cluster.status(attempt, phase="Failed", initContainerStatuses=[{"name": "prepare", "state": state}])
    cluster.api.logs[f"{cluster.name(attempt)}/prepare"] = b"no route to host\n"
    await cluster.seen(attempt, lambda seen: seen.presence is Presence.EXITED)
    await cluster.pods.settle(attempt)
    assert await cluster.output(attempt) == ["no route to host"]


async def test_of_a_log_above_the_limit_the_end_is_kept(tmp_path: Path) -> None:
    async with world(tmp_path, log_limit=100_000) as cluster:
        attempt = await cluster.ended(log=b"".join(b"%06d %s\n" % (number, b"x" * 90) for number in range(5000)))
        await cluster.pods.settle(attempt)
        output = await cluster.output(attempt)
        assert output[-1].startswith("004999")
        assert 500 < len(output) < 1000
        assert "were left out" in (await cluster.remarks(attempt))[0]


async def test_a_log_that_can_not_be_read_is_tried_again_and_given_up_after_a_while(
    cluster: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    attempt = await cluster.ended(log=b"never seen\n")
    words = "Get https://10.0.0.1:10250/containerLogs: dial tcp: connection refused"
    cluster.api.fail("get", "pods/log", status=500, message=words, times=None)
    with pytest.raises(LogUnread, match="connection refused"):
        await cluster.pods.settle(attempt)
    monkeypatch.setattr(logs, "PATIENCE_SECONDS", 0.0)
    await cluster.pods.settle(attempt)
    cluster.api.mend()
    assert words in (await cluster.remarks(attempt))[0]
    assert await cluster.output(attempt) == []


async def test_while_the_api_server_is_gone_a_log_is_not_kept_half(cluster: World) -> None:
    attempt = await cluster.ended(log=b"line 1\nline 2\n")
    await cluster.api.refuse()
    with pytest.raises(LogUnread, match="can't be reached"):
        await cluster.pods.settle(attempt)
    await cluster.api.listen()
    await cluster.pods.settle(attempt)
    assert await cluster.output(attempt) == numbered(1, 2)


async def test_the_log_of_a_stopped_pod_is_kept_to_its_last_line(cluster: World) -> None:
    cluster.obedient = False
    attempt = await cluster.running()
    log = writing(cluster, attempt, said(1), said(2))
    await cluster.pods.stop(attempt)
    await eventually(lambda: cluster.api.counts["get", "pods/log"])
    log.append(said(3, "SIGTERM came, saying good-bye"))
    await asyncio.sleep(0.05)
    cluster.obedient = True
    await eventually(lambda: not cluster.exists(attempt))
    await eventually(lambda: attempt not in cluster.pods._pods)
    await cluster.pods.settle(attempt)
    assert await cluster.output(attempt) == [*numbered(1, 2), "SIGTERM came, saying good-bye"]
    assert (await cluster.remarks(attempt))[-1] == "The attempt was stopped."


async def test_a_cut_while_a_stopped_pods_log_is_followed_loses_and_repeats_nothing(cluster: World) -> None:
    cluster.obedient = False
    attempt = await cluster.running()
    log = writing(cluster, attempt, said(1), said(2), said(2, "twin"))
    await cluster.pods.stop(attempt)
    await asyncio.sleep(0.1)
    cluster.api.cut_watches()
    log.append(said(3))
    await eventually(lambda: cluster.api.counts["get", "pods/log"] >= 2)
    await asyncio.sleep(0.05)
    cluster.obedient = True
    await eventually(lambda: attempt not in cluster.pods._pods)
    await cluster.pods.settle(attempt)
    assert await cluster.output(attempt) == ["line 1", "line 2", "twin", "line 3"]


async def test_a_reader_follows_from_before_the_start_to_the_end(cluster: World) -> None:
    attempt = await cluster.launched()
    reader = Reader(cluster, attempt)
    cluster.status(
        attempt,
        conditions=[{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "no cpu"}],
    )
    await eventually(lambda: reader.remarks == ["The pod does not run yet: no cpu"])
    cluster.schedule(attempt)
    log = writing(cluster, attempt)
    cluster.start(attempt)
    for number in range(1, 4):
        log.append(said(number))
        await eventually(lambda: reader.output == numbered(*range(1, len(log) + 1)))
    log.append(None)
    cluster.end(attempt, 0)
    await asyncio.sleep(0.1)
    assert not reader.done  # the attempt has not ended in the rows
    await reader.ends()
    assert reader.output == numbered(1, 2, 3)


async def test_a_reader_that_comes_before_the_pod_waits_for_it(cluster: World) -> None:
    reader = Reader(cluster, attempt_id())
    await asyncio.sleep(0.05)
    attempt = await cluster.running()
    writing(cluster, attempt, said(1), None)
    cluster.end(attempt, 0)
    await eventually(lambda: reader.output == numbered(1))
    await reader.ends()


async def test_cuts_repeat_no_line_and_lose_none(cluster: World) -> None:
    attempt = await cluster.running()
    log = writing(cluster, attempt)
    reader = Reader(cluster, attempt)
    for number in range(1, 40):
        log.append(said(number))
        if number % 10 == 0:
            await eventually(lambda: len(reader.output) == len(log))
            log.append(said(number, f"twin of {number}"))
            cluster.api.cut_watches()
    await eventually(lambda: len(reader.output) == 42)
    log.append(None)
    cluster.end(attempt, 0)
    await reader.ends()
    assert reader.output == [piece[1].decode().strip() for piece in log if isinstance(piece, tuple)]


async def test_half_a_line_at_a_cut_is_told_whole(cluster: World) -> None:
    attempt = await cluster.running()
    log = writing(cluster, attempt, said(1), (said(2)[0], b"lin"))
    reader = Reader(cluster, attempt)
    await eventually(lambda: reader.output == numbered(1))
    log[1] = said(2)
    cluster.api.cut_watches()
    await eventually(lambda: reader.output == numbered(1, 2))
    log += [(said(3)[0], b"without end"), None]
    cluster.end(attempt, 0)
    await eventually(lambda: reader.output == [*numbered(1, 2), "without end"])
    await reader.ends()


async def test_a_reader_whose_pod_goes_away_reads_on_in_the_kept_log(cluster: World) -> None:
    attempt = await cluster.running(notes=("a note",))
    log = writing(cluster, attempt, said(1), said(2))
    reader = Reader(cluster, attempt)
    await eventually(lambda: reader.output == numbered(1, 2))
    cluster.api.fail("get", "pods/log", status=500, times=None)
    cluster.api.cut_watches()
    await asyncio.sleep(0.02)
    cluster.api.mend()
    log += [said(3), None]
    cluster.end(attempt, 0)
    await cluster.seen(attempt, lambda seen: seen.presence is Presence.EXITED)
    await cluster.pods.settle(attempt)
    cluster.api.delete("pods", cluster.name(attempt), namespace=NAMESPACE)
    await reader.ends()
    assert reader.output == numbered(1, 2, 3)
    assert reader.remarks == ["a note"]


async def test_a_log_that_is_lost_says_so(cluster: World) -> None:
    attempt = await cluster.running()
    writing(cluster, attempt, said(1))
    reader = Reader(cluster, attempt)
    await eventually(lambda: reader.output == numbered(1))
    cluster.api.fail("get", "pods/log", status=404, reason="NotFound", message="no such pod", times=None)
    cluster.api.delete("pods", cluster.name(attempt), namespace=NAMESPACE)
    cluster.api.cut_watches()
    await reader.ends()
    assert reader.remarks == ["What it wrote from here on was lost with its pod."]
    assert await cluster.remarks(attempt_id("never")) == ["Its pod is gone and left no log."]


async def test_a_reader_that_leaves_closes_its_stream(cluster: World) -> None:
    attempt = await cluster.running()
    writing(cluster, attempt, said(1))
    reader = Reader(cluster, attempt)
    await eventually(lambda: reader.output == numbered(1))
    open_before = len(cluster.api._streams)
    await reader.leaves()
    await eventually(lambda: len(cluster.api._streams) == open_before - 1)


async def test_a_silent_stream_of_a_pod_that_has_ended_is_given_up(cluster: World) -> None:
    attempt = await cluster.running()
    writing(cluster, attempt, said(1))
    reader = Reader(cluster, attempt)
    await eventually(lambda: reader.output == numbered(1))
    cluster.end(attempt, 0, phase="Running")  # the stream stays open, as one to a node that is lost
    await reader.ends()
    assert reader.output == numbered(1)


async def test_while_a_stream_is_useful_its_silence_is_no_reason_to_leave() -> None:
    asked = []

    async def stream() -> AsyncIterator[int]:
        yield 1
        await asyncio.sleep(0.35)
        yield 2

    def over() -> bool:
        asked.append(1)
        return False

    assert [item async for item in while_useful(stream(), over)] == [1, 2]
    assert len(asked) >= 2
