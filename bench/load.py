"""The clients, in a process of their own: `python -m bench.load SCENARIO URL PID COUNT CALLERS SECONDS` prints JSON.

They use what the SDK uses: the generated Connect clients, HTTP/1.1 through pyqwest, gzip, x-request-id. PID is the
manager's: its CPU seconds are read around the counted work, after a few calls that warm both sides up.
"""

import asyncio
import dataclasses
import json
import os
import sys
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from types import TracebackType

from flyteidl2.actions import actions_service_pb2
from flyteidl2.actions.actions_service_connect import ActionsServiceClient
from flyteidl2.common import identifier_pb2, phase_pb2
from flyteidl2.common import run_pb2 as common_run_pb2
from flyteidl2.core import identifier_pb2 as core_identifier_pb2
from flyteidl2.core import tasks_pb2
from flyteidl2.dataproxy import dataproxy_service_pb2
from flyteidl2.dataproxy.dataproxy_service_connect import DataProxyServiceClient
from flyteidl2.task import environment_pb2, task_definition_pb2
from flyteidl2.workflow import internal_run_service_pb2, run_definition_pb2, run_service_pb2
from flyteidl2.workflow.internal_run_service_connect import InternalRunServiceClient
from flyteidl2.workflow.run_service_connect import RunServiceClient
from google.protobuf.timestamp_pb2 import Timestamp

from bench import processes

WARM_UP = 20
PROJECT, DOMAIN = "flytesnacks", "development"
ARGS = [
    *("a0", "--inputs", "{{.input}}", "--outputs-path", "{{.outputPrefix}}"),
    *("--version", "0123456789abcdef0123456789abcdef", "--raw-data-path", "{{.rawOutputDataPrefix}}"),
    *("--checkpoint-path", "{{.checkpointOutputPrefix}}", "--prev-checkpoint", "{{.prevCheckpointPrefix}}"),
    *("--run-name", "{{.runName}}", "--name", "{{.actionName}}", "--run-start-time", "{{.runStartTime}}"),
    *("--dest", ".", "--resolver", "flyte._internal.resolvers.default.DefaultTaskResolver", "mod", "bench"),
]
ENDED = frozenset(
    (
        phase_pb2.ACTION_PHASE_SUCCEEDED,
        phase_pb2.ACTION_PHASE_FAILED,
        phase_pb2.ACTION_PHASE_ABORTED,
        phase_pb2.ACTION_PHASE_TIMED_OUT,
    )
)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a scenario did: how much of it, in which time, and what it cost."""

    count: int
    seconds: float
    manager_cpu: float
    client_cpu: float
    latencies: list[float]
    """seconds, one for each thing counted, sorted"""
    later: list[float] = field(default_factory=list)
    """a second latency, where the scenario has one"""


class Client:
    """The clients of one manager."""

    def __init__(self, url: str) -> None:
        self.runs = RunServiceClient(url)
        self.actions = ActionsServiceClient(url)
        self.data = DataProxyServiceClient(url)
        self.internal = InternalRunServiceClient(url)
        self.inputs = common_run_pb2.OffloadedInputData()

    async def __aenter__(self) -> "Client":
        asked = dataproxy_service_pb2.UploadInputsRequest(
            project_id=identifier_pb2.ProjectIdentifier(name=PROJECT, domain=DOMAIN), task_spec=spec()
        )
        self.inputs.CopyFrom((await self.data.upload_inputs(asked)).offloaded_input_data)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for client in (self.runs, self.actions, self.data, self.internal):
            await client.close()

    async def create(self, word: str = "one") -> identifier_pb2.ActionIdentifier:
        """A new run's root action."""
        asked = run_service_pb2.CreateRunRequest(
            project_id=identifier_pb2.ProjectIdentifier(name=PROJECT, domain=DOMAIN),
            task_spec=spec(word),
            offloaded_input_data=self.inputs,
        )
        made = await self.runs.create_run(asked, headers={"x-request-id": str(uuid.uuid4())})
        return made.run.action.id

    async def parent(self) -> identifier_pb2.ActionIdentifier:
        """A root action that runs, and goes on running."""
        root = await self.create("hold")
        watched = self.runs.watch_action_details(run_service_pb2.WatchActionDetailsRequest(action_id=root))
        async for seen in watched:
            if seen.details.status.phase == phase_pb2.ACTION_PHASE_RUNNING:
                break
        return root

    async def enqueue(self, parent: identifier_pb2.ActionIdentifier, name: str) -> None:
        await self._enqueue(self._child(parent, name, task=run_definition_pb2.TaskAction(spec=spec())))

    async def trace(self, parent: identifier_pb2.ActionIdentifier, name: str) -> None:
        now = Timestamp()
        now.GetCurrentTime()
        ended = run_definition_pb2.TraceAction(
            name="trace", phase=phase_pb2.ACTION_PHASE_SUCCEEDED, start_time=now, end_time=now
        )
        await self._enqueue(self._child(parent, name, trace=ended))

    async def _enqueue(self, child: actions_service_pb2.Action) -> None:
        headers = {"x-request-id": str(uuid.uuid4())}
        await self.actions.enqueue(actions_service_pb2.EnqueueRequest(action=child), headers=headers, timeout_ms=5000)

    def _child(
        self,
        parent: identifier_pb2.ActionIdentifier,
        name: str,
        *,
        task: run_definition_pb2.TaskAction | None = None,
        trace: run_definition_pb2.TraceAction | None = None,
    ) -> actions_service_pb2.Action:
        return actions_service_pb2.Action(
            action_id=identifier_pb2.ActionIdentifier(run=parent.run, name=name),
            parent_action_name=parent.name,
            input_uri=self.inputs.uri,
            task=task,
            trace=trace,
        )


