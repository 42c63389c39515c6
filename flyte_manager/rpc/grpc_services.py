"""What a gRPC client expects of any server: health and reflection."""

from collections.abc import Sequence

from flyte_manager.rpc.edge import ConnectApp, DescribedApplication, Edge, connect_app
from flyte_manager.rpc.grpc_health import Health
from flyte_manager.rpc.grpc_protos import REFLECTION
from flyte_manager.rpc.reflection import Reflection
from flyte_manager.rpc.routes import Ready


def with_grpc_services(services: Sequence[ConnectApp], *, ready: Ready, edge: Edge) -> Sequence[ConnectApp]:
    """The services, health and reflection; the latter two know the names of all."""
    names = [service.service for service in services]
    own = [Health.name, *(f"{package}.ServerReflection" for package in REFLECTION)]
    health = Health(ready, names)
    reflections = [Reflection(package, [*names, *own]) for package in REFLECTION]
    return [*services, *(connect_app(DescribedApplication, each, edge=edge) for each in (health, *reflections))]
