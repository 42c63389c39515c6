"""gRPC's server reflection, by which grpcurl and its like learn what is served and how its messages look.

v1 and v1alpha are the same protocol under two names. A file is sent with all that it imports, each once a stream.
"""

from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from typing import Any, TypeVar

from connectrpc.method import IdempotencyLevel, MethodInfo
from connectrpc.server import Endpoint
from google.protobuf import descriptor_pool
from google.protobuf.descriptor import FileDescriptor
from google.protobuf.descriptor_pool import DescriptorPool

from flyte_manager.rpc.grpc_protos import POOL, message_class

NOT_FOUND, UNIMPLEMENTED = 5, 12

Found = TypeVar("Found")


class Reflection:
    """One of the two versions; `package` is its name, `services` the names of all that are served."""

    def __init__(self, package: str, services: Iterable[str]) -> None:
        self.name = f"{package}.ServerReflection"
        self._services = sorted(services)
        self._pools = (descriptor_pool.Default(), POOL)
        self._request = message_class(f"{package}.ServerReflectionRequest")
        self._response = message_class(f"{package}.ServerReflectionResponse")

    def endpoints(self) -> Mapping[str, Any]:
        name = "ServerReflectionInfo"
        method = MethodInfo(
            name=name,
            service_name=self.name,
            input=self._request,
            output=self._response,
            idempotency_level=IdempotencyLevel.UNKNOWN,
        )
        return {f"/{self.name}/{name}": Endpoint.bidi_stream(method, self.info)}

    async def info(self, requests: AsyncIterator[Any], _ctx: Any) -> AsyncIterator[Any]:
        sent: set[str] = set()
        async for request in requests:
            try:
                told = self._told(request, sent)
            except KeyError as error:
                told = _error(NOT_FOUND, str(error.args[0]))
            yield self._response(valid_host=request.host, original_request=request, **told)

    def _told(self, request: Any, sent: set[str]) -> dict[str, Any]:
        match request.WhichOneof("message_request"):
            case "list_services":
                return {"list_services_response": {"service": [{"name": name} for name in self._services]}}
            case "file_by_filename":
                return _files(self._find(lambda pool: pool.FindFileByName(request.file_by_filename)), sent)
            case "file_containing_symbol":
                return _files(self._find(lambda pool: _file_of(pool, request.file_containing_symbol)), sent)
            case "file_containing_extension":
                return _files(self._find(lambda pool: _file_extending(pool, request.file_containing_extension)), sent)
            case "all_extension_numbers_of_type":
                name = request.all_extension_numbers_of_type
                numbers = self._find(
                    lambda pool: [each.number for each in pool.FindAllExtensions(pool.FindMessageTypeByName(name))]
                )
                answer = {"base_type_name": name, "extension_number": sorted(numbers)}
                return {"all_extension_numbers_response": answer}
            case _:
                return _error(UNIMPLEMENTED, "the request asks for nothing that this server knows")

    def _find(self, lookup: Callable[[DescriptorPool], Found]) -> Found:
        """What the first pool that has it answers. Raises KeyError."""
        try:
            return lookup(self._pools[0])
        except KeyError:
            return lookup(self._pools[1])


def _file_of(pool: DescriptorPool, symbol: str) -> FileDescriptor:
    try:
        return pool.FindFileContainingSymbol(symbol)
    except KeyError:  # a pool does not find methods by their names
        service, _, method = symbol.rpartition(".")
        found = pool.FindServiceByName(service)
        if method not in found.methods_by_name:
            raise
        return found.file


def _file_extending(pool: DescriptorPool, wanted: Any) -> FileDescriptor:
    extended = pool.FindMessageTypeByName(wanted.containing_type)
    found: Any = pool.FindExtensionByNumber(extended, wanted.extension_number)
    file: FileDescriptor = found.file
    return file


def _files(file: FileDescriptor, sent: set[str]) -> dict[str, Any]:
    found = [each.serialized_pb for each in _with_imports(file) if each.name not in sent or each is file]
    sent.update(each.name for each in _with_imports(file))
    return {"file_descriptor_response": {"file_descriptor_proto": found}}


def _with_imports(file: FileDescriptor) -> Iterator[FileDescriptor]:
    """The file first, then each file that it needs, once."""
    seen: dict[str, FileDescriptor] = {}
    waiting = [file]
    while waiting:
        each = waiting.pop()
        if each.name not in seen:
            seen[each.name] = each
            waiting.extend(each.dependencies)
    return iter(seen.values())


def _error(code: int, message: str) -> dict[str, Any]:
    return {"error_response": {"error_code": code, "error_message": message}}