class Meter:
    """Counts from its making to `outcome`."""

    def __init__(self, manager: int) -> None:
        self._manager = manager
        self._started = time.monotonic()
        self._manager_cpu = processes.cpu(manager)
        self._client_cpu = time.process_time()

    def outcome(self, latencies: list[float], later: list[float] | None = None) -> Outcome:
        return Outcome(
            count=len(latencies),
            seconds=time.monotonic() - self._started,
            manager_cpu=processes.cpu(self._manager) - self._manager_cpu,
            client_cpu=time.process_time() - self._client_cpu,
            latencies=sorted(latencies),
            later=sorted(later or []),
        )


@dataclass(frozen=True, slots=True)
class Order:
    """How much to do: so many calls, by so many callers at once, and no new one after so many seconds."""

    manager: int
    count: int
    callers: int
    seconds: float


def spec(word: str = "one") -> task_definition_pb2.TaskSpec:
    """A task such as the SDK sends; `word` is for the fake world, the annotation for pods on fake nodes."""
    seconds = {"test-cluster/seconds": "3600s"} if word == "hold" else {}
    return task_definition_pb2.TaskSpec(
        task_template=tasks_pb2.TaskTemplate(
            id=core_identifier_pb2.Identifier(
                project=PROJECT, domain=DOMAIN, name="bench.one", version="0123456789abcdef0123456789abcdef"
            ),
            type="python",
            metadata=tasks_pb2.TaskMetadata(metadata=tasks_pb2.K8sObjectMetadata(annotations=seconds)),
            container=tasks_pb2.Container(image="ghcr.io/flyteorg/flyte:py3.11-v2.12.1", args=[*ARGS, word]),
        ),
        short_name="one",
        environment=environment_pb2.Environment(name="bench"),
    )


async def create_run(client: Client, order: Order) -> Outcome:
    async def call(_number: int) -> None:
        await client.create()

    return await _called(call, order)


async def enqueue(client: Client, order: Order) -> Outcome:
    parent = await client.parent()
    return await _called(lambda number: client.enqueue(parent, f"c{number}"), order)


async def to_the_end(client: Client, order: Order) -> Outcome:
    """Enqueues children and follows them as the SDK does, until the last has ended."""
    return await _followed(client, order)


async def paced(client: Client, order: Order) -> Outcome:
    """The same with a pause after each call, so that what is measured is no queue."""
    return await _followed(client, order, pause=0.2)


