"""IdentityService: there are no accounts; everybody is the one who started the manager."""

import os
import pwd

from flyteidl2.auth import identity_connect, identity_pb2

from flyte_manager.services.context import Context


class IdentityService(identity_connect.IdentityService):
    """`user`, `full_name`: of the one who started the manager."""

    def __init__(self, user: str, full_name: str) -> None:
        self._user = user
        self._full_name = full_name

    async def user_info(self, _request: identity_pb2.UserInfoRequest, _ctx: Context) -> identity_pb2.UserInfoResponse:
        return identity_pb2.UserInfoResponse(subject=self._user, name=self._full_name, preferred_username=self._user)


def os_user() -> tuple[str, str]:
    """Login and full name of the user that this process runs as; a container's user may have neither."""
    try:
        entry = pwd.getpwuid(os.getuid())
    except KeyError:
        number = f"uid-{os.getuid()}"
        return number, number
    return entry.pw_name, entry.pw_gecos.split(",")[0] or entry.pw_name
