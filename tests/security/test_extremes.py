"""Every field of every request at its extremes: the answer is never a fault of ours, and no action stays stuck.

What a field may hold is told by the descriptors; of each method's many requests a fixed sample is sent.
"""

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import cast

import pytest
from flyteidl2.workflow.run_service_pb2 import CreateRunRequest
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from tests.managers import Manager, eventually
from tests.security.asking import ASKED, CREATE, LONG, RUN, SPEC, TEMPLATE, Asker, Body, prepared

SAMPLE = 60
DEEPEST = 5
Change = Callable[[Message], object]

VALUES: Mapping[int, Sequence[object]] = {
    FieldDescriptor.TYPE_STRING: (LONG, "a\0b", "\n", "9" * 5000),
    FieldDescriptor.TYPE_BYTES: (bytes(300), b"\xff"),
    FieldDescriptor.TYPE_ENUM: (999, -1),
    FieldDescriptor.TYPE_BOOL: (True,),
    FieldDescriptor.TYPE_INT32: (-1, 2**31 - 1, -(2**31)),
    FieldDescriptor.TYPE_INT64: (-1, 2**63 - 1, -(2**63)),
    FieldDescriptor.TYPE_UINT32: (2**32 - 1,),
    FieldDescriptor.TYPE_UINT64: (2**64 - 1,),
    FieldDescriptor.TYPE_FLOAT: (float("nan"), float("inf"), -1.0),
    FieldDescriptor.TYPE_DOUBLE: (float("nan"), float("inf"), -1.0),
}


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    with Manager(tmp_path, {"embedded.cpu": "1000"}) as started:
        yield started


def changes(message: Message, path: str = "") -> Iterator[tuple[str, Change]]:
    """Every change of one field, also of messages that the request does not have yet."""
    for each in message.DESCRIPTOR.fields:
        field = cast(FieldDescriptor, each)  # the stubs know two classes of them
        name = f"{path}.{field.name}"
        if field.message_type is None:
            for value in VALUES.get(field.type, ()):
                yield f"{name}={value!r:.20}", setting(field, value)
        elif not field.message_type.GetOptions().map_entry and name.count(".") <= DEEPEST:
            known = not field.is_repeated and message.HasField(field.name)
            below = getattr(message, field.name) if known else GetMessageClass(field.message_type)()
            yield f"{name}={{}}", inside(field, lambda _below: None)
            for what, change in changes(below, name):
                yield what, inside(field, change)


def setting(field: FieldDescriptor, value: object) -> Change:
    def change(message: Message) -> None:
        if field.is_repeated:
            getattr(message, field.name).append(value)
        else:
            setattr(message, field.name, value)

    return change


def inside(field: FieldDescriptor, change: Change) -> Change:
    def changed(message: Message) -> None:
        if field.is_repeated:
            change(getattr(message, field.name).add())
        else:
            below = getattr(message, field.name)
            below.SetInParent()
            change(below)

    return changed


def quick(body: Body, number: int) -> Body:
    """The request with a task that ends at once, and a name of its own."""
    spec = {"taskTemplate": {**TEMPLATE, "container": {"args": ["true"]}}}
    changed = {
        key: quick(value, number) if isinstance(value, dict) and value is not SPEC else value
        for key, value in body.items()
    }
    for key in ("spec", "taskSpec"):
        if body.get(key) is SPEC:
            changed[key] = spec
    if body.get("name") == "new":
        changed["name"] = f"new{number}"
    return changed


def test_no_value_of_any_field_is_a_fault(manager: Manager) -> None:
    with prepared(manager) as asker:
        for method, body in (each for each in ASKED if "Abort" not in each[0]):
            sample = random.Random(method)
            base = asker.message(method, body)
            every = list(changes(base))
            count = 5 if asker.methods[method].server_streaming else SAMPLE
            for number, (what, change) in enumerate(sample.sample(every, min(count, len(every)))):
                message = asker.message(method, quick(body, number))
                change(message)
                answer = asker.send(method, message.SerializeToString())
                assert answer.code not in ("internal", "unknown"), f"{method}: {what}: {answer}"
                assert not answer.code.startswith("http"), f"{method}: {what}: {answer}"
        manager.call("workflow.RunService/AbortRun", {"runId": RUN})
    live = "SELECT run, name, phase, reason FROM actions WHERE ended_at IS NULL AND phase <> 'PAUSED'"
    eventually(lambda: not manager.rows(live), 30, what="the end of all actions")
    assert "tried again" not in manager.log
    assert "failed, id" not in manager.log


CHILD = {"run": RUN, "name": "theirs"}
REPORTS: Mapping[str, Body] = {
    "workflow.InternalRunService/RecordAction": {"actionId": CHILD, "parent": "a0", "task": {"spec": SPEC}},
    "workflow.InternalRunService/UpdateActionStatus": {"actionId": CHILD, "status": {"phase": 4, "attempts": 1}},
    "workflow.InternalRunService/RecordActionEvents": {"events": [{"id": CHILD, "phase": 4, "attempt": 1}]},
    "workflow.EventsProxyService/Record": {"events": [{"id": CHILD, "phase": 4, "attempt": 1}]},
}


def test_no_value_of_any_field_of_a_report_is_a_fault(manager: Manager) -> None:
    with prepared(manager) as asker:
        for method, body in REPORTS.items():
            assert asker.ask(method, body).code == "ok"
            base = asker.message(method, body)
            every = list(changes(base))
            for what, change in random.Random(method).sample(every, min(len(every), 4 * SAMPLE)):
                message = asker.message(method, body)
                change(message)
                answer = asker.send(method, message.SerializeToString())
                assert answer.code not in ("internal", "unknown"), f"{method}: {what}: {answer}"
                read = {"actionId": CHILD}
                assert asker.ask("workflow.RunService/GetActionDetails", read).code == "ok", f"{method}: {what}"
    assert "failed, id" not in manager.log


def test_a_secret_of_a_type_that_is_not_known_is_kept_and_shown(manager: Manager) -> None:
    name = {"project": "flytesnacks", "domain": "development", "name": "odd"}
    with closing(Asker(manager)) as asker:
        asked = {"id": name, "secretSpec": {"stringValue": "v", "type": 999}}
        assert asker.ask("secret.SecretService/CreateSecret", asked).code == "ok"
        assert asker.ask("secret.SecretService/GetSecret", {"id": name}).code == "ok"
        assert asker.ask("secret.SecretService/ListSecrets", {}).code == "ok"


def test_what_only_the_binary_encoding_can_tell_hides_no_run_from_json(manager: Manager) -> None:
    with closing(Asker(manager)) as asker:
        asked = cast(CreateRunRequest, asker.message(CREATE, quick({"runId": RUN, "taskSpec": SPEC}, 0)))
        asked.run_id.name = "beyond"
        template = asked.task_spec.task_template
        template.custom["x"] = float("nan")
        template.metadata.timeout.seconds = 2**62
        value = asked.inputs.literals.add(name="v").value.scalar
        value.primitive.datetime.seconds = 2**60
        assert asker.send(CREATE, asked.SerializeToString()).code == "ok"
        run = {**RUN, "name": "beyond"}
        shown = manager.call("workflow.RunService/GetRunDetails", {"runId": run})
        assert shown.json()["details"]["action"]["task"]["taskTemplate"]["custom"] == {"x": "NaN"}
        data = manager.call("workflow.RunService/GetActionData", {"actionId": {"run": run, "name": "a0"}})
        assert "9999-12-31T23:59:59Z" in data.text
