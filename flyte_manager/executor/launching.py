"""Makes a Launch from an action's row and its task: argument templates, environment, secrets, notes for its log."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from flyte_manager.domain.actions import Action, Run
from flyte_manager.domain.errors import Unready
from flyte_manager.domain.ids import ProjectId
from flyte_manager.domain.ports import Launch, Secrets
from flyte_manager.domain.tasks import SecretRequest, TaskPlan, fill_in
from flyte_manager.executor.admission import DEFAULT_CPU, DEFAULT_MEMORY
from flyte_manager.wire.plan import RunSettings


class SecretMissing(Unready):
    """the task asks for secret {key!r}, which {project}/{domain} does not have: `flyte create secret {key}` makes
    it."""


@dataclass(frozen=True, slots=True)
class Launching:
    """What is the same for all attempts. `endpoint` is the host:port at which tasks reach the manager."""

    secrets: Secrets
    endpoint: str
    interpreter: str
    """shown in logs: which Python runs the tasks"""

    async def launch(self, action: Action, run: Run, *, plan: TaskPlan, settings: RunSettings) -> Launch:
        """Raises SecretMissing."""
        values = template_values(action, run, settings)
        env = {**plan.env, **self._defaults(), **settings.envs, **self._identity(action, run)}
        files: dict[str, bytes] = {}
        for secret in plan.secrets:
            value = await self._reveal(action, secret)
            if secret.env_var:
                env[secret.env_var] = value.decode(errors="surrogateescape")
            else:
                files[f"{secret.group}/{secret.key}" if secret.group else secret.key] = value
        return Launch(
            attempt=action.attempt_id,
            args=fill_in(plan.args, values),
            env=env,
            secret_files=files,
            cpu=plan.cpu or DEFAULT_CPU,
            memory=plan.memory or DEFAULT_MEMORY,
            memory_limit=plan.memory_limit,
            notes=self._notes(plan),
        )

    def _defaults(self) -> Mapping[str, str]:
        """What the run's own variables may override."""
        return {"_U_USE_ACTIONS": "1", "FSSPEC_FILE": '{"auto_mkdir": true}'}

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
            "_U_INSECURE": "true",
            "_F_PN": _unique_key(action),
        }

    def _notes(self, plan: TaskPlan) -> tuple[str, ...]:
        notes = [f"runs in {self.interpreter}; its image is not used: {plan.image or 'none'}"]
        if plan.not_enforced:
            notes.append(f"{' and '.join(plan.not_enforced)} of this task: not enforced yet by this manager")
        return tuple(notes)

    async def _reveal(self, action: Action, secret: SecretRequest) -> bytes:
        scope = ProjectId(action.id.run.project, action.id.run.domain)
        value = await self.secrets.reveal(scope, secret.key)
        if value is None:
            raise SecretMissing(key=secret.key, project=scope.project, domain=scope.domain)
        return value


def template_values(action: Action, run: Run, settings: RunSettings) -> dict[str, str]:
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
        "namespace": f"{run.id.project}-{run.id.domain}",
    }


def _unique_key(action: Action) -> str:
    return f"{action.id.run.name}-{action.id.name}-{action.attempt - 1}"
