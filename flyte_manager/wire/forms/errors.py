"""What can't be translated, and where it stands. The place is made of names that clients chose."""

from flyte_manager.domain.errors import Invalid, Unsupported


class BadValue(Invalid):
    """{where}: {problem}"""

    def __init__(self, *, where: str, problem: str) -> None:
        super().__init__(where=_told(where), problem=problem)


class BadSchema(Invalid):
    """{where}: the form can't be read: {problem}"""

    def __init__(self, *, where: str, problem: str) -> None:
        super().__init__(where=_told(where), problem=problem)


class NoForm(Unsupported):
    """{where}: {what} has no place in a launch form: start the run with the SDK instead."""

    def __init__(self, *, where: str, what: str) -> None:
        super().__init__(where=_told(where), what=what)


def _told(where: str) -> str:
    return where if where.isprintable() and len(where) < 120 else repr(where[:120])
