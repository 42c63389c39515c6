"""What is said about an abort."""

from typing import Protocol

DEFAULT_REASON = "User requested abort"
"""as upstream"""


class _Asked(Protocol):
    reason: str


def reason_of(request: _Asked) -> str:
    return request.reason or DEFAULT_REASON
