"""Identifiers as they come from clients."""

from collections.abc import Callable
from datetime import UTC, datetime

import pytest
from flyteidl2.common import identifier_pb2
from flyteidl2.project import project_service_pb2
from flyteidl2.secret import definition_pb2
from flyteidl2.task import task_definition_pb2

from flyte_manager.domain.errors import IllegalName
from flyte_manager.wire import ids
from flyte_manager.wire.projects import project
from flyte_manager.wire.secrets import secret_name

SCOPE = {"project": "flytesnacks", "domain": "development"}


@pytest.mark.parametrize(
    "read",
    [
        lambda org: ids.run_id(identifier_pb2.RunIdentifier(**SCOPE, name="r1", org=org)).org,
        lambda org: ids.task_name(task_definition_pb2.TaskIdentifier(**SCOPE, name="hello.main", org=org)).org,
        lambda org: (
            ids.project_id(
                identifier_pb2.ProjectIdentifier(name="flytesnacks", domain="development", organization=org)
            ).org
        ),
        lambda org: project(project_service_pb2.Project(id="snacks", org=org), {}, at=datetime.now(UTC)).org,
        lambda org: secret_name(definition_pb2.SecretIdentifier(name="key", organization=org)).org,
    ],
)
def test_an_org_is_kept_as_it_is_unless_it_is_too_long(read: Callable[[str], str]) -> None:
    assert read("ACME") == "ACME"
    with pytest.raises(IllegalName, match=r"org 'ooo.*up to 255 printable characters"):
        read("o" * 256)
