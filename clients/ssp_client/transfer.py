"""Exported states on their way from a server to a file."""

from __future__ import annotations

from typing import BinaryIO

import grpc

from ssp_client.calls import Call
from ssp_client.errors import DataLoss
from ssp_client.state_calls import StatePiece
from ssp_client.transport import Transport


class Arrival:
    """Counts the bytes of one state as they come."""

    def __init__(self) -> None:
        self._position = self._total = self._received = 0

    def data(self, piece: StatePiece) -> bytes:
        """What the next message brings of the file."""
        self._position, self._total = self._position + piece.position, self._total + piece.total_bytes
        self._received += len(piece.data)
        return piece.data

    def end(self) -> int:
        """The position of the state, all of which has come. Raises `DataLoss` if it has not."""
        if self._received != self._total or not self._total:
            raise DataLoss(f"of the state's {self._total} bytes {self._received} came; export it again")
        return self._position


def download(transport: Transport, call: Call[StatePiece], file: BinaryIO, timeout: float | None) -> int:
    """Writes an exported state to a file; the answer is the state's position."""
    arrival, messages = Arrival(), transport.stream(call, timeout)
    try:
        for message in messages:
            file.write(arrival.data(call.parse(message)))
    except grpc.RpcError as error:
        raise transport.exception(error) from error
    finally:
        messages.cancel()
    return arrival.end()
