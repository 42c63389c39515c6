"""AuthMetadataService: this manager asks nobody to log in."""

from flyteidl2.auth import auth_service_connect
from flyteidl2.auth import auth_service_pb2 as pb

from flyte_manager.services.context import Context


class AuthMetadataService(auth_service_connect.AuthMetadataService):
    async def get_public_client_config(
        self, _request: pb.GetPublicClientConfigRequest, _ctx: Context
    ) -> pb.GetPublicClientConfigResponse:
        return pb.GetPublicClientConfigResponse(client_id="flytectl", authorization_metadata_key="authorization")
