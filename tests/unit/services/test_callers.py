"""Who made a run, deployed a task, answered a condition: by whom the manager takes a caller to be."""

import base64
import json
from pathlib import Path

import pytest
from flyteidl2.actions import actions_service_pb2
from flyteidl2.auth import identity_connect, identity_pb2
from flyteidl2.common import list_pb2
from flyteidl2.common.identity_pb2 import EnrichedIdentity
from flyteidl2.task import task_definition_pb2, task_service_connect, task_service_pb2
from flyteidl2.workflow import run_definition_pb2
from flyteidl2.workflow import run_service_pb2 as pb

from flyte_manager.domain.identities import Identity, IdentityHeaders
from flyte_manager.domain.phases import Phase
from flyte_manager.wire.identities import told
from flyte_manager.wire.ids import run_proto
from tests.fakes.orders import run_id, task_spec
from tests.unit.services.flows import flowing, named
from tests.unit.services.running import UNTRUSTED, running

TRUSTED = IdentityHeaders(trusted=True, email="X-Auth-Request-Email")
GRACE = {"x-amzn-oidc-identity": "grace", "x-auth-request-email": "grace@example.org"}


def token(claims: object, *, padded: bool = False) -> str:
    part = base64.urlsafe_b64encode(json.dumps(claims).encode()).decode()
    return f"e30.{part if padded else part.rstrip('=')}.signature"


CLAIMS = {
    "sub": "1",
    "name": "A B",
    "given_name": "A",
    "family_name": "B",
    "email": "a@b.c",
    "preferred_username": "ab",
}
KNOWN = Identity("1", "A B", "A", "B", "a@b.c", "ab")


@pytest.mark.parametrize(
    ("headers", "identity"),
    [
        ({"X-Amzn-Oidc-Data": token(CLAIMS)}, KNOWN),
        ({"X-Amzn-Oidc-Data": token({**CLAIMS, "x": "?" * 10}, padded=True)}, KNOWN),
        ({"X-Amzn-Oidc-Data": token(CLAIMS), "X-Amzn-Oidc-Identity": "2"}, KNOWN),
        ({"X-Amzn-Oidc-Data": "garbage", "X-Amzn-Oidc-Identity": " 2 "}, Identity("2")),
        ({"X-Amzn-Oidc-Identity": "2", "X-Auth-Request-Email": "e@f"}, Identity("2", email="e@f")),
        ({"X-Auth-Request-Email": "e@f"}, None),
        ({"authorization": f"bearer {token(CLAIMS)}"}, KNOWN),
        ({"authorization": f"Basic {token(CLAIMS)}"}, None),
        ({"authorization": "Bearer ey.!.x"}, None),
        ({"authorization": f"Bearer {token({'email': 'nobody'})}"}, None),
        ({"authorization": f"Bearer {token(['sub'])}"}, None),
        ({"authorization": f"Bearer {token({'sub': 5})}"}, None),
        ({"authorization": f"Bearer {token({'sub': chr(0xD800) + 'x' * 300})}"}, Identity("x" * 256)),
        ({"authorization": "Bearer"}, None),
        ({"authorization": "Bearer a.b"}, None),
        ({"authorization": "Bearer a.é.c"}, None),
        ({"authorization": f"Bearer e30.{'W1tb' * 50_000}.x"}, None),
        ({"X-Amzn-Oidc-Identity": chr(27) + "[2J"}, Identity("[2J")),
        ({}, None),
    ],
)
def test_headers_tell_who_calls_in_upstreams_order(headers: dict[str, str], identity: Identity | None) -> None:
    assert told(lambda name: headers.get(name, ""), TRUSTED) == identity


def test_a_header_without_a_name_is_not_read() -> None:
    nameless = IdentityHeaders(trusted=True, claims="", subject="", email="")
    assert told(lambda name: "x" if name != "authorization" else "", nameless) is None


async def test_headers_that_are_not_trusted_make_nobody_else_of_a_caller(tmp_path: Path) -> None:
    async with flowing(tmp_path) as flows:
        made = await flows.runs.create_run(flows.creation(), headers=GRACE)
        user = made.run.action.metadata.executed_by.user
        assert (user.id.subject, user.spec.first_name, user.spec.user_handle) == ("ada", "Ada L.", "ada")


async def test_a_run_tells_who_made_it_and_is_found_by_that(tmp_path: Path) -> None:
    async with flowing(tmp_path, headers=TRUSTED) as flows:
        for name, headers in (("r1", GRACE), ("r2", None), ("r3", {"x-amzn-oidc-identity": "alan"})):
            await flows.runs.create_run(flows.creation(name), headers=headers)
        await flows.runs.create_run(flows.creation("r1"), headers={"x-amzn-oidc-identity": "alan"})

        async def details(name: str) -> run_definition_pb2.ActionMetadata:
            found = await flows.runs.get_run_details(pb.GetRunDetailsRequest(run_id=run_proto(run_id(name))))
            return found.details.action.metadata

        shown = (await details("r1")).executed_by.user
        assert (shown.id.subject, shown.spec.email) == ("grace", "grace@example.org")
        assert not (await details("r2")).HasField("executed_by")
        by_grace = list_pb2.Filter(field="created_by_subject", values=["grace"])
        found = await flows.runs.list_runs(pb.ListRunsRequest(request=list_pb2.ListRequest(filters=[by_grace])))
        (run,) = found.runs
        assert run.action.metadata.executed_by.user == shown
        actions = await flows.runs.list_actions(pb.ListActionsRequest(run_id=run_proto(run_id("r1"))))
        assert actions.actions[0].metadata.executed_by.user == shown
        async for page in flows.runs.watch_actions(pb.WatchActionsRequest(run_id=run_proto(run_id("r1")))):
            assert page.enriched_actions[0].action.metadata.executed_by.user == shown
            break


