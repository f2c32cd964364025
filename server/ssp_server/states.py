"""States that clients keep themselves: sealed on the way out, checked on the way in."""

import asyncio
from dataclasses import dataclass

from ssp.v1 import generation_pb2
from ssp_runtime.engine.generator import Generator
from ssp_runtime.engine.sequence import Sequence
from ssp_runtime.errors import InvalidRequest
from ssp_runtime.sessions import seal, snapshot, transfer
from ssp_server.caller import caller
from ssp_server.registry import Registry


@dataclass(frozen=True, kw_only=True)
class SealedStates:
    """`max_bytes` is the size of a message."""

    registry: Registry
    key: bytes
    max_bytes: int

    async def start(self, request: generation_pb2.GenerateRequest) -> tuple[Generator, Sequence]:
        """The model of a request and a sequence that stands where its state does, which lasts past its call if the
        state is to be returned.

        Raises:
            StateNotSealed: the state is not one of ours, or another tenant's.
            InvalidRequest: this model's states are too large to be sent.
            ModelMismatch: the state is another model's.
        """
        if request.state:
            generator, sequence = await self._opened(request)
        else:
            generator = self.registry.generator(request.model)
            sequence = generator.new_sequence(kept=True)
        if request.return_state:
            self._check_size(generator)
        sequence.kept = request.return_state
        return generator, sequence

    async def sealed(self, generator: Generator, sequence: Sequence) -> bytes:
        """The state of an idle sequence, for this caller to keep."""
        detached = await asyncio.wrap_future(generator.engine.copied(sequence))
        tenant = caller().tenant
        return await asyncio.to_thread(lambda: seal.seal(transfer.pack(detached, generator), tenant, self.key))

    async def _opened(self, request: generation_pb2.GenerateRequest) -> tuple[Generator, Sequence]:
        tenant = caller().tenant
        contents = await asyncio.to_thread(lambda: snapshot.read(seal.unsealed(request.state, tenant, self.key)))
        generator = self.registry.fitting(request.model, contents.header.fingerprint)
        return generator, await asyncio.to_thread(transfer.restored, contents, generator)

    def _check_size(self, generator: Generator) -> None:
        size = snapshot.max_bytes(generator, num_call_tokens=0) + seal.NUM_BYTES
        if size > self.max_bytes:
            raise InvalidRequest(
                f"a state of model {generator.name!r} takes up to {size} bytes, more than the {self.max_bytes} of one"
                " message; use a session"
            )
