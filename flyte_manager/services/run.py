"""RunService: runs and their actions, made, shown, followed and ended."""

from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import replace
from functools import partial

from flyteidl2.dataproxy import dataproxy_service_pb2
from flyteidl2.workflow import run_definition_pb2, run_service_connect
from flyteidl2.workflow import run_service_pb2 as pb

from flyte_manager.domain.actions import ActionHistory, Run
from flyte_manager.domain.errors import Missing, NotGiven, Unready
from flyte_manager.domain.features import TRIGGERS, NotYet
from flyte_manager.domain.ids import ROOT, ActionId, ProjectId, check_scope, check_task
from flyte_manager.domain.phases import Kind
from flyte_manager.domain.shown import ShownRun
from flyte_manager.ledger.ledger import Ledger, NotACondition
from flyte_manager.ledger.projects import Projects
from flyte_manager.ledger.watch import Reader
from flyte_manager.services.aborting import reason_of
from flyte_manager.services.callers import Callers
from flyte_manager.services.context import Context
from flyte_manager.services.dataproxy import DataProxyService
from flyte_manager.services.latest import Latest
from flyte_manager.services.run_orders import RunOrders
from flyte_manager.store.run_lists import Scope
from flyte_manager.wire import groups, ids, listing, runs
from flyte_manager.wire.conditions import answer
from flyte_manager.wire.data import inputs_file, outputs_file
from flyte_manager.wire.enriched import Enriched
from flyte_manager.wire.runs import BARE, Platform
from flyte_manager.wire.times import timestamp


class NoLogYet(Unready):
    """attempt {attempt} has no log: it is {phase} and did not start. WatchActionDetails tells when logs_available."""


class UnknownCluster(Missing):
    """cluster {name!r} is not here: {known}; watch by project instead."""


