"""Launch forms: JSON schemas whose `default`s are the values of a task's inputs, and back.

    LiteralType ── schemas.py ──▶ schema            Literal ── values.py ──▶ JSON value
    LiteralType ◀── types.py ──── schema            Literal ◀─ literals.py ─ JSON value + LiteralType
                    form.py: whole forms of them, by name

JSON numbers are doubles: integers beyond 2^53, and floats that JSON can't write, travel as texts.
"""
