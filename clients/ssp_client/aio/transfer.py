"""Exported states on their way from a server to a file, for asyncio."""

from __future__ import annotations

import asyncio
from typing import BinaryIO

import grpc.aio

from ssp_client.aio.transport import AsyncTransport
from ssp_client.calls import Call
from ssp_client.state_calls import StatePiece
from ssp_client.transfer import Arrival


async def download(transport: AsyncTransport, call: Call[StatePiece], file: BinaryIO, timeout: float | None) -> int:
    """As `ssp_client.transfer.download`."""
    arrival, messages = Arrival(), transport.stream(call, timeout)
    try:
        async for message in messages:
            await asyncio.to_thread(file.write, arrival.data(call.parse(message)))
    except grpc.aio.AioRpcError as error:
        raise transport.exception(error) from error
    finally:
        messages.cancel()
    return arrival.end()
