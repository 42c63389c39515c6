"""Values that once did harm somewhere, by kind: paths (class D of docs/security.md), SQL, markup, numbers, JSON."""

from collections.abc import Mapping, Sequence

from google.protobuf.descriptor import FieldDescriptor

PATHS = (
    "..",
    ".",
    ".hidden",
    "../../../../etc/passwd",
    "..%2f..%2fetc%2fpasswd",
    "%2e%2e/%2e%2e/etc/passwd",
    "%252e%252e%252fetc",
    "..\\..\\windows\\win.ini",
    "....//....//etc/passwd",
    "/etc/passwd",
    "//etc/passwd",
    "/proc/self/environ",
    "file:///etc/passwd",
    "file://localhost/etc/passwd",
    "C:\\boot.ini",
    "a#b/../c",
    "a?b=../c",
    "a\0.pb",
    "a\r\nX-Injected: 1",
    "~/.ssh/id_rsa",
    "\uff0e\uff0e/\uff0e\uff0e",
    "a/" * 600,
    "x" * 5000,
)
ADDRESSES = (
    "http://127.0.0.1:1/",
    "http://169.254.169.254/latest/meta-data/",
    "http://[::ffff:127.0.0.1]:1/",
    "gopher://127.0.0.1:1/_",
    "s3://bucket/key",
    "gs://bucket/../key",
)
INJECTIONS = (
    "' OR 1=1 --",
    '"; DROP TABLE runs; --',
    "a') union select value from secrets --",
    "%' ESCAPE '",
    "\\",
    '$."x"',
    "<script>alert(1)</script>",
    "${jndi:ldap://127.0.0.1/a}",
    "{0.__class__.__mro__}",
    "{project!r:>999999}",
    "%s%n%x",
    "--upload-pack=touch /tmp/x",
    "\x1b[2J\x1b]0;title\x07",
    "\u2028\u202e\ufeff",
)
SCALES = (
    "",
    " ",
    "0",
    "-1",
    "1e400",
    "NaN",
    "9" * 5000,
    "\u00b2",
    "\uff11\uff12",
    "2026-13-45",
    "0001-01-01T00:00:00+14:00",
)
DOCUMENTS = (
    "null",
    "[]",
    '{"phase": "\\ud800"}',
    '{"phase": ' + "[" * 20_000,
    "[" * 20_000 + "]" * 20_000,
    '{"phase": ' + "9" * 5000 + "}",
    '{"type": "object", "properties": {"x": {"$ref": "#"}}}',
)
KNOWN = ("flytesnacks", "development", "known", "1", "a0", "question", "ended", "o0", "fuzz", "name", "created_at")
TEXTS: Sequence[str] = (*KNOWN, *PATHS, *ADDRESSES, *INJECTIONS, *SCALES, *DOCUMENTS)

NUMBERS: Mapping[int, Sequence[float]] = {
    FieldDescriptor.CPPTYPE_INT32: (0, 1, -1, 2, 999, 2**31 - 1, -(2**31)),
    FieldDescriptor.CPPTYPE_INT64: (0, 1, -1, 2, 253_402_300_800, 2**63 - 1, -(2**63)),
    FieldDescriptor.CPPTYPE_UINT32: (0, 1, 2, 1001, 2**31, 2**32 - 1),
    FieldDescriptor.CPPTYPE_UINT64: (0, 1, 2, 2**63, 2**64 - 1),
    FieldDescriptor.CPPTYPE_FLOAT: (0.0, -0.0, 1.5, -1.0, float("nan"), float("inf"), float("-inf"), 1e-45),
    FieldDescriptor.CPPTYPE_DOUBLE: (0.0, -0.0, 1.5, -1.0, float("nan"), float("inf"), float("-inf"), 1e308),
    FieldDescriptor.CPPTYPE_ENUM: (0, 1, 2, 3, 4, 7, 99, -1, 2**31 - 1),
    FieldDescriptor.CPPTYPE_BOOL: (False, True),
}
JSON: Sequence[object] = (
    None,
    True,
    0,
    -1,
    2**64,
    10**400,
    1e308,
    float("nan"),
    "",
    "\ud800",
    "a\0b",
    "2026-01-01T00:00:00Z",
    "-1s",
    "AAAA",
    [],
    {},
    [None],
    [[[[]]]],
    {"@type": "type.googleapis.com/google.protobuf.Any", "value": {}},
    {"": {"": 0}},
)
