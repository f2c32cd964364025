"""`grpc.health.v1.Health/Check` by hand.

The request is one string field (`service = 1`), the response one enum field (`status = 1`): encoding the two
here spares the client a dependency.
"""

from __future__ import annotations

from ssp_client.types import ServingStatus

CHECK = "/grpc.health.v1.Health/Check"

_SERVICE_TAG = b"\x0a"  # field 1, length-delimited
_STATUS_TAG = 0x08  # field 1, varint
_STATUSES = (ServingStatus.UNKNOWN, ServingStatus.SERVING, ServingStatus.NOT_SERVING, ServingStatus.SERVICE_UNKNOWN)


def encode_request(service: str) -> bytes:
    """`HealthCheckRequest`; the empty service asks for the process as a whole.

    Raises:
        ValueError: the name is longer than 127 bytes.
    """
    name = service.encode()
    if len(name) > 127:
        raise ValueError("a service's name has at most 127 bytes")
    return _SERVICE_TAG + bytes([len(name)]) + name if name else b""


def decode_response(body: bytes) -> ServingStatus:
    """`HealthCheckResponse`; a status this client does not know reads as UNKNOWN."""
    if len(body) < 2 or body[0] != _STATUS_TAG or body[1] >= len(_STATUSES):
        return ServingStatus.UNKNOWN
    return _STATUSES[body[1]]
