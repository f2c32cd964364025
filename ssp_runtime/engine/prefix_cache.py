"""States that prompts have reached, for prompts that begin alike.

A state cannot be cut back, so a prompt can start from what was kept only where exactly its own first tokens led.
Looking for the longest such prefix costs one hash over the prompt's tokens, read out at each length that is stored.
"""

import hashlib
from collections import Counter, OrderedDict
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from torch import Tensor

STRIDE = 512  # tokens between the states kept while one prompt is folded
_TOKEN_BYTES = 4


class Key(NamedTuple):
    scope: str
    length: int
    digest: bytes


class Prefixes:
    """The beginnings of one call's tokens. Cheap as long as they are asked for in increasing order.

    `scope` is the name of a tenant: nothing is found across scopes.
    """

    def __init__(self, scope: str, tokens: Sequence[int]) -> None:
        self.scope = scope
        self._bytes = np.asarray(tokens, dtype="<u4").tobytes()
        self._hasher, self._hashed = hashlib.blake2b(digest_size=32), 0

    def __len__(self) -> int:
        return len(self._bytes) // _TOKEN_BYTES

    def key(self, count: int) -> Key:
        """Names the first `count` tokens."""
        assert count <= len(self)
        if count < self._hashed:
            self._hasher, self._hashed = hashlib.blake2b(digest_size=32), 0
        self._hasher.update(memoryview(self._bytes)[_TOKEN_BYTES * self._hashed : _TOKEN_BYTES * count])
        self._hashed = count
        return Key(self.scope, count, self._hasher.digest())


class PrefixCache:
    """Rows of the state pool in host memory, `max_bytes` of them, the least recently used given up first. 0 is off.

    `queries` and `hits` count tokens: those of the prompts looked for, and those that need not be computed. One thread
    works with it; others may read the numbers.
    """

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes, self.used_bytes = max_bytes, 0
        self.queries = self.hits = 0
        self._rows: OrderedDict[Key, Tensor] = OrderedDict()
        self._lengths: dict[str, Counter[int]] = {}  # by scope, how many rows there are of each number of tokens

    def find(self, prefixes: Prefixes) -> tuple[int, Tensor] | None:
        """The longest stored prefix that leaves a token to compute: its length, and its row, not to be written to."""
        if not self.max_bytes:
            return None
        self.queries += len(prefixes)
        lengths = sorted(length for length in self._lengths.get(prefixes.scope, ()) if length < len(prefixes))
        found = [key for key in map(prefixes.key, lengths) if key in self._rows]
        if not found:
            return None
        longest = found[-1]
        self._rows.move_to_end(longest)
        self.hits += longest.length
        return longest.length, self._rows[longest]

    def wanted(self, prefixes: Prefixes, count: int, last_kept: int) -> bool:
        """Whether the state after `count` tokens is to be kept: the last one of a prompt, which has one token left to
        compute, and on the way there one in a while."""
        at_end = count == len(prefixes) - 1
        if not self.max_bytes or not count or not (at_end or count - last_kept >= STRIDE):
            return False
        return prefixes.key(count) not in self._rows

    def put(self, prefixes: Prefixes, count: int, row: Tensor) -> None:
        """Keeps the state after the first `count` tokens: a row of its own memory that nobody writes to."""
        key = prefixes.key(count)
        if row.nbytes > self.max_bytes:
            return
        if key in self._rows:
            self._drop(key)
        while self.used_bytes + row.nbytes > self.max_bytes:
            self._drop(next(iter(self._rows)))
        self._rows[key] = row
        self._lengths.setdefault(key.scope, Counter())[key.length] += 1
        self.used_bytes += row.nbytes

    def _drop(self, key: Key) -> None:
        self.used_bytes -= self._rows.pop(key).nbytes
        lengths = self._lengths[key.scope]
        lengths[key.length] -= 1
        if not lengths[key.length]:
            del lengths[key.length]
        if not lengths:
            del self._lengths[key.scope]
