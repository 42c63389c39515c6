"""The messages of gRPC's own services, health and reflection, described here: their packages would bring grpcio along.

They live in a pool of their own, so that a program that imports those packages too has no quarrel with us.
"""

from typing import Any

from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
    ServiceDescriptorProto,
)
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

HEALTH = "grpc.health.v1"
REFLECTION = ("grpc.reflection.v1", "grpc.reflection.v1alpha")
POOL = DescriptorPool()
MESSAGE = FieldDescriptorProto.TYPE_MESSAGE
REPEATED, SINGLE = FieldDescriptorProto.LABEL_REPEATED, FieldDescriptorProto.LABEL_OPTIONAL
SCALARS = {
    "string": FieldDescriptorProto.TYPE_STRING,
    "bytes": FieldDescriptorProto.TYPE_BYTES,
    "int32": FieldDescriptorProto.TYPE_INT32,
}

Described = dict[str, Any]


def message_class(name: str) -> type[Message]:
    return GetMessageClass(POOL.FindMessageTypeByName(name))


def _field(number: int, name: str, kind: str, *, many: bool = False, oneof: bool = False) -> Described:
    """`kind`: a scalar in lower case, or `.package.Message`, or an enum as `enum .package.Enum`."""
    described: Described = {"name": name, "number": number, "label": REPEATED if many else SINGLE}
    if kind in SCALARS:
        described["type"] = SCALARS[kind]
    else:
        described["type_name"] = kind.removeprefix("enum ")
        described["type"] = FieldDescriptorProto.TYPE_ENUM if kind.startswith("enum ") else MESSAGE
    return described | ({"oneof_index": 0} if oneof else {})


def _message(name: str, *fields: Described, oneof: str = "", **more: Any) -> DescriptorProto:
    oneofs = [{"name": oneof}] if oneof else []
    return DescriptorProto(name=name, field=fields, oneof_decl=oneofs, **more)  # type: ignore[arg-type]


def _method(package: str, name: str, asked: str, answered: str, *, streams: tuple[bool, bool]) -> Described:
    return {
        "name": name,
        "input_type": f".{package}.{asked}",
        "output_type": f".{package}.{answered}",
        "client_streaming": streams[0],
        "server_streaming": streams[1],
    }


def _service(name: str, *methods: Described) -> ServiceDescriptorProto:
    return ServiceDescriptorProto(name=name, method=methods)  # type: ignore[arg-type]


def _health() -> FileDescriptorProto:
    one, state = f".{HEALTH}.HealthCheckResponse", f"enum .{HEALTH}.HealthCheckResponse.ServingStatus"
    names = ("UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN")
    states = {"name": "ServingStatus", "value": [{"name": name, "number": n} for n, name in enumerate(names)]}
    entry = _message("StatusesEntry", _field(1, "key", "string"), _field(2, "value", one), options={"map_entry": True})
    every = f".{HEALTH}.HealthListResponse.StatusesEntry"
    asked, answered = "HealthCheckRequest", "HealthCheckResponse"
    return FileDescriptorProto(
        name="grpc/health/v1/health.proto",
        package=HEALTH,
        syntax="proto3",
        message_type=[
            _message(asked, _field(1, "service", "string")),
            _message(answered, _field(1, "status", state), enum_type=[states]),
            _message("HealthListRequest"),
            _message("HealthListResponse", _field(1, "statuses", every, many=True), nested_type=[entry]),
        ],
        service=[
            _service(
                "Health",
                _method(HEALTH, "Check", asked, answered, streams=(False, False)),
                _method(HEALTH, "List", "HealthListRequest", "HealthListResponse", streams=(False, False)),
                _method(HEALTH, "Watch", asked, answered, streams=(False, True)),
            )
        ],
    )


def _reflection(package: str) -> FileDescriptorProto:
    asked, answered = "ServerReflectionRequest", "ServerReflectionResponse"

    def part(number: int, name: str, kind: str) -> Described:
        return _field(number, name, kind, oneof=True)

    return FileDescriptorProto(
        name=f"{package.replace('.', '/')}/reflection.proto",
        package=package,
        syntax="proto3",
        message_type=[
            _message(
                asked,
                _field(1, "host", "string"),
                part(3, "file_by_filename", "string"),
                part(4, "file_containing_symbol", "string"),
                part(5, "file_containing_extension", f".{package}.ExtensionRequest"),
                part(6, "all_extension_numbers_of_type", "string"),
                part(7, "list_services", "string"),
                oneof="message_request",
            ),
            _message(
                "ExtensionRequest", _field(1, "containing_type", "string"), _field(2, "extension_number", "int32")
            ),
            _message(
                answered,
                _field(1, "valid_host", "string"),
                _field(2, "original_request", f".{package}.{asked}"),
                part(4, "file_descriptor_response", f".{package}.FileDescriptorResponse"),
                part(5, "all_extension_numbers_response", f".{package}.ExtensionNumberResponse"),
                part(6, "list_services_response", f".{package}.ListServiceResponse"),
                part(7, "error_response", f".{package}.ErrorResponse"),
                oneof="message_response",
            ),
            _message("FileDescriptorResponse", _field(1, "file_descriptor_proto", "bytes", many=True)),
            _message(
                "ExtensionNumberResponse",
                _field(1, "base_type_name", "string"),
                _field(2, "extension_number", "int32", many=True),
            ),
            _message("ListServiceResponse", _field(1, "service", f".{package}.ServiceResponse", many=True)),
            _message("ServiceResponse", _field(1, "name", "string")),
            _message("ErrorResponse", _field(1, "error_code", "int32"), _field(2, "error_message", "string")),
        ],
        service=[
            _service(
                "ServerReflection", _method(package, "ServerReflectionInfo", asked, answered, streams=(True, True))
            )
        ],
    )


for _file in (_health(), *map(_reflection, REFLECTION)):
    POOL.Add(_file)
