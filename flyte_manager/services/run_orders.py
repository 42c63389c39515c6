"""What CreateRun asks for, made complete: task, name, inputs, base. The decision itself is `ledger.create_run`."""

import hashlib
import itertools
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import cast

from flyteidl2.common import run_pb2 as common_run_pb2
from flyteidl2.task import run_pb2, task_definition_pb2
from flyteidl2.workflow import run_service_pb2 as pb

from flyte_manager.domain.errors import BundleGone, Invalid, NotGiven, RunDiffers, UnknownRun, UnknownTask, Unsupported
from flyte_manager.domain.features import CONCURRENCY, QUEUES, RECOVER, TRIGGERS, NotYet
from flyte_manager.domain.ids import ProjectId, RunId
from flyte_manager.domain.orders import NewRun
from flyte_manager.domain.ports import Blobs
from flyte_manager.domain.tasks import World
from flyte_manager.ledger.projects import Projects
from flyte_manager.ledger.watch import Reader
from flyte_manager.wire import ids
from flyte_manager.wire.caching import call_key
from flyte_manager.wire.data import completed, content, inputs_hash
from flyte_manager.wire.deployed import version_name
from flyte_manager.wire.orders import spec_digest
from flyte_manager.wire.plan import check_spec, check_variables, parse_spec, plan, run_settings, summary

_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"
NAME_LENGTH = 19


class CannotRun(Unsupported):
    """{why}"""


class UnknownRelation(Invalid):
    """run_spec.relation.relation_type {number} is not known: use one of flyteidl2.common.RelationType."""


class BaseOutside(Invalid):
    """run_base_dir {given!r} lies outside this manager's store: leave it out, or choose a folder below {store}"""


class BundleElsewhere(Invalid):
    """the code bundle {uri} lies outside this manager's store. The SDK remembers for a day where it put code, also
    when the manager has got a new database since then: run `flyte delete local-cache`, then run again."""


class InputsGone(Invalid):
    """the inputs {uri} are not in this manager's store: send them with DataProxyService.UploadInputs first"""


@dataclass(frozen=True, slots=True)
class RunOrders:
    """Makes a NewRun of a CreateRunRequest."""

    reader: Reader
    projects: Projects
    blobs: Blobs
    world: World

    async def order(self, request: pb.CreateRunRequest, request_id: str) -> NewRun:
        """`request_id` is the client's x-request-id, the same in each retry; "" when it sent none. Raises refusals that
        name what is missing, unknown or not supported. When nothing is left to refuse, it makes the project if need be
        and writes the inputs of a request that brings them along."""
        scope = ids.scope_of(request, field="id (run_id or project_id)")
        relation = _relation(request.run_spec.relation.relation_type)
        run_spec = _run_spec(request).SerializeToString(deterministic=True)
        run_settings(run_spec)
        spec = await self._task(request)
        task_plan = plan(spec, self.world)
        if task_plan.unsupported:
            raise CannotRun(why=task_plan.unsupported)
        await self._check_bundle(task_plan.args)
        run = _run_id(request, scope, request_id)
        base = await self._base(request.run_spec, run)
        hashed, input_uri, inputs = await self._inputs(request, spec, base)
        digest, spec_content = spec_digest(spec)
        task = summary(spec)
        if request.HasField("task_id"):  # the name that it was deployed under, whatever its spec calls it
            task = replace(task, name=version_name(request.task_id))
        order = NewRun(
            id=run,
            task=task,
            spec=spec_content,
            spec_digest=digest,
            digest=hashlib.sha256(f"{digest}\n{hashed}".encode()).hexdigest(),
            input_uri=input_uri,
            base_uri=base,
            run_spec=run_spec,
            cache_key=await self._cache_key(spec, input_uri, inputs),
            source=request.source,
            relation=relation,
            related_to=request.run_spec.relation.related_to.name,
            labels=dict(request.run_spec.labels.values),
        )
        if inputs is not None:
            await self._check_same(order)
        await self.projects.admit_write(scope)
        if inputs is not None:
            await self.blobs.write(input_uri, inputs)
        return order

    async def _cache_key(self, spec: task_definition_pb2.TaskSpec, uri: str, inputs: bytes | None) -> str:
        """Not of the hash that the request brings: the inputs' context is in it, which counts for no call."""
        if not spec.task_template.metadata.discoverable:
            return ""
        return call_key(spec, await self.blobs.read(uri) or b"" if inputs is None else inputs)

    async def _check_same(self, order: NewRun) -> None:
        """The ledger decides; this look beforehand keeps the inputs of a refused run out of the store."""
        try:
            found = await self.reader.run(order.id)
        except UnknownRun:
            return
        if found.digest != order.digest:
            raise RunDiffers(name=order.id.name)

    async def _task(self, request: pb.CreateRunRequest) -> task_definition_pb2.TaskSpec:
        match request.WhichOneof("task"):
            case "task_spec":
                check_spec(request.task_spec)
                return request.task_spec
            case "task_id":
                name = version_name(request.task_id)
                found = await self.reader.deployed(name)
                if found is None:
                    raise UnknownTask(name=name.name, version=name.version, project=name.project, domain=name.domain)
                return parse_spec(await self.reader.spec(found.spec_digest))
            case "trigger_name":
                raise NotYet("a run by trigger", TRIGGERS)
            case _:
                raise NotGiven(field="task (task_spec or task_id)")

    async def _check_bundle(self, args: Sequence[str]) -> None:
        """The SDK remembers for a day where it put the code; the store may have been emptied or replaced meanwhile."""
        for option, uri in itertools.pairwise(args):
            if option not in ("--tgz", "--pkl"):
                continue
            try:
                here = await self.blobs.exists(uri)
            except Invalid as refusal:
                raise BundleElsewhere(uri=uri) from refusal
            if not here:
                raise BundleGone(uri=uri)

    async def _base(self, run_spec: run_pb2.RunSpec, run: RunId) -> str:
        given = run_spec.run_base_dir.rstrip("/")
        store = self.blobs.join(run.project, run.domain)
        if not given:
            return f"{store}/{run.name}"
        try:
            await self.blobs.exists(f"{given}/inputs.pb")
        except Invalid:
            raise BaseOutside(given=given, store=store) from None
        return f"{given}/{run.project}/{run.domain}/{run.name}"  # two runs with one base must not meet, as upstream

    async def _inputs(
        self, request: pb.CreateRunRequest, spec: task_definition_pb2.TaskSpec, base: str
    ) -> tuple[str, str, bytes | None]:
        """Hash and uri of the inputs, and what must be written there: the inputs that the request itself brings."""
        if request.WhichOneof("input_wrapper") == "offloaded_input_data":
            data = request.offloaded_input_data
            if not data.uri:
                raise NotGiven(field="offloaded_input_data.uri")
            if not await self.blobs.exists(data.uri):
                raise InputsGone(uri=data.uri)
            return data.inputs_hash or data.uri, data.uri, None
        inputs = completed(request.inputs, spec)
        hashed = inputs_hash(inputs, spec)
        # the folder carries the hash: a request with other inputs for the same name must not overwrite these
        uri = f"{base}/inputs/{hashlib.sha256(hashed.encode()).hexdigest()[:16]}/inputs.pb"
        return hashed, uri, content(inputs)


