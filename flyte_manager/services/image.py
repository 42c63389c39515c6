"""ImageService: nothing is built here."""

from flyteidl2.imagebuilder import definition_pb2, payload_pb2, service_connect
from flyteidl2.imagebuilder import service_pb2 as _service  # noqa: F401  # rpc looks up its descriptor

from flyte_manager.domain.errors import NotGiven
from flyte_manager.services.context import Context


class ImageService(service_connect.ImageService):
    async def get_image(self, request: payload_pb2.GetImageRequest, _ctx: Context) -> payload_pb2.GetImageResponse:
        """Any answer means that the image exists, so that the SDK builds none; the run's log says what runs it."""
        if not request.id.name:
            raise NotGiven(field="id.name")
        return payload_pb2.GetImageResponse(image=definition_pb2.Image(id=request.id, fqin=request.id.name))
