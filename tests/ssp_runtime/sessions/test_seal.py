"""The seal on what clients keep."""

import pytest

from ssp_runtime.errors import InvalidRequest, StateNotSealed
from ssp_runtime.sessions.seal import NUM_BYTES, seal, unsealed

KEY, OTHER = b"k" * 32, b"o" * 32
DATA = b"a state"
SEALED = seal(DATA, "tenant", KEY)


def test_there_and_back() -> None:
    assert unsealed(SEALED, "tenant", KEY) == DATA and len(SEALED) == NUM_BYTES + len(DATA)
    assert unsealed(seal(b"", "", KEY), "", KEY) == b""


def test_every_flipped_bit_is_noticed() -> None:
    for place in range(len(SEALED)):
        for bit in range(8):
            changed = bytearray(SEALED)
            changed[place] ^= 1 << bit
            with pytest.raises(StateNotSealed):
                unsealed(bytes(changed), "tenant", KEY)


def test_every_other_length_is_noticed() -> None:
    for sealed in (*(SEALED[:length] for length in range(len(SEALED))), SEALED + b"\0"):
        with pytest.raises(StateNotSealed):
            unsealed(sealed, "tenant", KEY)


@pytest.mark.parametrize(("tenant", "key"), [("tenant", OTHER), ("", KEY), ("tenan", KEY), ("tenant\0", KEY)])
def test_it_holds_for_one_tenant_and_one_key(tenant: str, key: bytes) -> None:
    with pytest.raises(StateNotSealed, match="share a --seal-key-file"):
        unsealed(SEALED, tenant, key)


def test_a_tenants_name_is_no_part_of_the_data() -> None:
    with pytest.raises(StateNotSealed):
        unsealed(SEALED[:NUM_BYTES] + b"ant" + DATA, "ten", KEY)


def test_who_sends_it_is_told_that_the_argument_is_wrong() -> None:
    assert issubclass(StateNotSealed, InvalidRequest)
