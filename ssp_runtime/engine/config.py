"""How an engine runs."""

from dataclasses import dataclass, field

from ssp_runtime.engine.scheduler import SchedulerConfig


@dataclass(frozen=True, kw_only=True)
class EngineConfig:
    """`num_slots` sequences can compute or rest in the pool. A reader may lag `max_ahead` tokens behind, for at most
    `stall_seconds`; then its call ends. `threads` is how many cores one operation uses. `prefix_bytes` bounds the
    states that are kept for prompts that begin alike.

    With a `quantum` all tokens, prompts included, go through steps over a multiple of so many rows: equal bits, alone
    and in any crowd (see `deterministic`).
    """

    num_slots: int = 64
    max_ahead: int = 32
    stall_seconds: float = 60.0
    threads: int = 1
    quantum: int | None = None
    prefix_bytes: int = 0
    scheduler: SchedulerConfig = field(default_factory=SchedulerConfig)
