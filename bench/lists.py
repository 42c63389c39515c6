"""ListRuns among many runs: the newest 50, in the ways that people look for them."""

import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from http.client import HTTPConnection
from pathlib import Path

from flyteidl2.common import list_pb2
from flyteidl2.workflow import run_service_pb2

from bench import million, processes
from bench.manager import FAKE, Manager, running
from bench.report import Figure, Row

Filter = list_pb2.Filter
PATH = "/flyteidl2.workflow.RunService/ListRuns"
WARM_UP = 10
Quantiles = Callable[[Sequence[float]], Sequence[Figure]]


def _filter(field: str, *values: str, function: "list_pb2.Filter.Function" = Filter.EQUAL) -> list_pb2.Filter:
    return Filter(field=field, function=function, values=values)


def _asked(*filters: list_pb2.Filter, project: str = "flytesnacks") -> run_service_pb2.ListRunsRequest:
    asked = run_service_pb2.ListRunsRequest(request=list_pb2.ListRequest(limit=50, filters=filters))
    asked.project_id.name, asked.project_id.domain = project, "development"
    return asked


def _cases(count: int) -> Mapping[str, tuple[str, run_service_pb2.ListRunsRequest]]:
    """The key and the words of each, and what is asked. The last two pass every run."""
    middle = million.BEGIN + 30 * count
    moment = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(middle))
    fourth = _asked()
    fourth.request.token = "150"
    anywhere = run_service_pb2.ListRunsRequest(org="acme", request=list_pb2.ListRequest(limit=50))
    name = million.drawn(count // 2)
    contains, icase = Filter.CONTAINS, Filter.CONTAINS_CASE_INSENSITIVE
    return {
        "project": ("of a project", _asked()),
        "small": ("of a project with 1 in 1,000", _asked(project="rare")),
        "org": ("of all projects", anywhere),
        "page": ("of a project, the fourth page", fourth),
        "phase": ("that FAILED", _asked(_filter("phase", "6"))),
        "none": ("that are RUNNING (none)", _asked(_filter("phase", "4"))),
        "phases": ("that SUCCEEDED or FAILED", _asked(_filter("phase", "5", "6", function=Filter.VALUE_IN))),
        "task": ("of a task", _asked(_filter("task_name", "env.task_4"))),
        "created": ("made before a day", _asked(_filter("created_at", moment, function=Filter.LESS_THAN))),
        "contains": ("whose name contains 2 letters", _asked(_filter("run_name", "bc", function=icase))),
        "one": ("whose name contains 8 letters (1 run)", _asked(_filter("run_name", name[3:11], function=contains))),
        "nobody": ("of a user who made none", _asked(_filter("created_by", "nobody"))),
    }


def lists(count: int, calls: int, quantiles: Quantiles) -> Iterator[Row]:
    folder = Path(tempfile.mkdtemp(prefix="flyte-bench-"))
    try:
        million.fill(folder / "flyte.db", count)
        with running(program=FAKE, folder=folder) as manager:
            for key, (what, asked) in _cases(count).items():
                before, cpu = processes.load(), processes.cpu(manager.pid)
                seconds = _seconds(manager, asked.SerializeToString(), calls)
                used = {"manager": processes.cpu(manager.pid) - cpu}
                what = f"ListRuns, newest 50 {what}, among {count:,}"
                yield Row(f"lists.{key}", what, quantiles(seconds), f"{calls} calls", used, (before, processes.load()))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _seconds(manager: Manager, body: bytes, calls: int) -> list[float]:
    host, _, port = manager.endpoint.partition(":")
    connection = HTTPConnection(host, int(port), timeout=30)
    seconds = []
    for _ in range(calls + WARM_UP):
        began = time.perf_counter()
        connection.request("POST", PATH, body, {"content-type": "application/proto"})
        response = connection.getresponse()
        content = response.read()
        seconds.append(time.perf_counter() - began)
        if response.status != 200:
            raise RuntimeError(content.decode())
    connection.close()
    return seconds[WARM_UP:]
