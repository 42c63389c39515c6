"""Who calls, as headers tell and as protos show."""

import base64
import json
from collections.abc import Callable

from flyteidl2.common import identifier_pb2, identity_pb2

from flyte_manager.domain.identities import Identity, IdentityHeaders

LONGEST = 256
"""Characters of each part of an identity."""
BEARER = "bearer "

Header = Callable[[str], str]
"""A header's value; empty where there is none."""


def told(header: Header, names: IdentityHeaders) -> Identity | None:
    """As upstream: the claims' header, else the bare subject's, else the bearer token of a login. Signatures are not
    checked: whoever sends headers is trusted, or this is not asked."""
    if names.claims and (found := _of_token(header(names.claims))):
        return found
    if names.subject and (subject := _clean(header(names.subject))):
        return Identity(subject, email=_clean(header(names.email)) if names.email else "")
    authorization = header("authorization")
    if authorization[: len(BEARER)].lower() == BEARER:
        return _of_token(authorization[len(BEARER) :].strip())
    return None


def enriched(identity: Identity) -> identity_pb2.EnrichedIdentity:
    spec = identity_pb2.UserSpec(
        first_name=identity.given_name or identity.name,
        last_name=identity.family_name,
        email=identity.email,
        user_handle=identity.username,
    )
    user = identity_pb2.User(id=identifier_pb2.UserIdentifier(subject=identity.subject))
    if spec.ByteSize():
        user.spec.CopyFrom(spec)
    return identity_pb2.EnrichedIdentity(user=user)


def _of_token(token: str) -> Identity | None:
    """What the claims of a JWT say; None for anything else."""
    parts = token.split(".")
    if len(parts) != 3:
        return None
    try:
        claims = json.loads(base64.b64decode(parts[1].rstrip("=") + "=" * (-len(parts[1].rstrip("=")) % 4), b"-_"))
    except (ValueError, RecursionError):
        return None
    if not isinstance(claims, dict):
        return None
    names = ("sub", "name", "given_name", "family_name", "email", "preferred_username")
    identity = Identity(*(_clean(claims.get(name)) for name in names))
    return identity if identity.subject else None


def _clean(value: object) -> str:
    """What can be shown of it; empty for what is no text."""
    if not isinstance(value, str):
        return ""
    return "".join(letter for letter in value if letter.isprintable())[:LONGEST].strip()
