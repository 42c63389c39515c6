"""The rules that the manager needs are the rules that deploy/ grants."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from flyte_manager.kubernetes.permissions import (
    RULES,
    Permission,
    all_permissions,
    as_yaml,
    missing_rules,
    review,
    rule_text,
)

DEPLOY = Path(__file__).parents[3] / "deploy"


def granted() -> Iterator[tuple[bool, Mapping[str, Any]]]:
    """(whether of a Role, rule) of each rule in deploy/."""
    for file in sorted(DEPLOY.glob("*.yaml")):
        for found in yaml.safe_load_all(file.read_text()):
            if found.get("kind") in ("Role", "ClusterRole"):
                yield from ((found["kind"] == "Role", rule) for rule in found["rules"])


def single(namespaced: bool, rule: Mapping[str, Any]) -> Iterator[tuple[bool, str, str, str, str]]:
    """A rule as (whether of a Role, group, resource, name, verb)."""
    for group in rule["apiGroups"]:
        for resource in rule["resources"]:
            for name in rule.get("resourceNames", [""]):
                yield from ((namespaced, group, resource, name, verb) for verb in rule["verbs"])


def test_the_deployment_grants_what_is_needed_and_nothing_else() -> None:
    needed = {(rule.namespaced, rule.group, rule.resource, rule.name, verb) for rule in RULES for verb in rule.verbs}
    assert {each for namespaced, rule in granted() for each in single(namespaced, rule)} == needed


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.resource)
def test_a_rule_is_shown_as_it_stands_in_a_role(rule: Any) -> None:
    [shown] = yaml.safe_load(f"rules:\n- {as_yaml(rule)}\n")["rules"]
    expected = {"apiGroups": [rule.group], "resources": [rule.resource], "verbs": list(rule.verbs)}
    assert shown == (expected | {"resourceNames": [rule.name]} if rule.name else expected)


def test_an_error_shows_the_whole_rule_and_for_what_is_not_listed_the_verb() -> None:
    assert rule_text("", "pods/log") == '{apiGroups: [""], resources: [pods/log], verbs: [get]}'
    assert rule_text("", "nodes", "list") == '{apiGroups: [""], resources: [nodes], verbs: [list]}'


def test_a_review_asks_in_the_namespace_or_in_the_whole_cluster() -> None:
    asked = [review(each, "flyte")["spec"]["resourceAttributes"] for each in all_permissions()]
    assert {
        "namespace": "flyte", "verb": "patch", "group": "flyte.org", "resource": "taskactions", "subresource": "status"
    } in asked  # fmt: skip
    assert {
        "verb": "get",
        "group": "apiextensions.k8s.io",
        "resource": "customresourcedefinitions",
        "name": "taskactions.flyte.org",
    } in asked


def test_a_missing_permission_asks_for_its_whole_rule_once() -> None:
    lacking = [each for each in all_permissions() if each.resource == "pods" and each.verb in ("list", "watch")]
    assert len(lacking) == 2
    assert [rule.resource for rule in missing_rules(lacking)] == ["pods"]
    assert missing_rules([]) == []


def test_a_permission_reads_as_kubectl_writes_it() -> None:
    assert str(Permission("get", "", "pods", "log")) == "get pods/log"
    assert str(Permission("update", "coordination.k8s.io", "leases")) == "update leases.coordination.k8s.io"


def test_every_rule_says_why() -> None:
    assert all(rule.why for rule in RULES)
    assert all(permission.why for permission in all_permissions())
