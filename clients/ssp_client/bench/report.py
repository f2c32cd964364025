"""A benchmark's results as tables and as JSON."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from ssp_client.bench.stats import Report
from ssp_client.cli.output import table
from ssp_client.types import ModelInfo


def latency_table(report: Report) -> str:
    """Throughput, then one line per latency, in milliseconds."""
    lines = [
        f"requests           {report.completed} completed, {report.failed} failed in {report.duration:.2f} s",
        f"tokens             {report.prompt_tokens} in, {report.completion_tokens} out",
        f"request/s          {report.requests_per_second:.2f}",
        f"output token/s     {report.output_tokens_per_second:.1f}",
    ]
    if report.goodput is not None:
        lines.append(f"goodput, request/s {report.goodput:.2f}")
    header = ("ms", "MEAN", "MEDIAN", "P90", "P99", "MAX")
    named = {"TTFT": report.ttft, "TPOT": report.tpot, "ITL": report.itl, "e2e latency": report.e2e}
    rows = [
        (name, *(f"{1000 * value:.2f}" for value in (s.mean, s.median, s.p90, s.p99, s.max)))
        for name, s in named.items()
    ]
    return "\n".join([*lines, "", table(header, rows, right=range(1, 6))])


def write_json(path: Path, *, kind: str, model: ModelInfo, settings: Mapping[str, Any], results: Any) -> None:
    """One file per run: what was measured, where, how, and what came out."""
    document = {
        "benchmark": kind,
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "client": {
            "version": metadata.version("ssp"),
            "machine": platform.machine(),
            "system": platform.system(),
            "cpus": os.cpu_count(),
            "python": platform.python_version(),
        },
        "model": asdict(model),
        "settings": dict(settings),
        "results": results,
    }
    path.write_text(json.dumps(document, indent=2, default=str) + "\n", encoding="utf-8")
