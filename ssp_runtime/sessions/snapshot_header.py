"""What the header of a snapshot says; it may have been written by anybody."""

from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import AfterValidator, Field

from ssp_runtime.mixers.base import validated
from ssp_runtime.sessions.checks import MAX_REQUEST_ID

_LATEST = 1e11  # seconds since 1970


def _in_utf8(text: str) -> str:
    text.encode()  # fails for half a surrogate pair
    return text


_Count = Annotated[int, Field(strict=True, ge=0, lt=1 << 62)]
_Text = Annotated[str, Field(strict=True), AfterValidator(_in_utf8)]


@dataclass(frozen=True, kw_only=True)
class CallRecord:
    """A sequence's last call, which has ended. Its tokens are not in the header."""

    request_id: Annotated[_Text, Field(max_length=MAX_REQUEST_ID)]
    num_prompt_tokens: _Count
    num_left: _Count
    num_generated: _Count
    cached_tokens: _Count
    taken_text: _Text
    untaken_text: _Text
    num_flushed: _Count
    held: _Text
    finish_reason: Annotated[str, Field(pattern="^(stop|length|abort)$")]  # after an error nothing is kept


@dataclass(frozen=True, kw_only=True)
class Header:
    """`about` is what the keeper of the sequence adds."""

    fingerprint: str
    state_spec: dict[str, Any]
    folded: _Count
    pending: _Count | None
    version: _Count
    last_used: Annotated[float, Field(strict=True, ge=0, le=_LATEST)]
    waiting: list[_Count]
    about: dict[str, Any]
    call: CallRecord | None


def parsed(header: dict[str, Any]) -> Header:
    """Raises `ValueError`, which names the field at fault."""
    return validated(Header, header)
