"""RunLogsService: the same log as DataProxyService.TailLogs, for consoles that ask here."""

from collections.abc import AsyncIterator

from flyteidl2.dataproxy import dataproxy_service_pb2
from flyteidl2.workflow import run_logs_service_connect
from flyteidl2.workflow import run_logs_service_pb2 as pb

from flyte_manager.services.context import Context
from flyte_manager.services.dataproxy import DataProxyService


class RunLogsService(run_logs_service_connect.RunLogsService):
    def __init__(self, data: DataProxyService) -> None:
        self._data = data

    async def tail_logs(self, request: pb.TailLogsRequest, ctx: Context) -> AsyncIterator[pb.TailLogsResponse]:
        asked = dataproxy_service_pb2.TailLogsRequest(action_id=request.action_id, attempt=request.attempt)
        async for page in self._data.tail_logs(asked, ctx):
            yield pb.TailLogsResponse(logs=[pb.TailLogsResponse.Logs(lines=each.lines) for each in page.logs])
