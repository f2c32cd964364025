"""Work that must be completed, whoever waits for it."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

_begun: set[asyncio.Future[Any]] = set()  # the event loop itself would let go of them


async def completed(work: Coroutine[Any, Any, T]) -> T:
    """What comes of it; it goes on to its end if whoever waits is cancelled."""
    task = asyncio.create_task(work)
    _begun.add(task)
    task.add_done_callback(_begun.discard)
    return await asyncio.shield(task)
