"""What connectrpc tells a handler beside the message."""

from typing import Any

from connectrpc.request import RequestContext

from flyte_manager.wire.callers import Caller, caller_of

Context = RequestContext[Any, Any]


def caller(ctx: Context) -> Caller:
    """Who sent the request."""
    return caller_of(ctx.request_headers())
