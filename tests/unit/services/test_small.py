"""The services that always answer the same."""

from pathlib import Path

from connectrpc.code import Code
from flyteidl2.auth import auth_service_connect, auth_service_pb2, identity_connect, identity_pb2
from flyteidl2.cluster import payload_pb2 as cluster_pb2
from flyteidl2.cluster import service_connect as cluster_connect
from flyteidl2.imagebuilder import definition_pb2, payload_pb2
from flyteidl2.imagebuilder import service_connect as image_connect

from flyte_manager.services.identity import os_user
from tests.unit.services.running import Manager, refused, running


async def test_every_operation_goes_to_the_same_endpoint(manager: Manager) -> None:
    async with cluster_connect.ClusterServiceClient(manager.url) as client:
        assert await client.select_cluster(cluster_pb2.SelectClusterRequest()) == cluster_pb2.SelectClusterResponse()


async def test_every_image_exists_under_the_name_asked_for(manager: Manager) -> None:
    async with image_connect.ImageServiceClient(manager.url) as client:
        asked = payload_pb2.GetImageRequest(id=definition_pb2.ImageIdentifier(name="flyte:abc"))
        assert (await client.get_image(asked)).image.fqin == "flyte:abc"
        assert "id.name" in await refused(client.get_image(payload_pb2.GetImageRequest()), Code.INVALID_ARGUMENT)


async def test_for_pods_no_image_is_built_and_the_answer_says_where_it_can_be(tmp_path: Path) -> None:
    async with running(tmp_path, pods=True) as manager, image_connect.ImageServiceClient(manager.url) as client:
        asked = payload_pb2.GetImageRequest(id=definition_pb2.ImageIdentifier(name="flyte:abc"))
        message = await refused(client.get_image(asked), Code.UNIMPLEMENTED)
        assert "'flyte:abc'" in message
        assert "--builder local" in message


async def test_everybody_is_the_one_who_started_the_manager(manager: Manager) -> None:
    async with identity_connect.IdentityServiceClient(manager.url) as client:
        told = await client.user_info(identity_pb2.UserInfoRequest())
    assert (told.subject, told.preferred_username, told.name) == ("ada", "ada", "Ada L.")
    assert all(os_user())


async def test_nobody_logs_in(manager: Manager) -> None:
    async with auth_service_connect.AuthMetadataServiceClient(manager.url) as client:
        assert await client.get_public_client_config(auth_service_pb2.GetPublicClientConfigRequest())
        call = client.get_o_auth2_metadata(auth_service_pb2.GetOAuth2MetadataRequest())
        assert "insecure" in await refused(call, Code.UNIMPLEMENTED)
