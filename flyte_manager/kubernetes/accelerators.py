"""Which nodes have the device that a task asks for, by the labels that clouds give them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from flyteidl2.core import tasks_pb2

from flyte_manager.domain.ports import LaunchRefused
from flyte_manager.kubernetes.merging import Json, Misshapen
from flyte_manager.kubernetes.pod_labels import legal_value

_Class = tasks_pb2.GPUAccelerator.DeviceClass


class UnknownDevice(LaunchRefused):
    """{device!r} can't be chosen by a node's label: ask for another device, or ask for a number of GPUs and choose the
    nodes by a pod template's nodeSelector."""


@dataclass(frozen=True, slots=True)
class Device:
    """How a class of devices is asked for. Without a label nodes aren't chosen by model or partition."""

    resource: str
    label: str = ""
    partition_label: str = ""


_DEVICES: Mapping[int, Device] = {
    _Class.GOOGLE_TPU: Device(
        "google.com/tpu", "cloud.google.com/gke-tpu-accelerator", "cloud.google.com/gke-tpu-topology"
    ),
    _Class.AMAZON_NEURON: Device("aws.amazon.com/neuron"),
    _Class.AMD_GPU: Device("amd.com/gpu"),
    _Class.HABANA_GAUDI: Device("habana.ai/gaudi"),
}


def device(accelerator: tasks_pb2.GPUAccelerator, nvidia: Device) -> Device:
    """What stands for the task's devices. Raises UnknownDevice."""
    if accelerator.device_class == _Class.NVIDIA_GPU:
        return nvidia
    found = _DEVICES.get(accelerator.device_class)
    if found is None:
        raise UnknownDevice(device=accelerator.device or str(accelerator.device_class))
    return found


def choose_nodes(spec: Json, accelerator: tasks_pb2.GPUAccelerator, device: Device) -> None:
    """Adds to the pod's affinity and tolerations. Raises UnknownDevice."""
    if accelerator.device and device.label:
        _choose(spec, device.label, accelerator.device)
    if accelerator.partition_size and device.partition_label:
        _choose(spec, device.partition_label, accelerator.partition_size)
    elif accelerator.unpartitioned and device.partition_label:
        _require(spec, {"key": device.partition_label, "operator": "DoesNotExist"})


def _choose(spec: Json, label: str, value: str) -> None:
    if not legal_value(value):
        raise UnknownDevice(device=value)
    _require(spec, {"key": label, "operator": "In", "values": [value]})
    spec.setdefault("tolerations", []).append(
        {"key": label, "operator": "Equal", "value": value, "effect": "NoSchedule"}
    )


def _require(spec: Json, expression: Mapping[str, Any]) -> None:
    """One of the terms must hold, and of a term all expressions. Raises Misshapen."""
    affinity = _object(_object(spec, "affinity"), "nodeAffinity")
    required = _object(affinity, "requiredDuringSchedulingIgnoredDuringExecution")
    terms = required.setdefault("nodeSelectorTerms", [])
    if not isinstance(terms, list) or not all(isinstance(term, dict) for term in terms):
        raise Misshapen("nodeSelectorTerms must be a list of objects")
    if not terms:
        terms.append({})
    for term in terms:
        term["matchExpressions"] = [*(term.get("matchExpressions") or ()), dict(expression)]


def _object(parent: Json, name: str) -> Json:
    found: Json = parent.setdefault(name, {})
    if not isinstance(found, dict):
        raise Misshapen(f"{name} must be an object")
    return found