def _relation(number: int) -> str:
    """Its name in rows. Raises UnknownRelation, NotYet."""
    if number == common_run_pb2.RELATION_TYPE_RECOVER:
        raise NotYet("a run that goes on where another failed", RECOVER)
    if number not in common_run_pb2.RelationType.values():
        raise UnknownRelation(number=number)
    return common_run_pb2.RelationType.Name(cast(common_run_pb2.RelationType, number))


def _run_spec(request: pb.CreateRunRequest) -> run_pb2.RunSpec:
    """The run spec, with the request's own start time where the spec has none. Raises NotYet, BadVariable."""
    if request.run_spec.HasField("recover"):
        raise NotYet("a run that takes over what another has finished", RECOVER)
    if request.run_spec.queue:
        raise NotYet(f"a run in queue {request.run_spec.queue[:80]!r}", QUEUES)
    if request.run_spec.max_action_concurrency:
        raise NotYet(f"a run of at most {request.run_spec.max_action_concurrency} actions at once", CONCURRENCY)
    check_variables(request.run_spec.envs.values)
    spec = run_pb2.RunSpec()
    spec.CopyFrom(request.run_spec)
    if request.HasField("run_start_time") and not spec.HasField("run_start_time"):
        spec.run_start_time.CopyFrom(request.run_start_time)
    return spec


def _run_id(request: pb.CreateRunRequest, scope: ProjectId, request_id: str) -> RunId:
    """The name given; else one derived from the request, so that its retries find the same run (DESIGN.md §4.4)."""
    if request.WhichOneof("id") == "run_id":
        return ids.run_id(request.run_id)
    if request_id:
        content = request.SerializeToString(deterministic=True)
        number = int.from_bytes(hashlib.sha256(request_id.encode() + b"\n" + content).digest())
    else:
        number = secrets.randbits(128)
    letters = []
    for _ in range(NAME_LENGTH):
        number, rest = divmod(number, len(_ALPHABET))
        letters.append(_ALPHABET[rest])
    return RunId(scope.project, scope.domain, "r" + "".join(letters), scope.org)
