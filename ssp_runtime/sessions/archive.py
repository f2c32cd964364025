"""Sessions and their checkpoints in a store. Every call may block."""

import logging
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from ssp_runtime.engine.generator import Generator
from ssp_runtime.engine.sequence import Sequence
from ssp_runtime.errors import SessionMoved, SnapshotCorrupt, StateCorrupt, StoreUnavailable, UnknownSession
from ssp_runtime.sessions import health, snapshot
from ssp_runtime.sessions.session import Checkpoint, Saved, Session, Standing
from ssp_runtime.sessions.snapshot import Snapshot
from ssp_runtime.sessions.stores.base import Store

_SPARE_SECONDS = 3600.0  # that the store keeps a session longer than its ttl: not every use of it is saved
_CHECKPOINT_TTLS = 3  # for so many the store keeps a checkpoint, which is renewed after one

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Moment:
    """A session as it is at one moment: detached copies of its sequence, and of those of its checkpoints that the store
    lacks."""

    sequence: Sequence
    checkpoints: Mapping[str, Checkpoint]
    copies: Mapping[str, Sequence]


@dataclass(frozen=True, kw_only=True)
class Found:
    """A session as the store has it; its state is in host memory."""

    sequence: Sequence
    saved: Saved
    checkpoints: Mapping[str, Checkpoint]
    about: Mapping[str, Any]

    def session(self) -> Session:
        """It, while only the store has it."""
        about = self.about
        return Session(
            id=str(about["id"]),
            number=0,
            model=str(about["model"]),
            resident=None,
            owner=str(about["owner"]),
            ttl=about["ttl"],
            request=str(about["request"]),
            created=float(about["created"]),
            checkpoints=dict(self.checkpoints),
            saved=self.saved,
            tried=self.saved.version,
            is_durable=True,
        )


