"""ClusterService: the SDK asks it before every call of DataProxyService."""

from flyteidl2.cluster import payload_pb2, service_connect
from flyteidl2.cluster import service_pb2 as _service  # noqa: F401  # rpc looks up its descriptor

from flyte_manager.services.context import Context


class ClusterService(service_connect.ClusterService):
    async def select_cluster(
        self, _request: payload_pb2.SelectClusterRequest, _ctx: Context
    ) -> payload_pb2.SelectClusterResponse:
        """Empty: go on with the endpoint that you have."""
        return payload_pb2.SelectClusterResponse()
