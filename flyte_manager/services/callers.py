"""Who calls: there are no accounts. Whoever reaches the port acts as the one who started the manager, unless the
configuration trusts the headers of a proxy in front; then it is whom they tell, or nobody."""

from dataclasses import dataclass

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

    def by(self, ctx: Context) -> bytes:
        return self.caller(ctx).identity
