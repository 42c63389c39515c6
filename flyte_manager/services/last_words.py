"""How the log of an attempt that failed ends: with the reason that the manager keeps, and its advice.

The SDK's `flyte run --follow` shows the log and nothing else, and what could not start has none. A traceback that the
message repeats is in the log already, so only its short paragraphs are told.
"""

from collections.abc import Sequence

from flyte_manager.domain.attempts import Attempt
from flyte_manager.domain.ports import LogLine

LONGEST = 4
"""lines of a paragraph"""


def last_words(attempt: Attempt) -> Sequence[LogLine]:
    """Nothing while it lives, or when it succeeded."""
    failure = attempt.failure
    if failure is None or not attempt.phase.final:
        return ()
    paragraphs = [each.splitlines() for each in failure.message.strip().split("\n\n")]
    told = [line for lines in paragraphs if len(lines) <= LONGEST for line in lines]
    end = f"{attempt.phase.name} ({failure.code})"
    texts = [f"{end}: {told[0]}", *told[1:]] if told else [end]
    return [LogLine(attempt.ended_at or attempt.created_at, text, system=True) for text in texts]
