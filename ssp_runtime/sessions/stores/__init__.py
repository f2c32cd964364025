"""Where snapshots outlive the process, by URL."""

import re
from pathlib import Path

from ssp_runtime.errors import InvalidRequest
from ssp_runtime.sessions.stores.base import Store, Stored

__all__ = ["Store", "Stored", "open_store"]

_URL = re.compile(r"(?:([a-z0-9+.-]+):)?(.*)")


def open_store(url: str, max_bytes: int) -> Store:
    """The store at `disk:/folder`, `/folder`, or `redis://host:port/database?prefix=ssp:` (`rediss://`: over TLS).

    A folder has room for `max_bytes`, Redis for as much as its own `maxmemory` says.

    Raises:
        InvalidRequest: no store has such a URL, or the package that it needs is not installed.
        StoreUnavailable: it does not answer, or another server has locked the folder.
    """
    match = _URL.fullmatch(url)
    scheme, folder = match.groups() if match else ("", "")
    if scheme in ("redis", "rediss"):
        return _open_redis(url)
    if not folder or scheme not in ("disk", None):
        raise InvalidRequest(f"{url!r} is no session store; give disk:/folder or redis://host:port/database")
    from ssp_runtime.sessions.stores.disk import DiskStore

    return DiskStore(Path(folder), max_bytes)


def _open_redis(url: str) -> Store:
    try:
        from ssp_runtime.sessions.stores.redis import RedisStore
    except ModuleNotFoundError as error:
        raise InvalidRequest("a session store in Redis needs the extra `redis`: pip install 'ssp[redis]'") from error
    return RedisStore(url)
