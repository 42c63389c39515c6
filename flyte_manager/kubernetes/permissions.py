"""All that the manager asks of the cluster's RBAC: the one list.

The doctor checks it rule by rule, error texts show the rule that is missing, and a test compares it with the Role and
ClusterRole in deploy/, so that nothing is granted that isn't needed.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

REVIEW_API_VERSION = "authorization.k8s.io/v1"
REVIEW_KIND = "SelfSubjectAccessReview"


@dataclass(frozen=True, slots=True)
class Permission:
    """One thing that the manager does, as the API server asks its authorisers."""

    verb: str
    group: str
    """empty: the core API"""
    resource: str
    subresource: str = ""
    namespaced: bool = True
    """in the manager's namespace alone, else in the whole cluster"""
    name: str = ""
    """the only object; empty: any"""
    why: str = ""
    """completes "needed to …" """

    def __str__(self) -> str:
        """As `create pods/log`, with the group where there is one: `get leases.coordination.k8s.io`."""
        resource = f"{self.resource}.{self.group}" if self.group else self.resource
        subresource = f"/{self.subresource}" if self.subresource else ""
        return f"{self.verb} {resource}{subresource}"


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule of a Role, or of a ClusterRole when it isn't namespaced."""

    group: str
    resource: str
    """with its subresource, as `pods/log`"""
    verbs: Sequence[str]
    why: str
    namespaced: bool = True
    name: str = ""

    def permissions(self) -> Iterator[Permission]:
        resource, _, subresource = self.resource.partition("/")
        for verb in self.verbs:
            yield Permission(verb, self.group, resource, subresource, self.namespaced, self.name, self.why)


RULES: Sequence[Rule] = (
    Rule(
        "flyte.org",
        "taskactions",
        ("get", "list", "watch", "create", "patch", "delete"),
        "show each action as a TaskAction, and to run those that others make",
    ),
    Rule("flyte.org", "taskactions/status", ("patch",), "tell in a TaskAction how its action goes"),
    Rule("", "pods", ("get", "list", "watch", "create", "patch", "delete"), "run each attempt as a pod"),
    Rule("", "pods/log", ("get",), "follow the output of tasks, and to keep it"),
    Rule(
        "",
        "events",
        ("list", "watch", "create", "patch"),
        "show what happens to pods, and to tell of it at TaskActions",
    ),
    Rule(
        "",
        "secrets",
        ("get", "list", "create", "patch", "delete"),
        "keep the secrets that users give to tasks",
    ),
    Rule("", "podtemplates", ("get",), "use the pod templates that tasks and manager.kubernetes.podTemplate name"),
    Rule("coordination.k8s.io", "leases", ("get", "create", "update"), "be the only manager of the namespace"),
    Rule(
        "apiextensions.k8s.io",
        "customresourcedefinitions",
        ("get",),
        "see whether the cluster knows TaskActions as this version does",
        namespaced=False,
        name="taskactions.flyte.org",
    ),
)


def all_permissions() -> Sequence[Permission]:
    return [permission for rule in RULES for permission in rule.permissions()]


def rule_text(group: str, resource: str, verb: str = "") -> str:
    """The rule to add, as it stands in a Role: all that the list has for the resource (with its subresource).

    Something that the list doesn't have is answered with the verb that was asked for.
    """
    known = [rule for rule in RULES if (rule.group, rule.resource) == (group, resource)]
    return as_yaml(known[0] if known else Rule(group, resource, (verb,), ""))


def as_yaml(rule: Rule) -> str:
    names = f", resourceNames: [{rule.name}]" if rule.name else ""
    verbs = ", ".join(rule.verbs)
    return f'{{apiGroups: ["{rule.group}"], resources: [{rule.resource}]{names}, verbs: [{verbs}]}}'


def review(permission: Permission, namespace: str) -> dict[str, Any]:
    """The SelfSubjectAccessReview that asks whether we have it."""
    attributes = {
        "namespace": namespace if permission.namespaced else "",
        "verb": permission.verb,
        "group": permission.group,
        "resource": permission.resource,
        "subresource": permission.subresource,
        "name": permission.name,
    }
    return {
        "apiVersion": REVIEW_API_VERSION,
        "kind": REVIEW_KIND,
        "spec": {"resourceAttributes": {name: value for name, value in attributes.items() if value}},
    }


def missing_rules(missing: Sequence[Permission]) -> Sequence[Rule]:
    """The rules to add, whole: for each one of which a permission is missing."""
    lacking = set(missing)
    return [rule for rule in RULES if not lacking.isdisjoint(rule.permissions())]
