"""Prometheus metrics. Names and bucket edges follow those that dashboards for inference servers know, with edges below
them for steps far under ten milliseconds. Labels never hold a session."""

from collections import Counter as Tally
from collections import defaultdict
from collections.abc import Iterable, Sequence

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    start_http_server,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from ssp_runtime.engine.call import Call
from ssp_runtime.engine.generator import Generator
from ssp_runtime.engine.observer import Observer
from ssp_runtime.engine.progress import FinishReason
from ssp_runtime.sessions.keeper import Keeper
from ssp_runtime.sessions.observer import SessionObserver
from ssp_server.bulk_histogram import BulkHistogram
from ssp_server.config import ConfigError
from ssp_server.recent import Load
from ssp_server.registry import Registry

_FAST = (50e-6, 100e-6, 250e-6, 500e-6, 0.001, 0.0025, 0.005)
_FIRST_TOKEN = (*_FAST, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0)
_PER_TOKEN = (*_FAST, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0)
_REQUEST = (
    *_FAST,
    0.01,
    0.05,
    0.3,
    0.5,
    0.8,
    1.0,
    1.5,
    2.0,
    2.5,
    5.0,
    10.0,
    15.0,
    20.0,
    30.0,
    60.0,
    120.0,
    240.0,
    480.0,
)
_DIFFERENCE = (0.0, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 0.1, 1.0, 10.0)
_ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)


