"""When requests are sent."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt


def arrival_times(
    count: int, *, rate: float, burstiness: float, generator: np.random.Generator
) -> npt.NDArray[np.float64]:
    """Seconds from the start at which `count` requests leave; the first leaves at 0.

    The gaps follow a gamma distribution of mean 1 / rate and shape `burstiness`: 1 is a Poisson process, less is
    burstier, more is steadier. An infinite rate sends all at once.

    Raises:
        ValueError: the rate or the burstiness is not positive.
    """
    if not rate > 0 or not burstiness > 0:
        raise ValueError("request rate and burstiness must be positive")
    if math.isinf(rate):
        return np.zeros(count)
    gaps = generator.gamma(shape=burstiness, scale=1 / (rate * burstiness), size=max(count - 1, 0))
    return np.concatenate(([0.0], np.cumsum(gaps)))[:count]
