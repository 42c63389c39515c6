"""What tests of several kinds share."""

from collections.abc import Iterator

import pytest

from tests.s3 import S3Server


@pytest.fixture(scope="session")
def s3() -> Iterator[S3Server]:
    """One for all tests that only use it; they take prefixes of their own."""
    with S3Server() as server:
        yield server
