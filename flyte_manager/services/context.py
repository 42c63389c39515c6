"""What connectrpc tells a handler beside the message."""

from typing import Any

from connectrpc.request import RequestContext

Context = RequestContext[Any, Any]
