"""Seals what is given to clients to keep, so that they cannot change it, nor pass it to another tenant.

A seal is a MAC (HMAC-SHA-256) over the tenant and the data, which follow it in the clear.
"""

import hmac

from ssp_runtime.errors import StateNotSealed

NUM_BYTES = 32
MIN_KEY_BYTES = 32

_PURPOSE = b"ssp state 1"  # a key that is used for something else too gives other seals there


def seal(data: bytes, tenant: str, key: bytes) -> bytes:
    """The data behind its seal."""
    return _mac(data, tenant, key) + data


def unsealed(sealed: bytes, tenant: str, key: bytes) -> bytes:
    """The data that was sealed for this tenant with this key. Raises `StateNotSealed`."""
    mac, data = sealed[:NUM_BYTES], sealed[NUM_BYTES:]
    if not hmac.compare_digest(mac, _mac(data, tenant, key)):
        raise StateNotSealed(
            "the state was changed, or sealed for somebody else or with another key: servers that take each other's"
            " states, or their own after a restart, share a --seal-key-file; begin anew without the state"
        )
    return data


def _mac(data: bytes, tenant: str, key: bytes) -> bytes:
    name = tenant.encode()
    mac = hmac.new(key, _PURPOSE + len(name).to_bytes(8, "little") + name, "sha256")
    mac.update(data)
    return mac.digest()
