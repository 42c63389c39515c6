"""Paths of objects below a store's root, and what every store refuses."""

from flyte_manager.domain.errors import Invalid, TooLarge

LONGEST_NAME = 255
"""Bytes of one part of a path."""


class OutsideStore(Invalid):
    """{uri!r} lies outside this manager's store {root}: nothing there is read or written for clients."""


class BadPath(Invalid):
    """{path!r} is not a path for an object: {problem}."""


class ObjectTooLarge(TooLarge):
    """{uri} holds more than the {limit} bytes that are allowed."""


def checked_path(*parts: str) -> str:
    """The path that the parts make; a part may hold several segments. Raises BadPath."""
    path = "/".join(parts)
    for segment in path.split("/"):
        _check_segment(segment, path)
    return path


def _check_segment(segment: str, path: str) -> None:
    if segment in ("", ".", ".."):
        raise BadPath(path=path[:200], problem="an empty part, . and .. are not allowed in it")
    if any(letter < " " or letter == "\x7f" for letter in segment):
        raise BadPath(path=path[:200], problem="it holds control characters")
    if len(segment.encode(errors="replace")) > LONGEST_NAME:
        raise BadPath(path=path[:60], problem=f"a part of it is longer than {LONGEST_NAME} bytes")
