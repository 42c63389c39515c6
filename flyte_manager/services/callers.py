"""Who calls: there are no accounts. Whoever reaches the port acts as the one who started the manager, unless the
configuration trusts the headers of a proxy in front; then it is whom they tell, or nobody."""

from dataclasses import dataclass

from flyteidl2.common.identity_pb2 import EnrichedIdentity

from flyte_manager.domain.identities import Identity, IdentityHeaders
from flyte_manager.services.context import Context
from flyte_manager.wire.identities import enriched, told


@dataclass(frozen=True, slots=True)
class Caller:
    """As rows keep it."""

    identity: bytes = b""
    """flyteidl2.common.EnrichedIdentity; empty = not known"""
    subject: str = ""


class Callers:
    def __init__(self, owner: Identity, headers: IdentityHeaders) -> None:
        self._owner = owner
        self._headers = headers

    def identity(self, ctx: Context) -> Identity | None:
        """None: not known."""
        if not self._headers.trusted:
            return self._owner
        headers = ctx.request_headers()
        return told(lambda name: headers.get(name.lower(), ""), self._headers)

    def caller(self, ctx: Context) -> Caller:
        identity = self.identity(ctx)
        if identity is None:
            return Caller()
        return Caller(enriched(identity).SerializeToString(deterministic=True), identity.subject)

    def by(self, ctx: Context, told: EnrichedIdentity | None = None) -> bytes:
        """`told`: whom the request names, because another service passes on what somebody asked of it. A header that is
        trusted says more, the owner less."""
        known = self.caller(ctx).identity
        if told is None or not told.ByteSize() or (known and self._headers.trusted):
            return known
        return told.SerializeToString(deterministic=True)
