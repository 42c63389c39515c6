"""Everything that may be refused: a class per kind of refusal, whose docstring is the message and says what to do.

The base classes below name the kinds; `rpc/errors.py` maps each kind to one Connect code.
"""

from typing import ClassVar


class Refusal(Exception):  # noqa: N818
    """The request was refused."""

    message: ClassVar[str] = ""

    def __init_subclass__(cls) -> None:
        cls.message = " ".join((cls.__doc__ or "").split())

    def __init__(self, **facts: object) -> None:
        super().__init__(self.message.format(**facts))


class Invalid(Refusal):
    """{problem}"""


class Missing(Refusal):
    """{what} was not found."""


class Exists(Refusal):
    """{what} exists already."""


class Unready(Refusal):
    """{problem}"""


class Ended(Refusal):
    """{what} has ended."""


class Unsupported(Refusal):
    """{what} is not supported yet by this manager; docs/rpc.md lists what is."""


class Forbidden(Refusal):
    """{problem}"""


class TooLarge(Refusal):
    """{problem}"""


class Overloaded(Refusal):
    """{problem}"""


class Unavailable(Refusal):
    """{problem}"""


class IllegalName(Invalid):
    """{kind} {name!r} is not a legal name: {rule}."""


class NotGiven(Invalid):
    """{field} is required."""


class UnknownDomain(Missing):
    """domain {name!r} was not found: use one of {known}."""


class UnknownProject(Missing):
    """project {name!r} was not found: `flyte get project` lists them, `flyte create project` makes one."""


class UnknownRun(Missing):
    """run {name!r} was not found in {project}/{domain}: `flyte get run` lists the runs."""


class UnknownAction(Missing):
    """action {name!r} was not found in run {run!r} of {project}/{domain}: `flyte get action {run}` lists them."""


class UnknownTask(Missing):
    """task {name!r} version {version!r} was not found in {project}/{domain}: `flyte get task` lists the tasks,
    `flyte deploy` makes one."""


class UnknownSecret(Missing):
    """secret {name!r} was not found in {scope}: `flyte get secret` lists the secrets, `flyte create secret` makes
    one."""


class SecretExists(Exists):
    """secret {name!r} exists already in {scope}: delete it first (`flyte delete secret {name}`), or update it."""


class RunDiffers(Exists):
    """run {name!r} exists already with another task or other inputs: choose another name, or give none."""


class ActionDiffers(Invalid):
    """action {name!r} was enqueued before with {difference}: an action's name stands for one call of one task."""


class RunEnded(Ended):
    """action {parent!r} of run {run!r} has ended ({phase}): nothing more is enqueued under it."""


class BundleGone(Unready):
    """the code bundle {uri} is gone from this manager's store (the SDK remembers uploads for a day): run
    `flyte delete local-cache` where you start your runs, then run again."""
