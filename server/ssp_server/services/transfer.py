"""ExportState and ImportState of `ssp.v1.Sessions`."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

import torch

from ssp.v1 import sessions_pb2
from ssp_runtime.engine.generator import Generator
from ssp_runtime.errors import InvalidRequest
from ssp_runtime.sessions import snapshot, transfer
from ssp_runtime.sessions.keeper import Keeper
from ssp_server import wire
from ssp_server.caller import caller
from ssp_server.registry import Registry

_CHUNK_BYTES = 1 << 20
_DTYPES = {
    sessions_pb2.STATE_DTYPE_UNSPECIFIED: None,
    sessions_pb2.STATE_DTYPE_FLOAT32: torch.float32,
    sessions_pb2.STATE_DTYPE_BFLOAT16: torch.bfloat16,
    sessions_pb2.STATE_DTYPE_FLOAT16: torch.float16,
}


@dataclass(frozen=True, kw_only=True)
class Transfer:
    registry: Registry
    keeper: Keeper

    async def export(self, request: sessions_pb2.ExportStateRequest) -> AsyncIterator[sessions_pb2.ExportStateResponse]:
        if request.dtype not in _DTYPES:
            raise InvalidRequest("dtype must be absent, or one of float32, bfloat16 and float16")
        async with self.keeper.using(request.session_id, caller().tenant) as session:
            generator = self.keeper.manager.generator(session)
            await self.keeper.checkpoint_in_memory(session, request.checkpoint)
            copy = transfer.copied(session, generator, request.checkpoint, wire.expected_position(request))
            sequence = await asyncio.wrap_future(copy)
            status = wire.session_status(session)
        data = await asyncio.to_thread(transfer.pack, sequence, generator, _DTYPES[request.dtype])
        yield sessions_pb2.ExportStateResponse(session=status, position=sequence.position, total_bytes=len(data))
        for start in range(0, len(data), _CHUNK_BYTES):
            yield sessions_pb2.ExportStateResponse(data=data[start : start + _CHUNK_BYTES])

    async def take_in(
        self, requests: AsyncIterator[sessions_pb2.ImportStateRequest]
    ) -> sessions_pb2.ImportStateResponse:
        first = await anext(requests, sessions_pb2.ImportStateRequest())
        ttl, most = wire.ttl(first), self._most_bytes(first.model)
        contents = await asyncio.to_thread(snapshot.read, await _received(first.data, requests, most))
        generator = self.registry.fitting(first.model, contents.header.fingerprint)
        sequence = await asyncio.to_thread(transfer.restored, contents, generator)
        async with self.keeper.room(generator):
            session = self.keeper.manager.open(
                generator, first.routing_key, first.request_id, ttl, owner=caller().tenant, start=sequence
            )
        await self.keeper.commit(session)
        return sessions_pb2.ImportStateResponse(session=wire.session_info(session, generator))

    def _most_bytes(self, model: str) -> int:
        """How large a snapshot of the model can be, of any model if its name is empty."""
        if model:
            return transfer.max_bytes(self.registry.generator(model))
        generators = [served for served in self.registry.all() if isinstance(served, Generator)]
        return max(map(transfer.max_bytes, generators), default=0)


async def _received(data: bytes, requests: AsyncIterator[sessions_pb2.ImportStateRequest], most: int) -> bytes:
    """All data of the stream. Raises `InvalidRequest` as soon as it is too much."""
    parts, size = [data], len(data)
    async for request in requests:
        parts.append(request.data)
        size += len(request.data)
        if size > most:
            break
    if size > most:
        raise InvalidRequest(f"the snapshot is larger than the {most} bytes that one of this model can have")
    return b"".join(parts)
