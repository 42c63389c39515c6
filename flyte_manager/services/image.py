"""ImageService: nothing is built here."""

from flyteidl2.imagebuilder import definition_pb2, payload_pb2, service_connect
from flyteidl2.imagebuilder import service_pb2 as _service  # noqa: F401  # rpc looks up its descriptor

from flyte_manager.domain.errors import NotGiven
from flyte_manager.domain.features import IMAGE_BUILDING, NotYet
from flyte_manager.services.context import Context


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
            raise NotYet(f"image {request.id.name!r} for a pod", IMAGE_BUILDING)
        return payload_pb2.GetImageResponse(image=definition_pb2.Image(id=request.id, fqin=request.id.name))
