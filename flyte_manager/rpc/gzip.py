"""gzip for connectrpc, with a bound.

connectrpc's own class unpacks first and measures afterwards, so a body of 64 KiB may cost 64 MiB, and 64 MiB 64 GiB.
Here the size that the gzip trailer claims is looked at first, and never more than that is kept: an honest bomb costs
no memory, a lying one what it claimed to be.

Replies: connectrpc asks for gzip even where it cannot gain. A short reply is sent as one stored block, which is gzip
to the reader and nearly free to the writer.
"""

import struct
import zlib

from connectrpc.code import Code
from connectrpc.errors import ConnectError

GZIP_WINDOW = 31
FAST = 1
HEADER = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x04\xff"
SMALLEST = 18
STORED_UP_TO = 256
PIECE = 64 << 10
BROKEN = "the message is not one whole gzip member"


class BoundedGzip:
    """Compresses replies quickly, unpacks requests up to `limit` bytes."""

    def __init__(self, limit: int) -> None:
        self._limit = limit

    def name(self) -> str:
        return "gzip"

    def compress(self, data: bytes | bytearray | memoryview) -> bytes:
        if len(data) > STORED_UP_TO:
            return zlib.compress(data, FAST, GZIP_WINDOW)
        size = len(data)
        block = struct.pack("<BHH", 1, size, size ^ 0xFFFF)
        return b"".join((HEADER, block, data, struct.pack("<II", zlib.crc32(data), size)))

    def decompress(self, data: bytes | bytearray | memoryview) -> bytes:
        """Raises ConnectError: RESOURCE_EXHAUSTED above the limit, INVALID_ARGUMENT for what is not one whole gzip
        member."""
        if len(data) < SMALLEST:
            raise ConnectError(Code.INVALID_ARGUMENT, BROKEN)
        claimed: int = struct.unpack("<I", data[-4:])[0]
        try:
            if claimed > self._limit:
                raise self._told(data)
            unpacker = zlib.decompressobj(GZIP_WINDOW)
            content = unpacker.decompress(data, claimed + 1)
        except zlib.error:
            raise ConnectError(Code.INVALID_ARGUMENT, BROKEN) from None
        if not unpacker.eof or unpacker.unused_data or len(content) != claimed:
            raise ConnectError(Code.INVALID_ARGUMENT, BROKEN)
        return content

    def _told(self, data: bytes | bytearray | memoryview) -> ConnectError:
        """Whether data that claims to be too large is so, or is cut off and claims nothing. Keeps no byte of it."""
        unpacker = zlib.decompressobj(GZIP_WINDOW)
        view = memoryview(data)
        size = 0
        for start in range(0, len(view), PIECE):
            rest: bytes | memoryview = view[start : start + PIECE]
            while rest and not unpacker.eof:
                size += len(unpacker.decompress(rest, PIECE))
                rest = unpacker.unconsumed_tail
                if size > self._limit:
                    return ConnectError(Code.RESOURCE_EXHAUSTED, too_large(self._limit))
        return ConnectError(Code.INVALID_ARGUMENT, BROKEN)


def too_large(limit: int) -> str:
    """The sentence for a message above the limit, which is in bytes."""
    return f"the message is larger than {limit} bytes: send large values as files (flyte.io.File, flyte.io.Dir)"