class RunService(run_service_connect.RunService):
    def __init__(
        self,
        *,
        reader: Reader,
        ledger: Ledger,
        projects: Projects,
        orders: RunOrders,
        data: DataProxyService,
        callers: Callers,
        platform: Platform = BARE,
    ) -> None:
        self._reader = reader
        self._projects = projects
        self._ledger = ledger
        self._orders = orders
        self._data = data
        self._callers = callers
        self._platform = platform
        self._runs_seen = Latest[pb.WatchRunDetailsResponse]()
        self._actions_seen = Latest[pb.WatchActionDetailsResponse]()

    async def create_run(self, request: pb.CreateRunRequest, ctx: Context) -> pb.CreateRunResponse:
        order = await self._orders.order(request, ctx.request_headers().get("x-request-id", ""))
        caller = self._callers.caller(ctx)
        order = replace(order, created_by=caller.identity, created_by_subject=caller.subject)
        run, root = await self._ledger.create_run(order)
        response = pb.CreateRunResponse()
        runs.show_run(ShownRun.of(run, root), response.run)
        return response

    async def get_run_details(self, request: pb.GetRunDetailsRequest, _ctx: Context) -> pb.GetRunDetailsResponse:
        run, root = await self._reader.run_history(ids.run_id(request.run_id))
        return pb.GetRunDetailsResponse(details=runs.run_details(run, root, self._platform))

    async def watch_run_details(
        self, request: pb.WatchRunDetailsRequest, _ctx: Context
    ) -> AsyncIterator[pb.WatchRunDetailsResponse]:
        run = await self._reader.run(ids.run_id(request.run_id))
        async for root in self._reader.follow_action(ActionId(run.id, ROOT)):
            yield self._runs_seen.of(root, partial(self._run_seen, run, root))

    async def get_action_details(
        self, request: pb.GetActionDetailsRequest, _ctx: Context
    ) -> pb.GetActionDetailsResponse:
        return pb.GetActionDetailsResponse(details=await self._details(ids.action_id(request.action_id)))

    async def watch_action_details(
        self, request: pb.WatchActionDetailsRequest, _ctx: Context
    ) -> AsyncIterator[pb.WatchActionDetailsResponse]:
        action = ids.action_id(request.action_id)
        run = await self._reader.run(action.run) if action.name == ROOT else None
        async for seen in self._reader.follow_action(action):
            yield self._actions_seen.of(seen, partial(self._action_seen, run, seen))

    async def get_action_data(self, request: pb.GetActionDataRequest, ctx: Context) -> pb.GetActionDataResponse:
        asked = dataproxy_service_pb2.GetActionDataRequest(action_id=request.action_id)
        found = await self._data.get_action_data(asked, ctx)
        return pb.GetActionDataResponse(inputs=found.inputs, outputs=found.outputs)

    async def get_action_data_u_r_is(
        self, request: pb.GetActionDataURIsRequest, _ctx: Context
    ) -> pb.GetActionDataURIsResponse:
        action = await self._reader.action(ids.action_id(request.action_id))
        return pb.GetActionDataURIsResponse(inputs_uri=inputs_file(action), outputs_uri=outputs_file(action))

    async def list_runs(self, request: pb.ListRunsRequest, _ctx: Context) -> pb.ListRunsResponse:
        query = listing.query(request.request)
        scope = _scope(request)
        if scope.project:
            await self._projects.check_read(scope.project)
        found, token = await self._reader.runs(scope, query)
        response = pb.ListRunsResponse(token=token)
        for each in found:
            runs.show_run(each, response.runs.add())
        return response

    async def watch_runs(self, request: pb.WatchRunsRequest, _ctx: Context) -> AsyncIterator[pb.WatchRunsResponse]:
        scope = self._target(request)
        if scope.project:
            await self._projects.check_read(scope.project)
        async with aclosing(self._reader.follow_runs(scope)) as pages:
            async for page in pages:
                response = pb.WatchRunsResponse()
                for each in page:
                    runs.show_run(each, response.runs.add())
                yield response

    async def watch_groups(
        self, request: pb.WatchGroupsRequest, _ctx: Context
    ) -> AsyncIterator[pb.WatchGroupsResponse]:
        span, order = groups.span(request), groups.order(request)
        await self._projects.check_read(span.project)
        first = True
        async with aclosing(self._reader.follow_groups(span)) as news:
            async for found, gone in news:
                yield groups.response(found, sorted(gone), order, first=first)
                first = False

    async def list_actions(self, request: pb.ListActionsRequest, _ctx: Context) -> pb.ListActionsResponse:
        query = listing.query(request.request)
        run, found, token = await self._reader.actions(ids.run_id(request.run_id), query)
        response = pb.ListActionsResponse(token=token)
        for each in found:
            runs.show_action(each, response.actions.add(), run=run if each.is_root else None)
        return response

    async def watch_actions(
        self, request: pb.WatchActionsRequest, _ctx: Context
    ) -> AsyncIterator[pb.WatchActionsResponse]:
        run = ids.run_id(request.run_id)
        enriched = Enriched(request.filter, await self._reader.run(run))
        async for page in self._reader.follow_run(run):
            if page:
                yield enriched.take(page)

    async def abort_run(self, request: pb.AbortRunRequest, ctx: Context) -> pb.AbortRunResponse:
        await self._ledger.abort_run(ids.run_id(request.run_id), reason_of(request), by=self._callers.by(ctx))
        return pb.AbortRunResponse()

    async def abort_action(self, request: pb.AbortActionRequest, ctx: Context) -> pb.AbortActionResponse:
        await self._ledger.abort_action(ids.action_id(request.action_id), reason_of(request), by=self._callers.by(ctx))
        return pb.AbortActionResponse()

    async def signal_event(self, request: pb.SignalEventRequest, ctx: Context) -> pb.SignalEventResponse:
        action = await self._reader.action(ids.action_id(request.action_id))
        if action.kind is not Kind.CONDITION:
            raise NotACondition(name=action.id.name)
        condition = run_definition_pb2.ConditionAction.FromString(action.spec)
        await self._ledger.signal(action.id, answer(condition, request.payload), by=self._callers.by(ctx))
        return pb.SignalEventResponse()

    async def get_action_log_context(
        self, request: pb.GetActionLogContextRequest, _ctx: Context
    ) -> pb.GetActionLogContextResponse:
        attempt = await self._reader.attempt(ids.action_id(request.action_id), request.attempt)
        shown = runs.attempt(attempt, (), self._platform)
        if not shown.HasField("log_context"):
            raise NoLogYet(attempt=attempt.id, phase=attempt.phase.name)
        response = pb.GetActionLogContextResponse(log_context=shown.log_context, cluster=shown.cluster)
        if attempt.started_at:
            response.start_time.CopyFrom(timestamp(attempt.started_at))
        if attempt.ended_at:
            response.end_time.CopyFrom(timestamp(attempt.ended_at))
        return response

    async def watch_cluster_events(
        self, request: pb.WatchClusterEventsRequest, _ctx: Context
    ) -> AsyncIterator[pb.WatchClusterEventsResponse]:
        async for events in self._reader.follow_events(ids.action_id(request.id), request.attempt):
            yield pb.WatchClusterEventsResponse(cluster_events=[runs.cluster_event(each) for each in events])

    def _target(self, request: pb.WatchRunsRequest) -> Scope:
        """The runs that the watch is about. Raises NotGiven, IllegalName, UnknownDomain, UnknownCluster."""
        match request.WhichOneof("target"):
            case "project_id":
                return Scope(ids.project_id(request.project_id))
            case "task_id":
                name = ids.task_name(request.task_id)
                return Scope(_project(name.project, name.domain), name.name, name.version)
            case "cluster_id":
                if request.cluster_id.name != self._platform.cluster:
                    ours = self._platform.cluster
                    known = f"all runs of this manager are on cluster {ours!r}" if ours else "there is no cluster"
                    raise UnknownCluster(name=request.cluster_id.name[:80], known=known)
                return Scope()
            case "org":
                return Scope(org=request.org)
            case _:
                raise NotGiven(field="target (org, cluster_id, project_id or task_id)")

    def _run_seen(self, run: Run, root: ActionHistory) -> pb.WatchRunDetailsResponse:
        return pb.WatchRunDetailsResponse(details=runs.run_details(run, root, self._platform))

    def _action_seen(self, run: Run | None, seen: ActionHistory) -> pb.WatchActionDetailsResponse:
        return pb.WatchActionDetailsResponse(details=runs.action_details(seen, run=run, platform=self._platform))

    async def _details(self, action: ActionId) -> run_definition_pb2.ActionDetails:
        run = await self._reader.run(action.run) if action.name == ROOT else None
        return runs.action_details(await self._reader.history(action), run=run, platform=self._platform)


def _scope(request: pb.ListRunsRequest) -> Scope:
    paused = request.paused_actions_only
    match request.WhichOneof("scope_by"):
        case "project_id":
            return Scope(ids.project_id(request.project_id), paused=paused)
        case "task_name":
            task = request.task_name
            check_task("task name", task.name)
            return Scope(_project(task.project, task.domain), task.name, paused=paused)
        case "task_id":
            name = ids.task_name(request.task_id)
            return Scope(_project(name.project, name.domain), name.name, name.version, paused)
        case "trigger_name":
            raise NotYet("a list of runs by trigger", TRIGGERS)
        case "org":
            return Scope(paused=paused, org=request.org)
        case _:
            return Scope(paused=paused)


def _project(project: str, domain: str) -> ProjectId:
    check_scope(project, domain)
    return ProjectId(project, domain)
