"""SecretService. Values come in; what goes out is names, times and types."""

from flyteidl2.secret import payload_pb2 as pb
from flyteidl2.secret import secret_connect
from flyteidl2.secret import secret_pb2 as _service  # noqa: F401  # rpc looks up its descriptor

from flyte_manager.domain.catalog import SecretName
from flyte_manager.domain.errors import NotGiven
from flyte_manager.domain.filters import page
from flyte_manager.domain.ids import ProjectId
from flyte_manager.domain.ports import SecretKeeper
from flyte_manager.ledger.projects import Projects
from flyte_manager.services.context import Context
from flyte_manager.wire.secrets import secret_name, secret_proto, secret_scope, secret_value, secrets_proto


class SecretService(secret_connect.SecretService):
    def __init__(self, projects: Projects, keeper: SecretKeeper) -> None:
        self._projects = projects
        self._keeper = keeper

    async def create_secret(self, request: pb.CreateSecretRequest, _ctx: Context) -> pb.CreateSecretResponse:
        name, value, kind = _written(request)
        await self._admit(name)
        await self._keeper.create(name, value, kind=kind)
        return pb.CreateSecretResponse()

    async def update_secret(self, request: pb.UpdateSecretRequest, _ctx: Context) -> pb.UpdateSecretResponse:
        name, value, kind = _written(request)
        await self._keeper.update(name, value, kind=kind)
        return pb.UpdateSecretResponse()

    async def get_secret(self, request: pb.GetSecretRequest, _ctx: Context) -> pb.GetSecretResponse:
        found = await self._keeper.get(secret_name(request.id))
        return pb.GetSecretResponse(secret=secret_proto(found))

    async def delete_secret(self, request: pb.DeleteSecretRequest, _ctx: Context) -> pb.DeleteSecretResponse:
        await self._keeper.delete(secret_name(request.id))
        return pb.DeleteSecretResponse()

    async def list_secrets(self, request: pb.ListSecretsRequest, _ctx: Context) -> pb.ListSecretsResponse:
        scope = secret_scope(request.project, request.domain)
        limit, offset = page(request.limit, request.token)
        if scope.domain:
            self._projects.check_domain(scope.domain)
        if scope.project:
            await self._projects.check_read(ProjectId(scope.project, scope.domain))
        found = await self._keeper.page(scope, limit=limit, offset=offset)
        return secrets_proto(found, limit=limit, offset=offset)

    async def _admit(self, name: SecretName) -> None:
        if name.domain:
            self._projects.check_domain(name.domain)
        if name.project:
            await self._projects.admit_write(ProjectId(name.project, name.domain, name.org))


def _written(request: pb.CreateSecretRequest | pb.UpdateSecretRequest) -> tuple[SecretName, bytes, int]:
    """Name, value and type that the request brings."""
    if not request.HasField("secret_spec"):
        raise NotGiven(field="secret_spec")
    return secret_name(request.id), secret_value(request.secret_spec), request.secret_spec.type
