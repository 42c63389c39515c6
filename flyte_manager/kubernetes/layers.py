"""What a task's pod is laid over: the platform's defaults, and a PodTemplate of the namespace over them.

In both, containers with these names stand for others, as in Flyte: `default` lies beneath every container of the task,
`primary` beneath its primary one, `default-init` beneath every init container. `noop` only fills the list that
Kubernetes wants filled. All others are taken into the pod, beneath the task's container of the same name if it has one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from flyte_manager.domain.ports import LaunchRefused
from flyte_manager.domain.tasks import fill_in
from flyte_manager.kubernetes.merging import Json, Misshapen, merge_containers, merge_maps, merge_specs, plain

PRIMARY = "primary"
_DEFAULT, _DEFAULT_INIT, _PRIMARY_INIT, _FILLER = "default", "default-init", "primary-init", "noop"


class BadTemplate(LaunchRefused):
    """{where} is no pod template that Kubernetes takes: {problem}."""


@dataclass(frozen=True, slots=True)
class Layer:
    """A PodTemplateSpec, or a part of one."""

    spec: Json = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)

    def under(self, over: "Layer") -> "Layer":
        """This one, with what the other says over it."""
        return Layer(
            merge_specs(self.spec, over.spec),
            {**self.labels, **over.labels},
            {**self.annotations, **over.annotations},
        )


def layer(fragment: Mapping[str, Any], where: str) -> Layer:
    """`where`: who wrote it, for people. Raises BadTemplate."""
    unknown = sorted(fragment.keys() - {"metadata", "spec"})
    if unknown:
        raise BadTemplate(where=where, problem=f"{unknown[0]!r} is neither metadata nor spec")
    try:
        spec = merge_specs({}, plain(fragment.get("spec") or {}))
        metadata = merge_maps({}, plain(fragment.get("metadata") or {}))
        return Layer(spec, _texts(metadata, "labels"), _texts(metadata, "annotations"))
    except Misshapen as error:
        raise BadTemplate(where=where, problem=str(error)) from None


def laid_over(base: Json, task: Json, primary: str) -> Json:
    """The task's PodSpec over that of the layers beneath. Both must have come through `layer`."""
    spec = merge_specs(
        {name: value for name, value in base.items() if name not in ("containers", "initContainers")}, task
    )
    spec["containers"] = _laid_over(base.get("containers", ()), task["containers"], primary)
    inits = _inits_laid_over(base.get("initContainers", ()), task.get("initContainers", ()))
    if inits:
        spec["initContainers"] = inits
    return spec


def filled(spec: Json, values: Mapping[str, str]) -> Json:
    """With the argument templates of all its containers filled in."""
    kinds: Json = {
        kind: [_filled(each, values) for each in spec[kind]]
        for kind in ("containers", "initContainers")
        if kind in spec
    }
    return {**spec, **kinds}


def _filled(container: Json, values: Mapping[str, str]) -> Json:
    given = {part: container[part] for part in ("command", "args") if container.get(part)}
    for part, texts in given.items():
        if not isinstance(texts, list):
            raise Misshapen(f"{part} of container {container['name']!r} must be a list")
    return {**container, **{part: fill_in([str(each) for each in texts], values) for part, texts in given.items()}}


def _laid_over(base: Sequence[Json], task: Sequence[Json], primary: str) -> list[Json]:
    beneath = {each["name"]: each for each in base}
    special = (_DEFAULT, PRIMARY, _FILLER)
    names = {each["name"] for each in task}
    own = []
    for each in task:
        name = each["name"]
        chain = [_DEFAULT, *([PRIMARY] if name == primary else []), *([name] if name not in special else [])]
        own.append(_chained(beneath, chain, each))
    others = [_chained(beneath, [_DEFAULT], each) for each in base if each["name"] not in {*special, *names}]
    return own + others


def _inits_laid_over(base: Sequence[Json], task: Sequence[Json]) -> list[Json]:
    beneath = {each["name"]: each for each in base}
    special = (_DEFAULT_INIT, _PRIMARY_INIT)
    names = {each["name"] for each in task}
    others = [_chained(beneath, [_DEFAULT_INIT], each) for each in base if each["name"] not in {*special, *names}]
    own = [_chained(beneath, [_DEFAULT_INIT, each["name"]], each) for each in task]
    return others + own


def _chained(beneath: Mapping[str, Json], names: Sequence[str], over: Json) -> Json:
    merged: Json = {}
    for name in names:
        merged = merge_containers(merged, beneath.get(name, {}))
    return merge_containers(merged, over)


def _texts(metadata: Json, name: str) -> dict[str, str]:
    given = metadata.get(name) or {}
    if not isinstance(given, dict) or not all(isinstance(value, str) for value in given.values()):
        raise Misshapen(f"metadata.{name} must be an object of texts")
    return given