class Metrics:
    """All metrics of a server."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.loads: defaultdict[str, Load] = defaultdict(Load)  # by model
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        self.time_to_first_token = self._histogram(
            "time_to_first_token_seconds", "From call to first token", _FIRST_TOKEN
        )
        self.inter_token_latency = BulkHistogram(
            "ssp_inter_token_latency_seconds", "Between two tokens", _PER_TOKEN, self.registry
        )
        self.time_per_output_token = self._histogram(
            "request_time_per_output_token_seconds", "A request's mean time per token after its first", _PER_TOKEN
        )
        self.e2e = self._histogram("e2e_request_latency_seconds", "From call to last token", _REQUEST)
        self.queue = self._histogram("request_queue_time_seconds", "From call to slot", _REQUEST)
        self.prefill = self._histogram("request_prefill_time_seconds", "From slot to the prompt folded", _REQUEST)
        self.decode = self._histogram("request_decode_time_seconds", "From first step to last token", _REQUEST)
        self.step = self._histogram("step_seconds", "One step of all running sequences", _PER_TOKEN)
        self.batch_size = self._histogram("batch_size", "Sequences in one step", _ROWS)
        self.restore = self._histogram(
            "session_restore_seconds", "Bringing a state back", _FIRST_TOKEN, ("model", "tier")
        )
        self.prompt_tokens = self._counter("prompt_tokens", "Tokens of prompts folded")
        self.generation_tokens = self._counter("generation_tokens", "Tokens generated")
        self.success = self._counter("request_success", "Finished requests", ("model", "finished_reason"))
        self.spills = self._counter("session_spills", "States moved from the pool to host memory")
        self.restores = self._counter("session_restores", "States moved back into the pool")
        self.quarantined = self._counter("sessions_quarantined", "Sessions whose state was lost to NaN or a failure")
        self.audit = self._histogram(
            "audit_state_difference",
            "Largest difference between a served state and the same tokens folded again, by the position it lies below",
            _DIFFERENCE,
            ("model", "position"),
        )
        self.forks = self._counter("session_forks", "Sessions forked")
        self.checkpoints = self._counter("session_checkpoints", "Checkpoints made")
        self.rewinds = self._counter("session_rewinds", "Sessions put back to a checkpoint")
        self.expired = self._counter("session_expired", "Sessions that nobody used for as long as their ttl")
        self.commits = self._counter("session_commits", "Sessions saved to the store")
        self.commit = self._histogram("session_commit_seconds", "Saving one session to the store", _FIRST_TOKEN)
        self.rejections = self._counter("admission_rejections", "Calls refused", ("reason",))
        self.classified_sequences = self._counter("classify_sequences", "Sequences classified or filled in")
        self.classified_tokens = self._counter("classify_tokens", "Tokens of these")
        self.classify_batch = self._histogram("classify_batch_seconds", "One batch of sequences", _REQUEST)

    def serve(self, port: int) -> int:
        """Answers Prometheus on the loopback address; returns the port. Raises `ConfigError` if it is in use."""
        try:
            server, _ = start_http_server(port, addr="127.0.0.1", registry=self.registry)
        except OSError as error:
            raise ConfigError(f"port {port} for metrics is in use: choose another with --metrics-port") from error
        return int(server.server_port)

    def _histogram(
        self, name: str, text: str, buckets: Iterable[float], labels: tuple[str, ...] = ("model",)
    ) -> Histogram:
        return Histogram(f"ssp_{name}", text, labels, buckets=tuple(buckets), registry=self.registry)

    def _counter(self, name: str, text: str, labels: tuple[str, ...] = ("model",)) -> Counter:
        return Counter(f"ssp_{name}", text, labels, registry=self.registry)


class ModelMetrics(Observer):
    """What one model's engine reports."""

    def __init__(self, metrics: Metrics, model: str) -> None:
        self._metrics, self._model = metrics, model
        self._load = metrics.loads[model]
        self._step = metrics.step.labels(model)
        self._batch_size = metrics.batch_size.labels(model)
        self._first_token = metrics.time_to_first_token.labels(model)
        self._inter_token = metrics.inter_token_latency.labels(model)
        self._generated = metrics.generation_tokens.labels(model)
        self._prompt = metrics.prompt_tokens.labels(model)

    def stepped(self, rows: int, seconds: float) -> None:
        self._step.observe(seconds)
        self._batch_size.observe(rows)
        self._load.tokens.add(rows)

    def prefilled(self, tokens: int, seconds: float) -> None:  # noqa: ARG002  # the observer's signature
        self._prompt.inc(tokens)

    def generated(self, tokens: Sequence[tuple[Call, float | None]]) -> None:
        self._generated.inc(len(tokens))
        for since, times in Tally(since for _, since in tokens).items():  # most calls had theirs in the same round
            if since is not None:
                self._inter_token.observe(since, times)
        for call, since in tokens:
            if since is None:
                self._began(call)

    def _began(self, call: Call) -> None:
        if call.decoding_since is not None:
            self._first_token.observe(call.seconds_since_submitted())
            if call.admitted is not None:
                self._load.queue.add(call.admitted - call.submitted)

    def finished(self, call: Call, reason: FinishReason) -> None:
        if reason is FinishReason.ERROR and call.sequence.kept:
            self.quarantined()
        if call.params is None:
            return
        self._metrics.success.labels(self._model, reason.value).inc()
        if call.admitted is None:
            return
        model, end = self._model, call.seconds_since_submitted()
        self._metrics.e2e.labels(model).observe(end)
        queued = call.admitted - call.submitted
        self._metrics.queue.labels(model).observe(queued)
        if call.decoding_since is not None:
            folded = call.decoding_since - call.submitted
            self._metrics.prefill.labels(model).observe(folded - queued)
            self._metrics.decode.labels(model).observe(end - folded)
        if call.first_token_at is not None and call.last_token_at is not None and call.num_generated > 1:
            per_token = (call.last_token_at - call.first_token_at) / (call.num_generated - 1)
            self._metrics.time_per_output_token.labels(model).observe(per_token)

    def quarantined(self) -> None:
        self._metrics.quarantined.labels(self._model).inc()

    def spilled(self) -> None:
        self._metrics.spills.labels(self._model).inc()

    def restored(self, seconds: float) -> None:
        self._metrics.restores.labels(self._model).inc()
        self._metrics.restore.labels(self._model, "host").observe(seconds)


