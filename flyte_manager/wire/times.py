"""Times and durations."""

from datetime import UTC, datetime

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp


def timestamp(moment: datetime) -> Timestamp:
    proto = Timestamp()
    proto.FromDatetime(moment.astimezone(UTC).replace(tzinfo=None))
    return proto


def moment(proto: Timestamp) -> datetime:
    return proto.ToDatetime(tzinfo=UTC)


def seconds(proto: Duration) -> float:
    return proto.seconds + proto.nanos / 1e9
