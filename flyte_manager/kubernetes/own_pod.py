"""The pod in which the manager itself runs, if it does."""

import logging
import socket
from collections.abc import Mapping

from flyte_manager.domain.errors import Refusal
from flyte_manager.kubernetes.api_errors import ApiError
from flyte_manager.kubernetes.client import Client
from flyte_manager.kubernetes.resources import PODS

log = logging.getLogger(__name__)

POD_NAME = "POD_NAME"
"""The variable that deploy/deployment.yaml fills in. On the node's network a pod's host name is the node's."""
CONTAINER = "manager"


def name(environ: Mapping[str, str]) -> str:
    return environ.get(POD_NAME) or socket.gethostname()


async def image(client: Client, *, namespace: str, pod: str) -> str:
    """The image by which nodes can run this very manager once more; empty when it can't be found out."""
    try:
        found = await client.get(PODS, pod, namespace=namespace)
    except (ApiError, Refusal) as error:
        words = "the image of this manager's own pod %s/%s can't be found out: %s: set manager.kubernetes.helperImage"
        log.warning(words, namespace, pod, str(error).rstrip("."))
        return ""
    containers = {each["name"]: each["image"] for each in found["spec"]["containers"]}
    return str(containers.get(CONTAINER) or next(iter(containers.values())))
