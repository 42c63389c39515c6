"""Asks the API server what the manager may do there: a SelfSubjectAccessReview for each permission of the one list."""

import asyncio
from collections.abc import Sequence

from flyte_manager.kubernetes.client import Client
from flyte_manager.kubernetes.permissions import Permission, all_permissions, as_yaml, missing_rules, review
from flyte_manager.kubernetes.resources import SELF_SUBJECT_ACCESS_REVIEWS


async def problems(client: Client, namespace: str) -> Sequence[str]:
    """A sentence for each rule that is missing, wholly or in part. Raises ApiError and Unavailable."""
    needed = all_permissions()
    allowed = await asyncio.gather(*(_allowed(client, each, namespace) for each in needed))
    lacking = [each for each, has in zip(needed, allowed, strict=True) if not has]
    found = []
    for rule in missing_rules(lacking):
        verbs = ", ".join(each.verb for each in rule.permissions() if each in lacking)
        role = f"a Role in namespace {namespace}" if rule.namespaced else "a ClusterRole"
        found.append(
            f"the manager may not {verbs} {rule.resource}, needed to {rule.why}: add to {role} {as_yaml(rule)}"
        )
    return found


async def _allowed(client: Client, permission: Permission, namespace: str) -> bool:
    answer = await client.create(SELF_SUBJECT_ACCESS_REVIEWS, review(permission, namespace))
    return bool(answer["status"].get("allowed"))
