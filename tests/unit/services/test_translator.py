"""TranslatorService: whose literals it reads. tests/unit/wire/test_forms.py has what it makes of them."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast

import pytest
from flyteidl2.common import identifier_pb2
from flyteidl2.core import interface_pb2, literals_pb2, types_pb2
from flyteidl2.task import common_pb2
from flyteidl2.workflow import translator_service_pb2 as pb
from google.protobuf import json_format

from flyte_manager.domain.errors import NotGiven, Refusal, UnknownAction
from flyte_manager.domain.features import NotYet
from flyte_manager.domain.phases import Phase
from flyte_manager.services.translator import ForeignUri, LiteralsGone, TranslatorService
from tests.unit.services.flows import Flows, flowing, named

NAMED = common_pb2.NamedLiteral(
    name="x", value=literals_pb2.Literal(scalar=literals_pb2.Scalar(primitive=literals_pb2.Primitive(integer=7)))
)
NUMBER = types_pb2.LiteralType(simple=types_pb2.SimpleType.INTEGER)
VARIABLES = interface_pb2.VariableMap(
    variables=[interface_pb2.VariableEntry(key="x", value=interface_pb2.Variable(type=NUMBER))]
)


@pytest.fixture
async def flows(tmp_path: Path) -> AsyncIterator[Flows]:
    async with flowing(tmp_path) as started:
        await started.create()
        yield started


async def form(flows: Flows, **fields: Any) -> dict[str, Any]:
    request = pb.LiteralsToLaunchFormJsonRequest(variables=VARIABLES, **fields)
    answer = await TranslatorService(flows.reader, flows.blobs).literals_to_launch_form_json(request, cast(Any, None))
    told = json_format.MessageToDict(answer.json)
    return {name: each["default"] for name, each in told["properties"].items()}


async def test_literals_come_with_the_request_or_from_the_files_of_an_action(flows: Flows) -> None:
    assert await form(flows, literals=[NAMED]) == {"x": 7}
    await flows.report(Phase.SUCCEEDED)
    root, owner = await flows.row(), named()
    await flows.blobs.write(root.input_uri, common_pb2.Inputs(literals=[NAMED]).SerializeToString())
    assert await form(flows, literals_uri=root.input_uri, action_id=owner) == {"x": 7}
    outputs = f"{root.output_uri}/outputs.pb"
    with pytest.raises(LiteralsGone, match=r"outputs\.pb"):
        await form(flows, literals_uri=outputs, action_id=owner)
    await flows.blobs.write(outputs, common_pb2.Outputs(literals=[NAMED]).SerializeToString())
    assert await form(flows, literals_uri=outputs, action_id=owner) == {"x": 7}


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"literals_uri": "/etc/passwd"}, NotGiven),
        ({"literals_uri": "/etc/passwd", "action_id": named()}, ForeignUri),
        ({"literals_uri": "/x", "action_id": named("nobody")}, UnknownAction),
        ({"trigger_id": identifier_pb2.TriggerIdentifier()}, NotYet),
    ],
)
async def test_no_other_file_is_read(flows: Flows, fields: dict[str, Any], error: type[Refusal]) -> None:
    with pytest.raises(error):
        await form(flows, **fields)
