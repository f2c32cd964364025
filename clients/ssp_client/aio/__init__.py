"""The client for asyncio: what `ssp_client` does, awaited."""

from ssp_client.aio.client import AsyncClient
from ssp_client.aio.session import AsyncSession
from ssp_client.aio.step_stream import AsyncStepStream
from ssp_client.aio.stream import AsyncGenerateStream

__all__ = ["AsyncClient", "AsyncGenerateStream", "AsyncSession", "AsyncStepStream"]
