"""On whose behalf a call is answered, and until when."""

from contextvars import ContextVar
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Caller:
    """`tenant` is the name that goes with the caller's token, empty where there is one tenant only. After `deadline`
    (monotonic seconds) nobody waits for the answer."""

    tenant: str = ""
    deadline: float | None = None


_caller: ContextVar[Caller] = ContextVar("caller", default=Caller())  # noqa: B039  # it is frozen


def caller() -> Caller:
    return _caller.get()


def answer_for(who: Caller) -> None:
    """All that this task answers from now on is for this caller."""
    _caller.set(who)