class SessionMetrics(SessionObserver):
    """What becomes of sessions."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def forked(self, model: str) -> None:
        self._metrics.forks.labels(model).inc()

    def checkpointed(self, model: str) -> None:
        self._metrics.checkpoints.labels(model).inc()

    def rewound(self, model: str) -> None:
        self._metrics.rewinds.labels(model).inc()

    def expired(self, model: str) -> None:
        self._metrics.expired.labels(model).inc()

    def committed(self, model: str, seconds: float) -> None:
        self._metrics.commits.labels(model).inc()
        self._metrics.commit.labels(model).observe(seconds)

    def restored(self, model: str, seconds: float) -> None:
        self._metrics.restore.labels(model, "store").observe(seconds)


class BatchMetrics:
    """What one model that reads whole sequences reports of each batch."""

    def __init__(self, metrics: Metrics, model: str) -> None:
        self._load = metrics.loads[model]
        self._sequences = metrics.classified_sequences.labels(model)
        self._tokens = metrics.classified_tokens.labels(model)
        self._batch = metrics.classify_batch.labels(model)

    def __call__(self, sequences: int, tokens: int, seconds: float, waited: float) -> None:
        self._load.tokens.add(tokens)
        self._load.queue.add(waited)
        self._sequences.inc(sequences)
        self._tokens.inc(tokens)
        self._batch.observe(seconds)


class Gauges(Collector):
    """What is so at the moment of the scrape."""

    def __init__(self, registry: Registry, keeper: Keeper) -> None:
        self._registry, self._keeper = registry, keeper

    def collect(self) -> Iterable[Metric]:
        running = _gauge("num_requests_running", "Sequences being generated", "model")
        waiting = _gauge("num_requests_waiting", "Calls waiting for a slot or folding their prompt", "model")
        used = _gauge("state_slots_used", "Slots of the state pool in use", "model")
        available = _gauge("state_slots_available", "Free slots of the state pool", "model")
        queries = _count("prefix_cache_queries", "Tokens of new prompts, which some call may have begun with before")
        hits = _count("prefix_cache_hits", "Those of them that need not be computed")
        prefixes = _gauge("prefix_cache_bytes", "Bytes of states kept for prompts that begin alike", "model")
        for served in self._registry.all():
            if isinstance(served, Generator):
                pool, cache = served.engine.pool, served.engine.prefixes
                queries.add_metric([served.name], cache.queries)
                hits.add_metric([served.name], cache.hits)
                prefixes.add_metric([served.name], cache.used_bytes)
                running.add_metric([served.name], served.engine.num_running)
                waiting.add_metric([served.name], served.engine.num_waiting)
                used.add_metric([served.name], pool.num_used)
                available.add_metric([served.name], pool.num_slots - pool.num_used)
        return [running, waiting, used, available, queries, hits, prefixes, *self._session_gauges()]

    def _session_gauges(self) -> list[Metric]:
        count = _gauge("sessions", "Open sessions", "tier", "status")
        size = _gauge("state_bytes", "Bytes of states of open sessions and their checkpoints; all of a store", "tier")
        census, stored = self._keeper.manager.census(), self._keeper.store_bytes
        for tier in ("device", "host", "store") if self._keeper.is_durable else ("device", "host"):
            for status in ("busy", "idle"):
                count.add_metric([tier, status], census.sessions[tier, status])
        for tier in ("device", "host"):
            size.add_metric([tier], sum(census.state_bytes[tier, status] for status in ("busy", "idle")))
        if stored is not None:
            size.add_metric(["store"], stored)
        return [count, size]


def _gauge(name: str, text: str, *labels: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"ssp_{name}", text, labels=labels)


def _count(name: str, text: str) -> CounterMetricFamily:
    return CounterMetricFamily(f"ssp_{name}", text, labels=("model",))