class Archive:
    """A session's key is its id, a checkpoint's "<id>/<key>": no two checkpoints ever share one, so that a session that
    lies in the store goes with its checkpoints whatever is saved after them. `find` tells the model of a name."""

    def __init__(self, store: Store, find: Callable[[str], Generator]) -> None:
        self._store, self._find = store, find

    @property
    def is_shared(self) -> bool:
        return self._store.is_shared

    @property
    def used_bytes(self) -> int:
        return self._store.used_bytes

    def keys(self) -> list[str]:
        """Of sessions and of checkpoints."""
        return list(self._store.keys())

    def version(self, session_id: str) -> int | None:
        return self._store.version(session_id)

    def save(self, session: Session, moment: Moment, generator: Generator) -> Saved:
        """Saves a moment of a session as the version that it `tried`. One save of a session at a time.

        Raises:
            SessionMoved: another server has saved a newer version.
            StoreFull, StoreUnavailable: as the store; try again with a newer version.
            StateCorrupt: the state is not finite; that is never saved.
        """
        health.check(generator.engine.pool.tensors(moment.sequence.spilled), generator.state_spec)
        before = _saved_checkpoints(session)
        try:
            for name, copy in moment.copies.items():
                self._save_checkpoint(session, moment.checkpoints[name], copy, generator)
            self._renew(session, moment.checkpoints.values())
            about = _about(session, moment.checkpoints)
            data = snapshot.pack(Snapshot(sequence=moment.sequence, about=about), generator)
            expected = session.saved.version if session.saved is not None else None
            self._store.save(session.id, data, session.tried, expected=expected, ttl=_ttl(session))
        except SessionMoved:
            self._delete(session.id, _stored(moment.checkpoints.values()) - before)
            raise
        now = _stored(moment.checkpoints.values())
        left = self._delete(session.id, before - now)
        return Saved(standing=Standing.of(moment.sequence), version=session.tried, checkpoints=now | left)

    def load(self, session_id: str) -> Found:
        """What the store has of a session.

        Raises:
            UnknownSession: there is none any more.
            SnapshotCorrupt, ModelMismatch, UnknownModel, StoreUnavailable: it cannot be had.
        """
        stored = self._store.load(session_id)
        if stored is None:
            raise UnknownSession("no session has this session_id; it was closed, or opened on another server")
        found = snapshot.unpack(stored.data, lambda about: self._find(str(about["model"])))
        checkpoints = {
            name: Checkpoint(position=kept["position"], sequence=None, key=kept["key"], saved_at=kept["saved"])
            for name, kept in found.about["checkpoints"].items()
        }
        standing = Standing.of(found.sequence)
        saved = Saved(standing=standing, version=stored.version, checkpoints=_stored(checkpoints.values()))
        return Found(sequence=found.sequence, saved=saved, checkpoints=checkpoints, about=found.about)

    def model_of(self, session: Session) -> Generator:
        return self._find(session.model)

    def load_checkpoint(self, session: Session, checkpoint: Checkpoint, generator: Generator) -> Sequence:
        """Its state is in host memory. Raises as `load`, and `SnapshotCorrupt` if there is none any more."""
        stored = self._store.load(_key(session.id, checkpoint.key))
        if stored is None:
            raise SnapshotCorrupt("the store has lost this checkpoint; drop it, or make it anew")
        return snapshot.unpack(stored.data, lambda _: generator).sequence

    def delete(self, session: Session) -> None:
        self._store.delete(session.id)
        self._delete(session.id, _all_stored(session))

    def delete_strays(self, keys: Iterable[str], sessions: Mapping[str, Session]) -> None:
        """Of these keys deletes the checkpoints that no session has: the server was killed before it saved the session,
        or after it had deleted it. For a store that nobody else writes to."""
        stored = set(keys)
        for key in stored:
            session_id, _, checkpoint = key.partition("/")
            session = sessions.get(session_id)
            is_known = session is None and session_id in stored  # but could not be read
            has = session is not None and checkpoint in _all_stored(session)
            if checkpoint and not is_known and not has:
                self._store.delete(key)

    def close(self) -> None:
        self._store.close()

    def _save_checkpoint(self, session: Session, checkpoint: Checkpoint, copy: Sequence, generator: Generator) -> None:
        try:
            health.check(generator.engine.pool.tensors(copy.spilled), generator.state_spec)
        except StateCorrupt:
            assert checkpoint.sequence is not None
            checkpoint.sequence.broken = True  # so a session that is rewound to it is told
            return
        data, now = snapshot.pack(Snapshot(sequence=copy), generator), time.time()
        self._store.save(_key(session.id, checkpoint.key), data, 1, expected=None, ttl=_checkpoint_ttl(session))
        checkpoint.saved_at = now

    def _renew(self, session: Session, checkpoints: Iterable[Checkpoint]) -> None:
        """Keeps the store from letting a checkpoint expire before its session does."""
        now, ttl = time.time(), session.ttl
        for kept in checkpoints:
            if ttl is None or kept.saved_at is None or now - kept.saved_at < ttl:
                continue
            key = _key(session.id, kept.key)
            stored = self._store.load(key)
            if stored is not None:
                version = stored.version
                self._store.save(key, stored.data, version + 1, expected=version, ttl=_checkpoint_ttl(session))
                kept.saved_at = now

    def _delete(self, session_id: str, checkpoints: Iterable[str]) -> frozenset[str]:
        """The keys that are still there."""
        left = set(checkpoints)
        with suppress(StoreUnavailable):  # another save will try again
            for key in sorted(left):
                self._store.delete(_key(session_id, key))
                left.discard(key)
        return frozenset(left)


def _key(session_id: str, checkpoint: str) -> str:
    return f"{session_id}/{checkpoint}"


def _stored(checkpoints: Iterable[Checkpoint]) -> frozenset[str]:
    """The keys of those that the store has."""
    return frozenset(kept.key for kept in checkpoints if kept.saved_at is not None)


def _saved_checkpoints(session: Session) -> frozenset[str]:
    return frozenset() if session.saved is None else session.saved.checkpoints


def _all_stored(session: Session) -> frozenset[str]:
    return _saved_checkpoints(session) | _stored(session.checkpoints.values())


def _ttl(session: Session) -> float | None:
    return None if session.ttl is None else session.ttl + _SPARE_SECONDS


def _checkpoint_ttl(session: Session) -> float | None:
    return None if session.ttl is None else _CHECKPOINT_TTLS * session.ttl + _SPARE_SECONDS


def _about(session: Session, checkpoints: Mapping[str, Checkpoint]) -> dict[str, Any]:
    kept = {name: checkpoint for name, checkpoint in checkpoints.items() if checkpoint.saved_at is not None}
    return {
        "id": session.id,
        "model": session.model,
        "owner": session.owner,
        "ttl": session.ttl,
        "request": session.request,
        "created": session.created,
        "checkpoints": {
            name: {"position": each.position, "key": each.key, "saved": each.saved_at} for name, each in kept.items()
        },
    }
