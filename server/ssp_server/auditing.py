"""Audits of some sessions' states: which sessions, and what becomes of the findings."""

from collections.abc import Sequence

import structlog

from ssp_runtime.engine.audit import Audit, chosen
from ssp_runtime.engine.call import Call
from ssp_runtime.engine.generator import Generator
from ssp_runtime.engine.observer import Observer
from ssp_runtime.engine.progress import FinishReason
from ssp_runtime.models.model import CausalModel
from ssp_runtime.sessions.session import Session
from ssp_server.metrics import Metrics, ModelMetrics

TOLERANCE = 1e-3  # of the largest number in the state, or of 1

log = structlog.get_logger()


class Auditing:
    """Of that fraction of the sessions of all models."""

    def __init__(self, fraction: float, metrics: Metrics) -> None:
        self._fraction, self._metrics = fraction, metrics
        self._audits: dict[str, Audit] = {}

    def observer(self, name: str, model: CausalModel) -> Observer:
        """For the engine of a model that is about to serve."""
        if not self._fraction:
            return ModelMetrics(self._metrics, name)
        audit = self._audits[name] = Audit(
            model, lambda tokens, difference, largest: self._report(name, tokens, difference, largest)
        )
        return AuditedMetrics(self._metrics, name, audit)

    def attach(self, generator: Generator) -> None:
        """What `observer` was asked for."""
        if generator.name in self._audits:
            self._audits[generator.name].attach(generator.engine)

    def consider(self, session: Session) -> None:
        """A new session."""
        if self._fraction and session.resident is not None and chosen(session.id, self._fraction):
            self._audits[session.model].watch(session.resident)

    def forget(self, name: str) -> None:
        """A model that serves no more."""
        self._audits.pop(name, None)

    def _report(self, model: str, tokens: int, difference: float, largest: float) -> None:
        self._metrics.audit.labels(model, _up_to(tokens)).observe(difference)
        if not difference <= TOLERANCE * max(1.0, largest):
            log.warning("a state has drifted", model=model, tokens=tokens, difference=difference, largest=largest)


class AuditedMetrics(ModelMetrics):
    """Tells an audit as well."""

    def __init__(self, metrics: Metrics, model: str, audit: Audit) -> None:
        super().__init__(metrics, model)
        self._audit = audit

    def admitted(self, call: Call) -> None:
        super().admitted(call)
        self._audit.admitted(call)

    def generated(self, tokens: Sequence[tuple[Call, float | None]]) -> None:
        super().generated(tokens)
        for call, _ in tokens:
            self._audit.token_generated(call)

    def finished(self, call: Call, reason: FinishReason) -> None:
        super().finished(call, reason)
        self._audit.finished(call)


def _up_to(tokens: int) -> str:
    """The power of four that a position lies below."""
    return str(4 ** max(3, (tokens.bit_length() + 1) // 2))
