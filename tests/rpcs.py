"""Every RPC of flyteidl2 and whether it is served: as the application itself routes it.

`python -m tests.rpcs` (`make docs`) writes the tables of docs/rpc.md anew.
"""

import asyncio
import importlib
import pkgutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from unittest.mock import MagicMock

import flyteidl2
from google.protobuf.descriptor import MethodDescriptor

from flyte_manager import app
from flyte_manager.domain import features
from flyte_manager.domain.features import Feature, NotYet
from flyte_manager.rpc.edge import Edge
from flyte_manager.rpc.not_served import NOT_SERVED, feature_of

DOCUMENT = Path(__file__).parents[1] / "docs" / "rpc.md"
BEGIN, END = "<!-- made by `make docs` -->\n", "<!-- end of what `make docs` makes -->\n"


def every_method() -> Mapping[str, MethodDescriptor]:
    """By `package.Service/Method`, in the order of packages and protos."""
    return {f"{each.containing_service.full_name}/{each.name}": each for each in _methods()}


def _methods() -> Iterator[MethodDescriptor]:
    names = [module.name for module in pkgutil.walk_packages(flyteidl2.__path__, "flyteidl2.")]
    files = [importlib.import_module(name).DESCRIPTOR for name in names if name.endswith("_pb2")]
    services = [service for file in files for service in file.services_by_name.values()]
    for service in sorted(services, key=lambda service: str(service.full_name)):
        yield from service.methods


def served() -> frozenset[str]:
    """What the application routes to a service of ours. The services are built and not called."""
    services = app._services(MagicMock(), MagicMock(), Edge(stopping=asyncio.Event()), MagicMock())
    return frozenset(f"{each.service}/{method}" for each in services for method in each.methods)


def tables() -> str:
    here = served()
    lines = ["## RPCs", "", "| RPC | kind | state |", "|---|---|---|"]
    for name, method in every_method().items():
        lines.append(f"| `{name}` | {_kind(method)} | {_state(name, here)} |")
    sentence = NotYet("(the RPC)", Feature("(the feature)", "(what the table says)"))
    lines += ["", "## Not yet", "", f'The sentence: "{sentence}"', ""]
    lines += ["| feature | RPCs that are not served | what else is refused | instead |"]
    lines.append("|---|---|---|---|")
    for feature in sorted(_features(), key=lambda feature: feature.name):
        names = [f"`{name.removeprefix('flyteidl2.')}`" for name, of in NOT_SERVED.items() if of == feature]
        lines.append(f"| {feature.name} | {', '.join(names)} | {feature.also} | {feature.instead} |")
    return "\n".join(lines) + "\n"


def _state(name: str, here: frozenset[str]) -> str:
    feature = feature_of(*name.split("/"))
    assert (name in here) == (feature is None), f"{name}: either served or in rpc/not_served.py"
    return f"not yet: {feature.name}" if feature else "served"


def _features() -> set[Feature]:
    return {each for each in vars(features).values() if isinstance(each, Feature)} | set(NOT_SERVED.values())


def _kind(method: MethodDescriptor) -> str:
    match method.client_streaming, method.server_streaming:
        case False, False:
            return "unary"
        case False, True:
            return "stream"
        case True, False:
            return "client stream"
        case _:
            return "stream both ways"


def document(text: str) -> str:
    """The document with its tables as they must be."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return before + BEGIN + "\n" + tables() + "\n" + END + after


if __name__ == "__main__":
    DOCUMENT.write_text(document(DOCUMENT.read_text()))
