"""`ssp.v1.Models`."""

from dataclasses import dataclass

from ssp.v1 import models_pb2
from ssp_server import wire
from ssp_server.registry import Registry


@dataclass(frozen=True, kw_only=True)
class ModelsService:
    registry: Registry
    max_message_bytes: int

    async def ListModels(self, _: models_pb2.ListModelsRequest) -> models_pb2.ListModelsResponse:
        models = [wire.model_info(served, self.max_message_bytes) for served in self.registry.all()]
        return models_pb2.ListModelsResponse(models=models)

    async def GetModel(self, request: models_pb2.GetModelRequest) -> models_pb2.GetModelResponse:
        served = self.registry.find(request.name)
        return models_pb2.GetModelResponse(model=wire.model_info(served, self.max_message_bytes))
