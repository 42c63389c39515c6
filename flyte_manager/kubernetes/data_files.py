"""The helpers of a ContainerTask, whose program knows files and not Flyte (our own image runs both of them):

    flyte-upload     a sidecar: started first, waits until the containers have ended, then makes outputs.pb of the files
                     in the output folder. Its end, not the primary container's, is the end of the attempt.
    flyte-download   an init container: writes each input as a file into the input folder

A SIGTERM that comes before a container's first process listens for it is lost; so nothing else starts until the
sidecar's postStart hook has seen that it listens. The pod gets time for a long upload; who deletes it may give less.
"""

import base64

from flyteidl2.core import tasks_pb2

from flyte_manager.domain.ports import Launch, LaunchRefused
from flyte_manager.kubernetes.containers import NameTaken, with_mount, with_volume
from flyte_manager.kubernetes.merging import Json

UPLOADER, DOWNLOADER = "flyte-upload", "flyte-download"
INPUTS_VOLUME, OUTPUTS_VOLUME, STATE_VOLUME = "flyte-inputs", "flyte-outputs", "flyte-helper"
UPLOAD_SECONDS = 3600
STATE_FOLDER = "/run/flyte"
READY_FILE = f"{STATE_FOLDER}/ready"

_DEFAULT_INPUTS, _DEFAULT_OUTPUTS = "/var/flyte/inputs", "/var/flyte/outputs"
_Config = tasks_pb2.DataLoadingConfig
_Strategy = tasks_pb2.IOStrategy


class NoHelperImage(LaunchRefused):
    """task {task!r} is a ContainerTask: its inputs and outputs are moved by a helper in the pod, and no image is set
    for it: set manager.kubernetes.helperImage to the image of this manager."""


class BadFolder(LaunchRefused):
    """the {what} folder {path!r} of task {task!r} can't be used: it must be an absolute path below /, without `..` and
    `:`."""


class SameFolder(LaunchRefused):
    """task {task!r} has {path!r} as the folder of both its inputs and its outputs: give it two."""


class NoDataConfig(LaunchRefused):
    """task {task!r} is a ContainerTask with inputs or outputs and a pod template written in Python, with which the SDK
    loses where they lie: give `pod_template=` the name of a PodTemplate in the namespace instead."""


def data_config(template: tasks_pb2.TaskTemplate) -> tasks_pb2.DataLoadingConfig | None:
    """None when the task reads and writes its data itself. Raises NoDataConfig."""
    target = template.k8s_pod if template.HasField("k8s_pod") else template.container
    if target.HasField("data_config"):
        return target.data_config if target.data_config.enabled else None
    has_data = template.interface.inputs.variables or template.interface.outputs.variables
    if template.type == "raw-container" and template.HasField("k8s_pod") and has_data:
        raise NoDataConfig(task=template.id.name)
    return None


def with_helpers(
    spec: Json,
    launch: Launch,
    *,
    template: tasks_pb2.TaskTemplate,
    config: tasks_pb2.DataLoadingConfig,
    primary: str,
    helper: Json,
) -> Json:
    """`helper`: image, image pull policy and variables of the helpers. Raises NoHelperImage, BadFolder, SameFolder."""
    task, strategy = template.id.name, config.io_strategy
    inputs, outputs = template.interface.inputs, template.interface.outputs
    downloads = bool(inputs.variables) and strategy.download_mode != _Strategy.DO_NOT_DOWNLOAD
    uploads = bool(outputs.variables) and strategy.upload_mode != _Strategy.DO_NOT_UPLOAD
    if not downloads and not uploads:
        return spec
    if not helper["image"]:
        raise NoHelperImage(task=task)
    sources = _folder(config.input_path or _DEFAULT_INPUTS, "input", task)
    results = _folder(config.output_path or _DEFAULT_OUTPUTS, "output", task)
    if downloads and uploads and sources == results:
        raise SameFolder(task=task, path=sources)
    made = []
    if uploads:
        spec = _with_folder(spec, OUTPUTS_VOLUME, results, primary)
        spec = with_volume(spec, {"name": STATE_VOLUME, "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}})
        given = spec.get("terminationGracePeriodSeconds")
        if not isinstance(given, int) or given < UPLOAD_SECONDS:
            spec["terminationGracePeriodSeconds"] = UPLOAD_SECONDS
        made.append(_uploader(helper, launch, outputs.SerializeToString(deterministic=True), results))
    if downloads:
        spec = _with_folder(spec, INPUTS_VOLUME, sources, primary)
        made.append(_downloader(helper, launch, config, sources))
    inits = spec.get("initContainers") or []
    for each in (*inits, *spec["containers"]):
        if each["name"] in (UPLOADER, DOWNLOADER):
            raise NameTaken(kind="container", name=each["name"])
    return {**spec, "initContainers": [*made, *inits]}


def _uploader(helper: Json, launch: Launch, outputs: bytes, folder: str) -> Json:
    raw = launch.values.get("rawOutputDataPrefix") or f"{launch.output_prefix}/raw"
    args = ["--folder", folder, "--results", launch.output_prefix, "--raw", raw]
    args += ["--outputs", base64.b64encode(outputs).decode(), "--ready", READY_FILE, "--seconds", str(UPLOAD_SECONDS)]
    wait = f"until [ -e {READY_FILE} ]; do sleep 0.05; done"
    return {
        **_helper(UPLOADER, helper, ["upload", *args]),
        "restartPolicy": "Always",
        "lifecycle": {"postStart": {"exec": {"command": ["sh", "-c", wait]}}},
        "volumeMounts": [
            {"name": OUTPUTS_VOLUME, "mountPath": folder},
            {"name": STATE_VOLUME, "mountPath": STATE_FOLDER},
        ],
    }


def _downloader(helper: Json, launch: Launch, config: tasks_pb2.DataLoadingConfig, folder: str) -> Json:
    args = ["--folder", folder, "--inputs", launch.input_uri, "--results", launch.output_prefix]
    args += ["--format", _Config.LiteralMapFormat.Name(config.format)]
    args += ["--layout", _Config.FileInputLayout.Name(config.file_input_layout)]
    return {
        **_helper(DOWNLOADER, helper, ["download", *args]),
        "volumeMounts": [{"name": INPUTS_VOLUME, "mountPath": folder}],
    }


def _helper(name: str, helper: Json, args: list[str]) -> Json:
    return {
        "name": name,
        **helper,
        "command": ["python", "-m", "flyte_manager.copilot"],
        "args": args,
        "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"memory": "512Mi"}},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "terminationMessagePolicy": "FallbackToLogsOnError",
    }


def _with_folder(spec: Json, volume: str, folder: str, primary: str) -> Json:
    spec = with_volume(spec, {"name": volume, "emptyDir": {}})
    mount = {"name": volume, "mountPath": folder}
    return {
        **spec,
        "containers": [with_mount(each, mount) if each["name"] == primary else each for each in spec["containers"]],
    }


def _folder(path: str, what: str, task: str) -> str:
    """Raises BadFolder."""
    folder = path.rstrip("/")
    if not folder.startswith("/") or ".." in folder.split("/") or ":" in folder:
        raise BadFolder(what=what, path=path[:200], task=task)
    return folder