@pytest.mark.parametrize("door", ["RunService", "ActionsService"])
async def test_an_answered_condition_tells_who_answered(tmp_path: Path, door: str) -> None:
    async with flowing(tmp_path, headers=TRUSTED) as flows:
        await flows.create()
        await flows.report(Phase.RUNNING)
        await flows.actions.enqueue(flows.condition("c1"))
        if door == "RunService":
            asked = pb.SignalEventRequest(action_id=named("c1"), payload=pb.EventPayload(int_value=3))
            await flows.runs.signal_event(asked, headers=GRACE)
        else:
            signal = actions_service_pb2.SignalRequest(action_id=named("c1"))
            signal.value.scalar.primitive.integer = 3
            await flows.actions.signal(signal, headers=GRACE)
        told = (await flows.runs.get_action_details(pb.GetActionDetailsRequest(action_id=named("c1")))).details
        assert told.signal_info.signalled_by.user.id.subject == "grace"


@pytest.mark.parametrize(
    ("trust", "headers", "subject"),
    [(UNTRUSTED, GRACE, "alan"), (TRUSTED, GRACE, "grace"), (TRUSTED, None, "alan")],
)
async def test_a_service_passes_on_who_asked_it_and_a_trusted_header_says_more(
    tmp_path: Path, trust: IdentityHeaders, headers: dict[str, str] | None, subject: str
) -> None:
    alan = EnrichedIdentity()
    alan.user.id.subject = "alan"
    async with flowing(tmp_path, headers=trust) as flows:
        await flows.create()
        for name in ("c1", "c2"):
            await flows.actions.enqueue(flows.condition(name))
        abort = actions_service_pb2.AbortRequest(action_id=named("c1"), aborted_by=alan)
        await flows.actions.abort(abort, headers=headers)
        signal = actions_service_pb2.SignalRequest(action_id=named("c2"), signalled_by=alan)
        signal.value.scalar.primitive.integer = 3
        await flows.actions.signal(signal, headers=headers)

        async def details(name: str) -> run_definition_pb2.ActionDetails:
            return (await flows.runs.get_action_details(pb.GetActionDetailsRequest(action_id=named(name)))).details

        assert (await details("c1")).abort_info.aborted_by.user.id.subject == subject
        assert (await details("c2")).signal_info.signalled_by.user.id.subject == subject


async def test_a_deployed_task_tells_who_deployed_it_and_is_found_by_that(tmp_path: Path) -> None:
    async with running(tmp_path, headers=TRUSTED) as manager:
        client: task_service_connect.TaskServiceClient = manager.tasks
        name = task_definition_pb2.TaskIdentifier(
            project="flytesnacks", domain="development", name="hello.main", version="v1"
        )
        await client.deploy_task(task_service_pb2.DeployTaskRequest(task_id=name, spec=task_spec()), headers=GRACE)
        found = await client.get_task_details(task_service_pb2.GetTaskDetailsRequest(task_id=name))
        assert found.details.metadata.deployed_by.user.spec.email == "grace@example.org"

        async def listed(subject: str) -> list[str]:
            known = task_service_pb2.ListTasksRequest.KnownFilter(deployed_by=subject)
            tasks = (await client.list_tasks(task_service_pb2.ListTasksRequest(known_filters=[known]))).tasks
            return [task.metadata.deployed_by.user.id.subject for task in tasks]

        assert await listed("grace") == ["grace"]
        assert await listed("alan") == []
        versions = await client.list_versions(
            task_service_pb2.ListVersionsRequest(
                task_name=task_definition_pb2.TaskName(project="flytesnacks", domain="development", name="hello.main")
            )
        )
        assert versions.versions[0].deployed_by.user.id.subject == "grace"


async def test_user_info_tells_who_calls(tmp_path: Path) -> None:
    async with (
        running(tmp_path, headers=TRUSTED) as manager,
        identity_connect.IdentityServiceClient(manager.url) as client,
    ):
        told = await client.user_info(identity_pb2.UserInfoRequest(), headers={"x-amzn-oidc-data": token(CLAIMS)})
        assert (told.subject, told.name, told.given_name, told.family_name) == ("1", "A B", "A", "B")
        assert (told.email, told.preferred_username) == ("a@b.c", "ab")
        assert await client.user_info(identity_pb2.UserInfoRequest()) == identity_pb2.UserInfoResponse()
