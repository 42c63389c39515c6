"""Times and durations."""

from datetime import UTC, datetime

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from flyte_manager.domain.errors import Invalid

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def timestamp(moment: datetime) -> Timestamp:
    proto = Timestamp()
    show_time(proto, moment)
    return proto


def show_time(proto: Timestamp, moment: datetime) -> None:
    since = moment - _EPOCH  # a third of the time that Timestamp.FromDatetime takes, and lists are full of times
    proto.seconds = since.days * 86400 + since.seconds
    proto.nanos = since.microseconds * 1000


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
