"""`ssp.v1.Models`."""

import re
from dataclasses import dataclass
from pathlib import Path

from ssp.v1 import models_pb2
from ssp_runtime.completed import completed
from ssp_runtime.errors import InvalidRequest, ModelInUse, SSPError
from ssp_runtime.sessions.keeper import Keeper
from ssp_server import wire
from ssp_server.loader import Loader
from ssp_server.model_roots import ModelRoots
from ssp_server.registry import Registry, Served

_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")


@dataclass(frozen=True, kw_only=True)
class ModelsService:
    registry: Registry
    keeper: Keeper
    loader: Loader
    roots: ModelRoots
    max_message_bytes: int

    async def ListModels(self, _: models_pb2.ListModelsRequest) -> models_pb2.ListModelsResponse:
        models = [wire.model_info(served, self.max_message_bytes) for served in self.registry.all()]
        return models_pb2.ListModelsResponse(models=models)

    async def GetModel(self, request: models_pb2.GetModelRequest) -> models_pb2.GetModelResponse:
        served = self.registry.find(request.name)
        return models_pb2.GetModelResponse(model=wire.model_info(served, self.max_message_bytes))

    async def LoadModel(self, request: models_pb2.LoadModelRequest) -> models_pb2.LoadModelResponse:
        if not _NAME.fullmatch(request.name):
            raise InvalidRequest("the name of a model must be 1 to 64 letters, digits, '.', '-' or '_'")
        folder = self.roots.find(request.folder)
        served = await completed(self._load(request.name, folder))
        return models_pb2.LoadModelResponse(model=wire.model_info(served, self.max_message_bytes))

    async def _load(self, name: str, folder: Path) -> Served:
        served = await self.loader.add(name, folder)
        await self.keeper.model_comes()
        return served

    async def UnloadModel(self, request: models_pb2.UnloadModelRequest) -> models_pb2.UnloadModelResponse:
        name = self.registry.find(request.name).name
        count = 0 if self.keeper.is_durable else len(self.keeper.sessions_of(name))
        if count and not request.force:
            raise ModelInUse(f"model {name!r} has {count} open sessions; close them, or unload it with force")
        self.registry.retire(name)
        return models_pb2.UnloadModelResponse(closed_sessions=await completed(self._unload(name)))

    async def _unload(self, name: str) -> int:
        await self.loader.finish(name)
        try:
            count = await self.keeper.model_goes(name)
        except SSPError:  # the store does not take them now
            self.registry.take_back(name)
            raise
        await self.loader.remove(name)
        return count
