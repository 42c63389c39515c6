"""Times and durations."""

from datetime import UTC, datetime

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from flyte_manager.domain.errors import Invalid


def timestamp(moment: datetime) -> Timestamp:
    proto = Timestamp()
    proto.FromDatetime(moment.astimezone(UTC).replace(tzinfo=None))
    return proto


class BadTime(Invalid):
    """a timestamp of {seconds} s since 1970 is out of range: years 1 to 9999 are legal."""


def moment(proto: Timestamp) -> datetime:
    """Raises BadTime."""
    try:
        return proto.ToDatetime(tzinfo=UTC)
    except (ValueError, OverflowError):
        raise BadTime(seconds=proto.seconds) from None


def seconds(proto: Duration) -> float:
    return proto.seconds + proto.nanos / 1e9
