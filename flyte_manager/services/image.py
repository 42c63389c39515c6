"""ImageService: nothing is built here."""

from flyteidl2.imagebuilder import definition_pb2, payload_pb2, service_connect
from flyteidl2.imagebuilder import service_pb2 as _service  # noqa: F401  # rpc looks up its descriptor

from flyte_manager.domain.errors import NotGiven, Unsupported
from flyte_manager.services.context import Context


class NoImageBuilder(Unsupported):
    """this manager builds no images yet, and pods need image {name!r}: use an image that has the task's packages in it
    (flyte.Image.from_base, without layers), or build where you are: `--builder local` in `flyte create config`, with a
    registry to which you can push and from which the cluster pulls."""


class ImageService(service_connect.ImageService):
    """`pods`: whether tasks run in images."""

    def __init__(self, *, pods: bool = False) -> None:
        self._pods = pods

    async def get_image(self, request: payload_pb2.GetImageRequest, _ctx: Context) -> payload_pb2.GetImageResponse:
        """For processes any answer means that the image exists, so that the SDK builds none; the run's log says what
        runs it."""
        if not request.id.name:
            raise NotGiven(field="id.name")
        if self._pods:
            raise NoImageBuilder(name=request.id.name)
        return payload_pb2.GetImageResponse(image=definition_pb2.Image(id=request.id, fqin=request.id.name))
