import gzip
import random
import struct
import tracemalloc
import zlib

import pytest
from connectrpc.code import Code
from connectrpc.errors import ConnectError

from flyte_manager.rpc.gzip import BoundedGzip

LIMIT = 1 << 20


@pytest.fixture
def packer() -> BoundedGzip:
    return BoundedGzip(LIMIT)


def refusal(packer: BoundedGzip, data: bytes) -> Code:
    with pytest.raises(ConnectError) as caught:
        packer.decompress(data)
    return caught.value.code


@pytest.mark.parametrize("size", [0, 1, 18, 255, 256, 257, 1000, LIMIT])
def test_what_is_packed_here_any_gzip_reader_unpacks_and_the_other_way_round(packer: BoundedGzip, size: int) -> None:
    content = random.Random(size).randbytes(size)
    for kind in (bytes, bytearray, memoryview):
        assert gzip.decompress(packer.compress(kind(content))) == content
        assert packer.decompress(kind(gzip.compress(content))) == content
        assert packer.decompress(packer.compress(content)) == content


@pytest.mark.parametrize(
    "name", ["", "x", "empty head", "plain", "zlib", "cut", "flipped", "tail", "two", "liar", "short"]
)
def test_what_is_not_one_whole_gzip_member_is_an_invalid_argument(packer: BoundedGzip, name: str) -> None:
    whole = gzip.compress(b"hello" * 1000, mtime=0)
    damaged = {
        "": b"",
        "x": b"x",
        "empty head": whole[:10] + bytes(8),
        "plain": b"this is no gzip at all, only text" + bytes(4),
        "zlib": zlib.compress(b"hello" * 1000) + bytes(10),
        "cut": whole[:-9] + bytes(4),
        "flipped": whole[:20] + bytes([whole[20] ^ 0xFF]) + whole[21:],
        "tail": whole + b"more" + struct.pack("<I", 5000),
        "two": whole + whole,
        "liar": whole[:-4] + struct.pack("<I", 10),
        "short": whole[:-4] + struct.pack("<I", 6000),
    }[name]
    assert refusal(packer, damaged) is Code.INVALID_ARGUMENT


def test_a_bomb_is_refused_without_being_unpacked(packer: BoundedGzip) -> None:
    bomb = gzip.compress(bytes(64 * LIMIT))
    lying = bomb[:-4] + struct.pack("<I", LIMIT)
    tracemalloc.start()
    try:
        assert refusal(packer, bomb) is Code.RESOURCE_EXHAUSTED
        assert tracemalloc.get_traced_memory()[1] < LIMIT // 2
        assert refusal(packer, lying) is Code.INVALID_ARGUMENT
        assert tracemalloc.get_traced_memory()[1] < 3 * LIMIT
    finally:
        tracemalloc.stop()


def test_a_message_of_exactly_the_limit_passes_and_one_byte_more_does_not(packer: BoundedGzip) -> None:
    assert len(packer.decompress(gzip.compress(bytes(LIMIT)))) == LIMIT
    assert refusal(packer, gzip.compress(bytes(LIMIT + 1))) is Code.RESOURCE_EXHAUSTED
