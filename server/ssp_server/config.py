"""What `ssp-server serve` can be told; the command line is generated from these fields."""

import ipaddress
import secrets
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import ssp_runtime
from ssp_runtime.sessions.seal import MIN_KEY_BYTES
from ssp_server.access import Access


class ConfigError(ValueError):
    """The server cannot run as told; the message says what to change."""


@dataclass(frozen=True, kw_only=True)
class TLSConfig:
    """PEM files of the server's certificate chain and private key."""

    cert: Path | None = None
    key: Path | None = None


@dataclass(frozen=True, kw_only=True)
class LimitsConfig:
    """What requests may ask for, and what the server holds."""

    max_tokens: int = 100_000
    """Tokens that one request may generate."""
    max_input_tokens: int = 1_000_000
    """Tokens of one prompt, or of one sequence to classify."""
    max_message_bytes: int = 4 << 20
    """Size of one request."""
    max_sessions: int = 100_000
    max_state_bytes: int = 4 << 30
    """Bytes of state of all open sessions together; with --store, of those that are in memory."""
    max_prefix_bytes: int = 64 << 20
    """Bytes of state kept for prompts that begin as one before did; 0 turns that off."""
    max_waiting: int = 1024
    """Calls that may wait for a slot; more are refused with a hint when to retry."""


@dataclass(frozen=True, kw_only=True)
class ServerConfig:
    """Serves models over gRPC until it is told to stop (SIGTERM or Ctrl-C), then finishes what it has begun.

    Example: ssp-server serve --models runs/my-model chat=/models/other --port 50051
    """

    models: tuple[str, ...] = ()
    """Folders as `ssp-model convert` writes them, or of other programs (config.json and safetensors), or OWNER/NAME on
    the Hugging Face hub. NAME=FOLDER names one, else its folder's name does. Without any, the two models that ship with
    the project."""
    host: str = "127.0.0.1"
    """Address to listen on. One that others can reach needs --cert, --key and --token-file, or --insecure."""
    port: int = 50051
    """Port for gRPC; 0 picks a free one, and the log tells which."""
    metrics_port: int = 9090
    """Port for Prometheus on 127.0.0.1; 0 picks a free one, -1 turns metrics off."""
    slots: int = 64
    """States that each model computes on at once; more sessions than that take turns."""
    threads: int = 1
    """Cores that one model operation uses."""
    kernels: Literal["auto", "reference", "torch", "native", "triton"] = "auto"
    """Form of the recurrences to run."""
    deterministic: bool = False
    """Give every session the same bits alone and in any crowd. Prompts then take as long as generating them would."""
    audit_fraction: float = 0.0
    """Share of the sessions that are audited: when a call ends, their tokens are folded again and states compared."""
    chat_templates: bool = False
    """Apply the chat templates that come with models to the messages of requests. They are programs: each runs in a
    sandbox and in a process of its own, bounded in memory and time."""
    device: str = "cpu"
    """Where the models run: cpu, or cuda."""
    store: str | None = None
    """Where sessions outlive the process, and those that memory has no room for lie: a folder, or
    redis://HOST:PORT/DB. A folder is one server's; through Redis several can hand sessions over."""
    store_max_bytes: int = 64 << 30
    """Bytes that a folder may take."""
    commit: str = "idle"
    """When a session is saved to the store: idle (when a call on it ends), tokens:N (also every N tokens of a call that
    goes on), or request (by the call Commit, when memory is needed, and at the end)."""
    drain_seconds: float = 20.0
    """How long calls under way may go on after SIGTERM."""
    token_file: Path | None = None
    """File with the bearer token that clients must send; or with one a tenant, in lines "TENANT:TOKEN": a tenant sees
    its own sessions only."""
    admin_token_file: Path | None = None
    """File with the bearer token of the administrator, who may load and unload models, drain, and ask for loads.
    Without it whoever is let in may, unless others can reach the address."""
    seal_key_file: Path | None = None
    """File with the key, at least 32 bytes, that seals the states clients keep themselves. Servers with the same key
    take each other's. Without it the key is random, and no state outlives the process."""
    model_root: tuple[Path, ...] = ()
    """Folders below which the administrator may have models loaded; without any, none are."""
    insecure: bool = False
    """Allow an address that others can reach without TLS and token."""
    log_format: Literal["json", "console"] = "console"
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    tls: TLSConfig = field(default_factory=TLSConfig)
    limits: LimitsConfig = field(default_factory=LimitsConfig)

    def check(self) -> None:
        """Raises `ConfigError`."""
        if (self.tls.cert is None) != (self.tls.key is None):
            raise ConfigError("give both --cert and --key, or neither")
        if not 0 <= self.audit_fraction <= 1:
            raise ConfigError(f"--audit-fraction must be in [0, 1], not {self.audit_fraction:g}")
        protected = self.tls.cert is not None and self.token_file is not None
        if not (_is_loopback(self.host) or protected or self.insecure):
            raise ConfigError(
                f"{self.host} can be reached from elsewhere: give --cert, --key and --token-file,"
                " or accept the risk with --insecure"
            )

    def named_models(self) -> dict[str, Path]:
        """Folders by model name. Raises `ConfigError` if two have the same."""
        named: dict[str, Path] = {}
        for text in self.models or shipped_models():
            name, separator, folder = text.partition("=")
            path = Path(folder if separator else text)
            name = name if separator else path.resolve().name
            if name in named:
                raise ConfigError(f"two models are called {name!r}; name one of them with NAME=FOLDER")
            named[name] = path
        return named

    def seal_key(self) -> bytes:
        """Raises `ConfigError`."""
        if self.seal_key_file is None:
            return secrets.token_bytes(MIN_KEY_BYTES)
        try:
            key = self.seal_key_file.read_bytes()
        except OSError as error:
            raise ConfigError(f"--seal-key-file cannot be read: {error}") from error
        if len(key) < MIN_KEY_BYTES:
            raise ConfigError(f"{self.seal_key_file} has {len(key)} bytes; a key has at least {MIN_KEY_BYTES}")
        return key

    def access(self) -> Access:
        """Who may call what. Raises `ConfigError`."""
        return Access(
            tenants=_tenants(self.token_file),
            admin_token=_token(self.admin_token_file),
            admins_are_trusted=_is_loopback(self.host) or self.insecure,
        )


def shipped_models() -> tuple[str, ...]:
    """Folders of the models that come with the project."""
    return tuple(sorted(str(path.parent) for path in Path(ssp_runtime.__file__).parent.glob("shipped/*/config.json")))


def _tenants(path: Path | None) -> dict[str, str]:
    """Tenants by token, from lines "TENANT:TOKEN" or a single "TOKEN"."""
    if path is None:
        return {}
    tenants = {}
    lines = _lines(path, "--token-file")
    for line in lines:
        tenant, _, token = line.rpartition(":")
        tenants[token] = tenant
    if "" in tenants or len(tenants) < len(lines) or (len(lines) > 1 and "" in tenants.values()):
        raise ConfigError(f"{path} must have one token, or lines TENANT:TOKEN with no token twice")
    return tenants


def _token(path: Path | None) -> str | None:
    if path is None:
        return None
    return _lines(path, "--admin-token-file")[0]


def _lines(path: Path, flag: str) -> list[str]:
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except OSError as error:
        raise ConfigError(f"{flag} cannot be read: {error}") from error
    filled = [line.strip() for line in lines if line.strip()]
    if not filled:
        raise ConfigError(f"{path} is empty")
    return filled


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"
