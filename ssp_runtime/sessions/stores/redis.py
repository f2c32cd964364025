"""Snapshots in Redis, where every server finds them. What is saved is as durable as that Redis is set up to be."""

import logging
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from ssp_runtime.errors import InvalidRequest, StoreFull, StoreUnavailable
from ssp_runtime.sessions import snapshot_file
from ssp_runtime.sessions.stores.base import Store, Stored, refuse

_PREFIX = "ssp:"
_TIMEOUT = 5.0  # seconds
_RETRIES = 1  # at once: a connection that was idle may have been cut
_FULL = "used memory > 'maxmemory'"  # how Redis says so, in a script's error as well

# A key is a hash of `version`, `save` (which call of `save` wrote it) and `data`. A save whose answer was lost may come
# again: then it finds itself, and nobody else was in between.
_SAVE = """
local stored = redis.call('HMGET', KEYS[1], 'version', 'save')
local version, save = stored[1], stored[2]
local expected, new, data, call, ttl = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local again = version and save == call and tonumber(version) <= tonumber(new)
if (version or '') ~= expected and not again then
    return version or ''
end
redis.call('HSET', KEYS[1], 'version', new, 'save', call, 'data', data)
if ttl == '' then redis.call('PERSIST', KEYS[1]) else redis.call('PEXPIRE', KEYS[1], ttl) end
return false
"""

log = logging.getLogger(__name__)


class RedisStore(Store):
    """Redis bounds its memory by `maxmemory`; with the policy `noeviction` and an append-only file it loses nothing."""

    is_shared = True

    def __init__(self, url: str) -> None:
        """`redis://user:password@host:port/database?prefix=ssp:`, or `rediss://` over TLS.

        Raises:
            InvalidRequest: the URL is malformed.
            StoreUnavailable: nobody answers there.
        """
        self._redis, self._prefix = _client(url)
        self._save = self._redis.register_script(_SAVE)
        self._unanswered: dict[str, str] = {}  # keys, and the call of `save` that may or may not have reached them
        self._warn_of_loss()

    def save(self, key: str, data: bytes, version: int, *, expected: int | None, ttl: float | None = None) -> None:
        assert expected is None or version > expected, "versions grow"
        call = self._unanswered.pop(key, None) or secrets.token_hex(8)
        wanted = "" if expected is None else expected
        lifetime = "" if ttl is None else round(ttl * 1000)
        with _told():
            try:
                stored = self._save([self._prefix + key], [wanted, version, data, call, lifetime])
            except redis.RedisError:
                self._unanswered[key] = call
                raise
        if stored is not None:
            refuse(int(stored) if stored else None, expected)

    def load(self, key: str) -> Stored | None:
        with _told():
            version, data = self._redis.hmget(self._prefix + key, ["version", "data"])
        if version is None or data is None:
            return None
        assert isinstance(data, bytes)
        snapshot_file.verify(data)
        return Stored(int(version), data)

    def version(self, key: str) -> int | None:
        with _told():
            version = self._redis.hget(self._prefix + key, "version")
        return None if version is None else int(version)

    def delete(self, key: str) -> None:
        with _told():
            self._redis.unlink(self._prefix + key)

    def keys(self) -> Iterator[str]:
        pattern = re.sub(r"([*?\[\]\\])", r"\\\1", self._prefix) + "*"
        with _told():  # a scan may come across a key twice
            found = {key.decode() for key in self._redis.scan_iter(pattern, count=1000)}
        return (key.removeprefix(self._prefix) for key in found)

    @property
    def used_bytes(self) -> int:
        """All memory of this Redis, which others may use as well."""
        with _told():
            return int(self._redis.info("memory")["used_memory"])

    def close(self) -> None:
        self._redis.close()

    def _warn_of_loss(self) -> None:
        with _told():
            persistence, memory = self._redis.info("persistence"), self._redis.info("memory")
        if not persistence.get("aof_enabled"):
            log.warning("Redis keeps no append-only file: sessions are lost when it restarts; set `appendonly yes`")
        if memory.get("maxmemory_policy", "noeviction") != "noeviction":
            log.warning("Redis drops sessions when its memory is full; set `maxmemory-policy noeviction`")


def _client(url: str) -> tuple[redis.Redis, str]:
    """A client, and the prefix of its keys."""
    try:
        parts = urlsplit(url)
        query = dict(parse_qsl(parts.query, keep_blank_values=True))
        prefix = query.pop("prefix", _PREFIX)
        client = redis.Redis.from_url(
            urlunsplit(parts._replace(query=urlencode(query))),
            socket_timeout=_TIMEOUT,
            socket_connect_timeout=_TIMEOUT,
            retry=Retry(NoBackoff(), _RETRIES),
        )
        with _told():
            client.ping()  # looks at the options in the query
    except (ValueError, TypeError) as error:
        raise InvalidRequest(f"the URL of the session store in Redis is malformed: {error}") from error
    return client, prefix


@contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except redis.RedisError as error:
        if _FULL in str(error):
            raise StoreFull("the session store is full: Redis has reached its `maxmemory`; close sessions") from error
        raise StoreUnavailable("the session store in Redis does not answer as it should; ask again later") from error
