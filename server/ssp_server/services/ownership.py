"""A retry takes over from the call it repeats."""

import asyncio

from ssp_runtime.engine.generator import Generator
from ssp_runtime.sessions.session import Session

_POLL_SECONDS, _PATIENCE_SECONDS = 0.005, 5.0


async def take_over(session: Session, request_id: str, generator: Generator) -> None:
    """If the call under way came with this `request_id`, its client has lost it: ends it, so that the retry can go on.

    A connection can break long before the server hears of it.
    """
    call = session.sequence.last_call
    if call is None or not session.is_busy or not request_id or request_id != call.options.request_id:
        return
    generator.engine.cancel(call)
    waited = 0.0
    while call.finish_reason is None and waited < _PATIENCE_SECONDS:
        await asyncio.sleep(_POLL_SECONDS)
        waited += _POLL_SECONDS
