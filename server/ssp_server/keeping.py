"""How the configuration keeps sessions."""

from ssp_runtime.sessions.archive import Archive
from ssp_runtime.sessions.committer import CommitPolicy
from ssp_runtime.sessions.keeper import Keeper
from ssp_runtime.sessions.manager import SessionManager
from ssp_runtime.sessions.roster import SessionLimits
from ssp_runtime.sessions.store_keeper import StoreKeeper
from ssp_runtime.sessions.stores import open_store
from ssp_server.config import ConfigError, ServerConfig
from ssp_server.metrics import Metrics, SessionMetrics
from ssp_server.registry import Registry


def make_keeper(config: ServerConfig, registry: Registry, metrics: Metrics) -> Keeper:
    """Raises `ConfigError` for a policy that is none, `SSPError` for a store that cannot be had."""
    limits = SessionLimits(max_sessions=config.limits.max_sessions, max_state_bytes=config.limits.max_state_bytes)
    if config.store is None:
        return Keeper(SessionManager(limits, observer=SessionMetrics(metrics)))
    store = open_store(config.store, config.store_max_bytes)
    return StoreKeeper(
        SessionManager(limits, durable=True, observer=SessionMetrics(metrics)),
        Archive(store, registry.generator),
        commit_policy(config.commit),
        observer=SessionMetrics(metrics),
    )


def commit_policy(text: str) -> CommitPolicy:
    """Raises `ConfigError`."""
    kind, separator, count = text.partition(":")
    if kind == "tokens" and count.isdecimal() and int(count) > 0:
        return CommitPolicy(every_tokens=int(count))
    if separator or kind not in ("idle", "request"):
        raise ConfigError(f"--commit must be idle, tokens:N or request, not {text!r}")
    return CommitPolicy(when_idle=kind == "idle")
