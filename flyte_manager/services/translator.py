"""TranslatorService: inputs as JSON forms, for consoles."""

from collections.abc import Iterable

from flyteidl2.task import common_pb2
from flyteidl2.workflow import translator_service_connect
from flyteidl2.workflow import translator_service_pb2 as pb

from flyte_manager.domain.errors import Invalid, NotGiven, Unready
from flyte_manager.domain.features import TRIGGERS, NotYet
from flyte_manager.domain.ports import Blobs
from flyte_manager.ledger.watch import Reader
from flyte_manager.services.context import Context
from flyte_manager.wire import data, ids
from flyte_manager.wire.forms import form

LARGEST = 32 << 20
"""Bytes of a file of literals."""


class ForeignUri(Invalid):
    """literals_uri {uri!r} is neither the inputs nor the outputs of action {action}: GetActionDataURIs tells both."""


class LiteralsGone(Unready):
    """{uri} of action {action} is not in the store any more."""


class TranslatorService(translator_service_connect.TranslatorService):
    def __init__(self, reader: Reader, blobs: Blobs) -> None:
        self._reader = reader
        self._blobs = blobs

    async def literals_to_launch_form_json(
        self, request: pb.LiteralsToLaunchFormJsonRequest, _ctx: Context
    ) -> pb.LiteralsToLaunchFormJsonResponse:
        literals = await self._literals(request)
        return pb.LiteralsToLaunchFormJsonResponse(json=form.form_of_literals(literals, request.variables))

    async def launch_form_json_to_literals(
        self, request: pb.LaunchFormJsonToLiteralsRequest, _ctx: Context
    ) -> pb.LaunchFormJsonToLiteralsResponse:
        return pb.LaunchFormJsonToLiteralsResponse(literals=form.literals_of_form(request.json))

    async def task_spec_to_launch_form_json(
        self, request: pb.TaskSpecToLaunchFormJsonRequest, _ctx: Context
    ) -> pb.TaskSpecToLaunchFormJsonResponse:
        return pb.TaskSpecToLaunchFormJsonResponse(json=form.form_of_task(request.task_spec))

    async def json_values_to_literals(
        self, request: pb.JsonValuesToLiteralsRequest, _ctx: Context
    ) -> pb.JsonValuesToLiteralsResponse:
        if not request.HasField("values"):
            raise NotGiven(field="values")
        return pb.JsonValuesToLiteralsResponse(literals=form.literals_of_values(request.variables, request.values))

    async def _literals(self, request: pb.LiteralsToLaunchFormJsonRequest) -> Iterable[common_pb2.NamedLiteral]:
        """Those of the request, or those in one of the action's two files: no other file is read."""
        if request.WhichOneof("owner") == "trigger_id":
            raise NotYet("a form of a trigger's inputs", TRIGGERS)
        uri = request.literals_uri
        if not uri:
            return request.literals
        if not request.HasField("action_id"):
            raise NotGiven(field="action_id, the owner of literals_uri,")
        action = await self._reader.action(ids.action_id(request.action_id))
        if uri not in (data.inputs_file(action), data.outputs_file(action)):
            raise ForeignUri(uri=uri[:200], action=action.id)
        found = await self._blobs.read(uri, limit=LARGEST)
        if found is None:
            raise LiteralsGone(uri=uri, action=action.id)
        if uri == action.input_uri:
            return data.parse_inputs(found, uri).literals
        return data.parse_outputs(found, uri).literals