async def in_turn(client: Client, order: Order) -> Outcome:
    """The same, each child when the one before has ended."""
    return await _followed(client, order, in_turn=True)


async def _followed(client: Client, order: Order, *, pause: float = 0.0, in_turn: bool = False) -> Outcome:
    parent = await client.parent()
    began: dict[str, float] = {}
    ended: dict[str, float] = {}
    listening, end = asyncio.Event(), asyncio.Event()

    async def watch() -> None:
        asked = actions_service_pb2.WatchForUpdatesRequest(parent_action_id=parent)
        async for seen in client.actions.watch_for_updates(asked):
            listening.set()
            update = seen.action_update
            if seen.HasField("action_update") and update.phase in ENDED:
                if update.phase != phase_pb2.ACTION_PHASE_SUCCEEDED:
                    raise RuntimeError(f"{update.action_id.name} ended in phase {update.phase}")
                ended[update.action_id.name] = time.monotonic()
                end.set()
                if len(ended) == order.count:
                    return

    async def call(number: int) -> None:
        end.clear()
        began[f"c{number}"] = time.monotonic()
        await client.enqueue(parent, f"c{number}")
        await asyncio.sleep(pause)
        if in_turn:
            await end.wait()

    async with asyncio.timeout(order.seconds), asyncio.TaskGroup() as group:
        watching = group.create_task(watch())
        await listening.wait()
        meter = Meter(order.manager)
        await _spread(call, order)
        await watching
    return meter.outcome([at - began[name] for name, at in ended.items()])


async def watch_traces(client: Client, order: Order) -> Outcome:
    """A trace is final when it is enqueued: from the request to its update at the parent's watcher; `later`: from the
    request to its answer, which comes after the commit."""
    parent = await client.parent()
    arrived: asyncio.Queue[float] = asyncio.Queue()

    async def watch() -> None:
        asked = actions_service_pb2.WatchForUpdatesRequest(parent_action_id=parent)
        async for _seen in client.actions.watch_for_updates(asked):
            arrived.put_nowait(time.monotonic())

    watching = asyncio.create_task(watch())
    await arrived.get()  # the sentinel: what follows is live
    latencies, answers = [], []
    meter = Meter(order.manager)
    for number in range(order.count):
        began = time.monotonic()
        await client.trace(parent, f"t{number}")
        answers.append(time.monotonic() - began)
        latencies.append(await arrived.get() - began)
    outcome = meter.outcome(latencies, answers)
    watching.cancel()
    await asyncio.wait([watching])
    return outcome


async def watch_ends(client: Client, order: Order) -> Outcome:
    """From a task's end to WatchActionDetails telling the final phase, at each of as many watchers as there are
    callers, and (`later`) from its start to RUNNING there, which many watchers come too late for. Both clocks are this
    machine's."""
    word = "for:0.05" if order.callers == 1 else "for:1"
    starts: list[float] = []
    ends: list[float] = []

    async def watch(root: identifier_pb2.ActionIdentifier) -> None:
        asked = run_service_pb2.WatchActionDetailsRequest(action_id=root)
        running = False
        async for seen in client.runs.watch_action_details(asked):
            now, status = time.time(), seen.details.status
            if status.phase == phase_pb2.ACTION_PHASE_RUNNING and not running:
                running = True
                starts.append(now - _seconds(status.start_time))
            if status.phase == phase_pb2.ACTION_PHASE_SUCCEEDED:
                ends.append(now - _seconds(status.end_time))

    meter = Meter(order.manager)
    for _ in range(order.count):
        root = await client.create(word)
        async with asyncio.TaskGroup() as group:
            for _ in range(order.callers):
                group.create_task(watch(root))
    return meter.outcome(ends, starts)


async def status(client: Client, order: Order) -> Outcome:
    """UpdateActionStatus, each with another phase of an action that runs elsewhere."""
    updates = await _recorded(client, order)

    async def call(number: int) -> None:
        if number >= 0:  # the warm-up made the actions
            answer = await client.internal.update_action_status(updates[number])
            assert answer.status.code == 0, answer.status.message

    return await _called(call, order)


