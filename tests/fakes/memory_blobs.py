"""A store of objects in memory."""

from dataclasses import dataclass, field

from flyte_manager.domain.errors import TooLarge


@dataclass(slots=True)
class MemoryBlobs:
    """Implements ports.Blobs."""

    objects: dict[str, bytes] = field(default_factory=dict)

    def checked(self, uri: str) -> str:
        return uri

    def join(self, *parts: str) -> str:
        return "/".join(("/store", *parts))

    async def read(self, uri: str, *, limit: int = 0) -> bytes | None:
        content = self.objects.get(uri)
        if content is not None and limit and len(content) > limit:
            raise TooLarge(problem=f"{uri} is larger than {limit} bytes")
        return content

    async def write(self, uri: str, content: bytes) -> None:
        self.objects[uri] = content

    async def delete(self, uri: str) -> None:
        self.objects.pop(uri, None)

    async def exists(self, uri: str) -> bool:
        return uri in self.objects
