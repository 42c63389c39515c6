"""Who calls, as far as a proxy in front of the manager tells: a name to show, never a permission.

    x-amzn-oidc-data: JWT ─▶ x-amzn-oidc-identity: subject ─▶ authorization: Bearer JWT      the first that says who

The tokens are read and not verified: whoever reaches the manager may do everything anyway (docs/configuration.md).
"""

import base64
import binascii
import json
from dataclasses import dataclass
from typing import Protocol

from flyteidl2.common import identifier_pb2, identity_pb2

LONGEST = 256
"""characters of a name that are kept"""


class Headers(Protocol):
    def get(self, key: str, default: str, /) -> str: ...


@dataclass(frozen=True, slots=True)
class Caller:
    identity: bytes = b""
    """flyteidl2.common.EnrichedIdentity; empty: nobody said who"""
    subject: str = ""


NOBODY = Caller()


def caller_of(headers: Headers) -> Caller:
    claims = _claims(headers.get("x-amzn-oidc-data", "")) or _subject(headers.get("x-amzn-oidc-identity", ""))
    if not claims:
        scheme, _, token = headers.get("authorization", "").partition(" ")
        claims = _claims(token.strip()) if scheme.lower() == "bearer" else {}
    if not claims:
        return NOBODY
    subject = claims["sub"]
    spec = identity_pb2.UserSpec(
        first_name=claims.get("given_name", ""),
        last_name=claims.get("family_name", ""),
        email=claims.get("email", ""),
        user_handle=claims.get("preferred_username", ""),
    )
    user = identity_pb2.User(id=identifier_pb2.UserIdentifier(subject=subject), spec=spec)
    return Caller(identity_pb2.EnrichedIdentity(user=user).SerializeToString(deterministic=True), subject)


def _claims(token: str) -> dict[str, str]:
    """The texts that a JWT says, its subject among them; empty where it is none."""
    parts = token.split(".")
    if len(parts) != 3:
        return {}
    try:
        content = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    except (binascii.Error, ValueError, RecursionError):
        return {}
    if not isinstance(content, dict):
        return {}
    texts = {name: text[:LONGEST] for name, text in content.items() if isinstance(text, str) and _plain(text)}
    return texts if texts.get("sub") else {}


def _subject(text: str) -> dict[str, str]:
    return {"sub": text[:LONGEST]} if text and _plain(text) else {}


def _plain(text: str) -> bool:
    """Whether a proto can hold it and a terminal show it."""
    return text.isprintable()
