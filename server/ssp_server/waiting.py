"""Waiting for what tells nobody when it happens."""

import asyncio
import time
from collections.abc import Callable

_PAUSE = 0.02  # seconds


async def within(seconds: float, condition: Callable[[], bool]) -> bool:
    """Waits until a condition holds, for a while; whether it does."""
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        await asyncio.sleep(_PAUSE)
    return condition()
