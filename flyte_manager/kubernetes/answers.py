"""Reads what the API server answers: objects, lines of events, Status objects and the delay that it asks for."""

import json
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from typing import Any

import aiohttp

from flyte_manager.kubernetes.api_errors import ApiError, ServerTrouble

LONGEST_LINE = 16 << 20
"""Bytes of one event of a watch: etcd takes objects of 1.5 MiB, which JSON may make longer."""


async def lines(stream: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
    """Lines of any length up to LONGEST_LINE; aiohttp's own reading ends at its buffer's size."""
    parts: list[bytes] = []
    size = 0
    async for piece in stream:
        *ended, rest = piece.split(b"\n")
        for line in ended:
            parts.append(line)
            if whole := b"".join(parts):
                yield whole
            parts, size = [], 0
        if rest:
            parts.append(rest)
            size += len(rest)
            if size > LONGEST_LINE:
                raise ApiError(status=500, words="an event of a watch is longer than any object can be")
    if parts:
        yield b"".join(parts)


def decoded(content: bytes) -> dict[str, Any]:
    """Raises ServerTrouble for what no API server says."""
    try:
        found = json.loads(content)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise ServerTrouble(words="what it answers is no JSON object: is something else in its place, as a proxy?")
    return found


def mapping(found: object) -> Mapping[str, Any]:
    return found if isinstance(found, Mapping) else {}


def status(content: bytes) -> Mapping[str, Any]:
    """The Status object that the server answered, or one made of what else it said."""
    try:
        found = json.loads(content)
    except ValueError:
        return {"message": content[:500].decode(errors="replace")}
    return found if isinstance(found, dict) else {"message": str(found)[:500]}


def retry_after(response: aiohttp.ClientResponse) -> float:
    text = response.headers.get("Retry-After", "")
    return float(text) if text.isdecimal() else 0.0
