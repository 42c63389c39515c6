"""The manager, with its work on Kubernetes counted: `python -m bench.counted FILE FLAGS…` is `flyte-manager FLAGS…`.

On SIGUSR1 it writes FILE, as JSON: how many requests it has sent, by "verb plural", and how many seconds passed from
each event of a pod's start or end to the commit of what was reported of it.
"""

import json
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

from flyte_manager import cli
from flyte_manager.domain.attempts import AttemptReport
from flyte_manager.domain.ids import AttemptId
from flyte_manager.domain.phases import Phase
from flyte_manager.kubernetes.client import Client
from flyte_manager.kubernetes.pod_status import Pod, State
from flyte_manager.kubernetes.runtime import Pods
from flyte_manager.ledger.ledger import Ledger


class Counts:
    """What is counted, from the start of the process on."""

    def __init__(self) -> None:
        self._clients: list[Client] = []
        self._began: dict[tuple[AttemptId, str], float] = {}
        self._seconds: dict[str, list[float]] = {"started": [], "ended": []}

    def opened(self, client: Client) -> None:
        self._clients.append(client)

    def heard(self, pod: Pod) -> None:
        """An event of the pod came."""
        if pod.main.state is State.RUNNING:
            self._began.setdefault((pod.attempt, "started"), time.monotonic())
        if pod.over:
            self._began.setdefault((pod.attempt, "ended"), time.monotonic())

    def reported(self, told: AttemptReport) -> None:
        """The report is committed."""
        what = "ended" if told.phase.final else "started" if told.phase is Phase.RUNNING else ""
        began = self._began.get((told.attempt, what))
        if began:
            self._seconds[what].append(time.monotonic() - began)
            self._began[told.attempt, what] = 0.0

    def write(self, file: Path) -> None:
        requests: dict[str, int] = {}
        for client in self._clients:
            for (verb, plural), count in client.requests.items():
                requests[f"{verb} {plural}"] = requests.get(f"{verb} {plural}", 0) + count
        fresh = file.with_suffix(".new")
        fresh.write_text(json.dumps({"requests": requests, **self._seconds}))
        fresh.rename(file)


@contextmanager
def counting(counts: Counts) -> Iterator[None]:
    """Lets the manager's own classes tell what they do."""
    enter, changed, report = Client.__aenter__, Pods._changed, Ledger.report

    async def entered(self: Client) -> Client:
        counts.opened(self)
        return await enter(self)

    def heard(self: Pods, name: str, old: Pod | None, new: Pod | None) -> None:
        if new is not None:
            counts.heard(new)
        changed(self, name, old, new)

    async def reported(self: Ledger, told: AttemptReport, *rest: Any, **more: Any) -> None:
        await report(self, told, *rest, **more)
        counts.reported(told)

    with ExitStack() as stack:
        stack.enter_context(mock.patch.object(Client, "__aenter__", entered))
        stack.enter_context(mock.patch.object(Pods, "_changed", heard))
        stack.enter_context(mock.patch.object(Ledger, "report", reported))
        yield


def main() -> int:
    """Runs the manager with the arguments of the command line after the first."""
    counts, file = Counts(), Path(sys.argv.pop(1))
    signal.signal(signal.SIGUSR1, lambda *_: counts.write(file))
    with counting(counts):
        return cli.main()


if __name__ == "__main__":
    sys.exit(main())
