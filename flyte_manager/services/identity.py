"""IdentityService: who calls, as far as that is known."""

import os
import pwd

from flyteidl2.auth import identity_connect, identity_pb2

from flyte_manager.domain.identities import Identity
from flyte_manager.services.callers import Callers
from flyte_manager.services.context import Context


class IdentityService(identity_connect.IdentityService):
    def __init__(self, callers: Callers) -> None:
        self._callers = callers

    async def user_info(self, _request: identity_pb2.UserInfoRequest, ctx: Context) -> identity_pb2.UserInfoResponse:
        """Empty when it is not known."""
        caller = self._callers.identity(ctx)
        if caller is None:
            return identity_pb2.UserInfoResponse()
        return identity_pb2.UserInfoResponse(
            subject=caller.subject,
            name=caller.name or f"{caller.given_name} {caller.family_name}".strip(),
            preferred_username=caller.username or caller.subject,
            given_name=caller.given_name,
            family_name=caller.family_name,
            email=caller.email,
        )


def owner() -> Identity:
    """The one who started the manager."""
    login, full_name = os_user()
    return Identity(login, name=full_name, username=login)


def os_user() -> tuple[str, str]:
    """Login and full name of the user that this process runs as; a container's user may have neither."""
    try:
        entry = pwd.getpwuid(os.getuid())
    except KeyError:
        number = f"uid-{os.getuid()}"
        return number, number
    return entry.pw_name, entry.pw_gecos.split(",")[0] or entry.pw_name
