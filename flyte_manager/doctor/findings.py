"""What the doctor finds, and how it says it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

State = Literal["ok", "warn", "bad"]


@dataclass(frozen=True, slots=True)
class Finding:
    """What a check found. One that isn't ok ends with what to do."""

    name: str
    state: State
    text: str


def report(finding: Finding) -> str:
    """The finding as a line."""
    return f"  {finding.state:<5} {finding.name:<12} {finding.text}"


def verdict(findings: Sequence[Finding]) -> str:
    """The last line."""
    bad, warn = (sum(finding.state == state for finding in findings) for state in ("bad", "warn"))
    if bad:
        return f"{bad} to mend before the manager can serve."
    return f"Ready to start; {warn} to know about." if warn else "All is well."
