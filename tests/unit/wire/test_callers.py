"""Who calls, as a proxy in front of the manager tells."""

import base64
import json

import pytest
from flyteidl2.common import identity_pb2

from flyte_manager.wire.callers import LONGEST, NOBODY, caller_of

CLAIMS = {"sub": "u-1", "email": "ada@example.org", "given_name": "Ada", "family_name": "Lovelace", "exp": 1}


def jwt(content: object) -> str:
    raw = content if isinstance(content, bytes) else json.dumps(content).encode()
    return f"e30.{base64.urlsafe_b64encode(raw).decode().rstrip('=')}.signature"


@pytest.mark.parametrize(
    "headers",
    [
        {"authorization": f"Bearer {jwt(CLAIMS)}"},
        {"authorization": f"bearer  {jwt(CLAIMS)}"},
        {"x-amzn-oidc-data": jwt(CLAIMS), "authorization": f"Bearer {jwt({'sub': 'the proxy'})}"},
    ],
)
def test_the_claims_of_a_token_are_shown(headers: dict[str, str]) -> None:
    told = caller_of(headers)
    user = identity_pb2.EnrichedIdentity.FromString(told.identity).user
    assert told.subject == user.id.subject == "u-1"
    assert (user.spec.email, user.spec.first_name, user.spec.last_name) == ("ada@example.org", "Ada", "Lovelace")


def test_a_subject_alone_will_do() -> None:
    told = caller_of({"x-amzn-oidc-identity": "u-2", "x-amzn-oidc-data": "broken"})
    assert told.subject == "u-2"
    assert identity_pb2.EnrichedIdentity.FromString(told.identity).user.id.subject == "u-2"


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"authorization": ""},
        {"authorization": "Basic dTpw"},
        {"authorization": "Bearer"},
        {"authorization": "Bearer a.b"},
        {"authorization": "Bearer a.é.c"},
        {"authorization": f"Bearer {jwt(b'{')}"},
        {"authorization": f"Bearer {jwt(bytes([255, 254]))}"},
        {"authorization": f"Bearer {jwt(b'[' * 100_000)}"},
        {"authorization": f"Bearer {jwt(b'1' * 5000)}"},
        {"authorization": f"Bearer {jwt(['sub'])}"},
        {"authorization": f"Bearer {jwt({'email': 'a@b'})}"},
        {"authorization": f"Bearer {jwt({'sub': 7})}"},
        {"authorization": "Bearer " + jwt(b'{"sub": "\\ud800"}')},
        {"authorization": "Bearer " + jwt({"sub": "\x1b[2J"})},
        {"x-amzn-oidc-identity": "a\nb"},
    ],
)
def test_what_is_no_name_is_nobody(headers: dict[str, str]) -> None:
    assert caller_of(headers) == NOBODY


def test_a_name_is_cut() -> None:
    assert len(caller_of({"x-amzn-oidc-identity": "x" * 9000}).subject) == LONGEST
