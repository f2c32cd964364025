"""Pictures of a benchmark, as PNG files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ssp_client.bench.position import Walk
from ssp_client.bench.stats import Bucket, Request
from ssp_client.extras import need


def plot_latencies(requests: Sequence[Request], folder: Path) -> Path:
    """Histogram and cumulative share of TTFT, ITL and e2e latency, in milliseconds."""
    pools = {
        "TTFT": [request.ttft for request in requests],
        "ITL": [gap for request in requests for gap in request.gaps()],
        "e2e latency": [request.latency for request in requests],
    }
    figure = _figure(12, 3.5)
    for column, (name, seconds) in enumerate(pools.items(), 1):
        axes = figure.add_subplot(1, 3, column)
        _histogram(axes, 1000 * np.sort(np.asarray(seconds, float)))
        axes.set(title=name, xlabel="ms", ylabel="count")
    return _save(figure, folder / "latency.png")


def plot_position(walk: Walk, medians: Sequence[Bucket], folder: Path) -> Path:
    """Every chunk, and the median of each range of positions."""
    figure = _figure(8, 4)
    axes = figure.add_subplot()
    axes.plot(walk.positions, 1000 * np.asarray(walk.seconds_per_token), ".", markersize=2, alpha=0.4, label="chunk")
    centres = [(bucket.start + bucket.stop) / 2 for bucket in medians]
    axes.plot(centres, [1000 * bucket.seconds_per_token for bucket in medians], "o-", label="median")
    axes.set(xlabel="position in the context (tokens)", ylabel="ms per token")
    axes.set_ylim(bottom=0)
    axes.legend()
    return _save(figure, folder / "position.png")


def _histogram(axes: Any, milliseconds: Any) -> None:
    if not milliseconds.size:
        return
    axes.hist(milliseconds, bins=min(50, max(5, milliseconds.size // 5)), color="tab:blue", alpha=0.6)
    share = axes.twinx()
    share.plot(milliseconds, np.arange(1, milliseconds.size + 1) / milliseconds.size, color="tab:orange")
    share.set(ylim=(0, 1.02), ylabel="cumulative share")


def _figure(width: float, height: float) -> Any:
    return need("matplotlib.figure", "bench").Figure(figsize=(width, height), layout="constrained")


def _save(figure: Any, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    return path
