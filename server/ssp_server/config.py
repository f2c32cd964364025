"""What `ssp-server serve` can be told; the command line is generated from these fields."""

import ipaddress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import ssp_runtime


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
    """Bytes of state of all open sessions together."""
    max_waiting: int = 1024
    """Calls that may wait for a slot; more are refused with a hint when to retry."""


@dataclass(frozen=True, kw_only=True)
class ServerConfig:
    """Serves models over gRPC until it is told to stop (SIGTERM or Ctrl-C), then finishes what it has begun.

    Example: ssp-server serve --models runs/my-model chat=/models/other --port 50051
    """

    models: tuple[str, ...] = ()
    """Model folders as `ssp-model convert` writes them; NAME=FOLDER names one, else its folder's name does.
    Without any, the two models that ship with the project."""
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
    device: str = "cpu"
    """Where the models run: cpu, or cuda."""
    drain_seconds: float = 20.0
    """How long calls under way may go on after SIGTERM."""
    token_file: Path | None = None
    """File with the bearer token that clients must send."""
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

    def token(self) -> str | None:
        """The bearer token, if there is one. Raises `ConfigError`."""
        if self.token_file is None:
            return None
        try:
            token = self.token_file.read_text(encoding="utf-8").strip()
        except OSError as error:
            raise ConfigError(f"--token-file cannot be read: {error}") from error
        if not token:
            raise ConfigError(f"{self.token_file} is empty")
        return token


def shipped_models() -> tuple[str, ...]:
    """Folders of the models that come with the project."""
    return tuple(sorted(str(path.parent) for path in Path(ssp_runtime.__file__).parent.glob("shipped/*/config.json")))


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"