async def status_stream(client: Client, order: Order) -> Outcome:
    """The same, all through one UpdateActionStatusStream."""
    updates = await _recorded(client, order)
    meter = Meter(order.manager)
    began = time.monotonic()

    async def asked() -> AsyncIterator[internal_run_service_pb2.UpdateActionStatusStreamRequest]:
        for number, update in enumerate(updates):
            yield internal_run_service_pb2.UpdateActionStatusStreamRequest(request=update, nonce=number)

    latencies: list[float] = []
    async for answer in client.internal.update_action_status_stream(asked()):
        assert (answer.nonce, answer.response.status.code) == (len(latencies), 0), answer.response.status.message
        latencies.append(time.monotonic() - began)
    return meter.outcome(latencies)


async def _recorded(client: Client, order: Order) -> list[internal_run_service_pb2.UpdateActionStatusRequest]:
    """Actions that run elsewhere, and as many updates of them as are ordered."""
    run = identifier_pb2.RunIdentifier(project=PROJECT, domain=DOMAIN, name=f"r{uuid.uuid4().hex[:19]}")
    task = run_definition_pb2.TaskAction(spec=spec())
    phases = (phase_pb2.ACTION_PHASE_RUNNING, phase_pb2.ACTION_PHASE_SUCCEEDED)
    names = [f"c{number}" for number in range(-(-order.count // len(phases)))]

    async def asked() -> AsyncIterator[internal_run_service_pb2.RecordActionStreamRequest]:
        for name in ("a0", *names):
            action = identifier_pb2.ActionIdentifier(run=run, name=name)
            parent = "" if name == "a0" else "a0"
            request = internal_run_service_pb2.RecordActionRequest(action_id=action, parent=parent, task=task)
            yield internal_run_service_pb2.RecordActionStreamRequest(request=request)

    async for answer in client.internal.record_action_stream(asked()):
        assert answer.response.status.code == 0, answer.response.status.message
    return [
        internal_run_service_pb2.UpdateActionStatusRequest(
            action_id=identifier_pb2.ActionIdentifier(run=run, name=name),
            status=run_definition_pb2.ActionStatus(phase=phase, attempts=1),
        )
        for phase in phases
        for name in names
    ][: order.count]


SCENARIOS: dict[str, Callable[[Client, Order], Awaitable[Outcome]]] = {
    "create_run": create_run,
    "enqueue": enqueue,
    "to_the_end": to_the_end,
    "paced": paced,
    "in_turn": in_turn,
    "watch_traces": watch_traces,
    "watch_ends": watch_ends,
    "status": status,
    "status_stream": status_stream,
}


async def _called(call: Callable[[int], Awaitable[None]], order: Order) -> Outcome:
    for number in range(WARM_UP):
        await call(-1 - number)
    meter = Meter(order.manager)
    return meter.outcome(await _spread(call, order))


async def _spread(call: Callable[[int], Awaitable[None]], order: Order) -> list[float]:
    """Calls with the numbers from 0; each call's seconds."""
    numbers = iter(range(order.count))
    latencies: list[float] = []
    end = time.monotonic() + order.seconds

    async def caller() -> None:
        for number in numbers:
            began = time.monotonic()
            if began > end:
                return
            await call(number)
            latencies.append(time.monotonic() - began)

    async with asyncio.TaskGroup() as group:
        for _ in range(order.callers):
            group.create_task(caller())
    return latencies


def _seconds(moment: Timestamp) -> float:
    return moment.seconds + moment.nanos / 1e9


async def _run(scenario: str, url: str, order: Order) -> Outcome:
    async with Client(url) as client:
        return await SCENARIOS[scenario](client, order)


def main(arguments: list[str]) -> None:
    scenario, url, manager, count, callers, seconds = arguments
    order = Order(int(manager), int(count), int(callers), float(seconds))
    print(json.dumps(dataclasses.asdict(asyncio.run(_run(scenario, url, order)))), flush=True)
    os._exit(0)  # pyqwest's threads now and then abort a process that ends in order


if __name__ == "__main__":
    main(sys.argv[1:])
