"""Makes a Launch from an action's row and its task: argument templates, environment, secrets, notes for its log."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from flyte_manager.domain.actions import Action, Run
from flyte_manager.domain.bounds import NAMES, Bound, seconds_of, span
from flyte_manager.domain.errors import Unready
from flyte_manager.domain.ids import ProjectId
from flyte_manager.domain.ports import Blobs, Launch, Secrets, SecretValue
from flyte_manager.domain.tasks import SecretRequest, TaskPlan, fill_in
from flyte_manager.executor.admission import DEFAULT_CPU, DEFAULT_MEMORY
from flyte_manager.wire.data import input_texts, parse_inputs
from flyte_manager.wire.plan import RunSettings

LARGEST_INPUTS = 64 << 20
"""bytes of the inputs whose values stand in arguments"""


class SecretMissing(Unready):
    """the task asks for secret {key!r}, which {project}/{domain} does not have: `flyte create secret {key}` makes
    it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Launching:
    """What is the same for all attempts. `endpoint` is the host:port at which tasks reach the manager."""

    secrets: Secrets
    blobs: Blobs
    endpoint: str
    defaults: Mapping[str, str]
    """variables of this world that a run's own variables may override"""
    insecure: bool = True
    """whether they reach it by plain HTTP"""
    namespace: str = ""
    """of the pods; empty: there are none"""
    interpreter: str = ""
    """shown in logs: which Python runs the tasks, where it is not the image's"""

    async def launch(self, action: Action, run: Run, *, plan: TaskPlan, settings: RunSettings) -> Launch:
        """Raises SecretMissing, Unreadable, TooLarge."""
        values = template_values(action, run, settings=settings, namespace=self.namespace)
        if any(".inputs." in arg for arg in plan.args) or b".inputs." in plan.template:
            values |= await self._inputs(action)
        env = {**plan.env, "_U_USE_ACTIONS": "1", **self.defaults, **settings.envs, **self._identity(action, run)}
        secret_env: dict[str, SecretValue] = {}
        secret_files: dict[str, SecretValue] = {}
        for secret in plan.secrets:
            value = await self._give(action, secret)
            if secret.env_var:
                secret_env[secret.env_var] = value
            else:
                secret_files[f"{secret.group}/{secret.key}" if secret.group else secret.key] = value
        return Launch(
            attempt=action.attempt_id,
            args=fill_in(plan.args, values),
            env=env,
            secret_env=secret_env,
            secret_files=secret_files,
            cpu=plan.cpu or DEFAULT_CPU,
            memory=plan.memory or DEFAULT_MEMORY,
            memory_limit=plan.memory_limit,
            run_seconds=seconds_of(plan.bounds, Bound.MAX_RUNTIME),
            notes=self._notes(plan),
            template=plan.template,
            values=values,
            resource=action.resource,
            labels=settings.labels,
            annotations=settings.annotations,
            interruptible=bool(plan.interruptible if settings.interruptible is None else settings.interruptible),
            service_account=settings.service_account,
            input_uri=action.input_uri,
            output_prefix=action.output_prefix(action.attempt),
        )

    def _identity(self, action: Action, run: Run) -> Mapping[str, str]:
        task = action.task.name
        scope = {"PROJECT": run.id.project, "DOMAIN": run.id.domain}
        return {
            "ACTION_NAME": action.id.name,
            "RUN_NAME": run.id.name,
            "FLYTE_ATTEMPT_NUMBER": str(action.attempt - 1),
            "FLYTE_INTERNAL_EXECUTION_ID": run.id.name,
            **{f"FLYTE_INTERNAL_EXECUTION_{key}": value for key, value in scope.items()},
            "FLYTE_INTERNAL_TASK_PROJECT": task.project,
            "FLYTE_INTERNAL_TASK_DOMAIN": task.domain,
            "FLYTE_INTERNAL_TASK_NAME": task.name,
            "FLYTE_INTERNAL_TASK_VERSION": task.version,
            "_U_ORG_NAME": run.id.org or "local",
            "_U_RUN_BASE": run.base_uri,
            "_U_EP_OVERRIDE": self.endpoint,
            "_U_INSECURE": str(self.insecure).lower(),
            "_F_PN": _unique_key(action),
        }

    def _notes(self, plan: TaskPlan) -> tuple[str, ...]:
        notes = []
        if self.interpreter:
            notes.append(f"runs in {self.interpreter}; its image is not used: {plan.image or 'none'}")
        notes.extend(
            f"{NAMES[each.bound][0]} is {span(each.seconds)}: {each.why}" for each in plan.bounds if each.asked
        )
        return tuple(notes)

    async def _inputs(self, action: Action) -> Mapping[str, str]:
        """`inputs.name` -> its value as a text. Raises Unreadable, TooLarge."""
        found = await self.blobs.read(action.input_uri, limit=LARGEST_INPUTS) if action.input_uri else None
        texts = input_texts(parse_inputs(found or b"", action.input_uri))
        return {f"inputs.{name}": text for name, text in texts.items()}

    async def _give(self, action: Action, secret: SecretRequest) -> SecretValue:
        scope = ProjectId(action.id.run.project, action.id.run.domain)
        value = await self.secrets.give(scope, secret.key)
        if value is None:
            raise SecretMissing(key=secret.key, project=scope.project, domain=scope.domain)
        return value


def template_values(action: Action, run: Run, *, settings: RunSettings, namespace: str = "") -> dict[str, str]:
    """Values of the argument templates (sdk-contract.md §3.1, upstream-behaviour.md §2.7)."""
    prefix = action.output_prefix(action.attempt)
    before = action.output_prefix(action.attempt - 1)
    started: datetime = settings.run_start_time or run.created_at
    return {
        "input": action.input_uri,
        "inputPrefix": action.input_uri.removesuffix("/inputs.pb"),
        "outputPrefix": prefix,
        "rawOutputDataPrefix": settings.raw_data_prefix or f"{prefix}/raw",
        "checkpointOutputPrefix": f"{prefix}/_flytecheckpoints",
        "prevCheckpointPrefix": f"{before}/_flytecheckpoints" if action.attempt > 1 else "",
        "runName": run.id.name,
        "actionName": action.id.name,
        "runStartTime": f"{started.astimezone(UTC):%Y-%m-%dT%H:%M:%S.%f}Z",
        "perRetryUniqueKey": _unique_key(action),
        "podName": _unique_key(action),
        "namespace": namespace or f"{run.id.project}-{run.id.domain}",
    }


def _unique_key(action: Action) -> str:
    """The name of its pod, where there are pods."""
    name = action.resource.name if action.resource else f"{action.id.run.name}-{action.id.name}"
    return f"{name}-{action.attempt - 1}"
