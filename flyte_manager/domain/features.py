"""What of Flyte this manager does not have yet, and what to use instead: told to clients, and in docs/rpc.md."""

from dataclasses import dataclass

from flyte_manager.domain.errors import Unsupported


@dataclass(frozen=True, slots=True)
class Feature:
    name: str
    instead: str
    also: str = ""
    """what else is refused because of it, beside the RPCs that are not served"""


class NotYet(Unsupported):
    """{what} needs {name}, which this manager does not have yet (docs/rpc.md lists what it has); instead: {instead}."""

    def __init__(self, what: str, feature: Feature) -> None:
        super().__init__(what=what, name=feature.name, instead=feature.instead)


APPS = Feature("apps", "run the server yourself, beside the manager", also="CreateDownloadLink of an app's code")
ARTIFACTS = Feature("artifacts", "the outputs of a run: `flyte get io RUN`, or pass them to the next task")
CONCURRENCY = Feature(
    "limits of a run's concurrency",
    "leave max_action_concurrency out and bound the tasks at once in the parent, e.g. with an asyncio.Semaphore; the"
    " manager admits only what the machine or cluster can hold",
    also="CreateRun with `run_spec.max_action_concurrency`",
)
CONNECTORS = Feature("connectors", "a plain Python task that calls the service")
IMAGE_BUILDING = Feature(
    "image building",
    "an image that has the task's packages in it (flyte.Image.from_base, without layers), or a build where you"
    " are: `--builder local` in `flyte create config`, with a registry to which you can push and from which the cluster"
    " pulls",
    also="GetImage where tasks are pods",
)
LOGIN = Feature("a login", "connect without one: an http:// endpoint and `insecure: true`")
QUEUES = Feature(
    "named queues",
    "leave the queue out: all runs share one",
    also="CreateRun with `run_spec.queue` (`--queue`); a call of a task with `queue=` fails with the sentence",
)
RECOVER = Feature(
    "recover",
    "`flyte rerun`, which runs everything again",
    also="CreateRun with `run_spec.relation` RECOVER, Enqueue with `recovered_from`",
)
SETTINGS = Feature(
    "settings of organisations, domains and projects",
    "config.yaml for the manager, flyte.with_runcontext(…) for one run",
)
TRACKED_RUNS = Feature(
    "tracked runs", "`flyte run` without --tracked, which runs the task here, or `flyte run --local`"
)
TRIGGERS = Feature(
    "triggers",
    "deploy the task without them, and start it yourself, e.g. from cron: `flyte run deployed-task ENV.TASK`",
    also="DeployTask with triggers; CreateRun, UploadInputs, ListRuns and launch forms by trigger",
)
