"""The prefix cache finds what was kept for exactly these tokens, and keeps no more than it may."""

from collections import OrderedDict

import pytest
import torch
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from torch import Tensor

from ssp_runtime.engine.prefix_cache import STRIDE, Key, PrefixCache, Prefixes


def row(num_bytes: int, mark: int = 0) -> Tensor:
    return torch.full((num_bytes,), mark % 256, dtype=torch.uint8)


def put(cache: PrefixCache, tokens: list[int], kept: Tensor, scope: str = "") -> None:
    cache.put(Prefixes(scope, tokens), len(tokens), kept)


def found(cache: PrefixCache, tokens: list[int], scope: str = "") -> int:
    """How many tokens need not be computed."""
    hit = cache.find(Prefixes(scope, tokens))
    return hit[0] if hit else 0


def test_the_longest_prefix_is_found() -> None:
    cache = PrefixCache(100)
    rows = {count: row(1) for count in (6, 1, 4, 3)}
    for count, kept in rows.items():
        put(cache, [7, 8, 9, 10, 11, 12][:count], kept)
    hit = cache.find(Prefixes("", [7, 8, 9, 10, 99, 12, 13]))
    assert hit is not None and hit[0] == 4 and hit[1] is rows[4]


def test_a_token_is_left_to_compute() -> None:
    cache = PrefixCache(100)
    put(cache, [1, 2, 3], row(1))
    assert found(cache, [1, 2, 3]) == 0
    assert found(cache, [1, 2, 3, 4]) == 3


def test_scopes_share_nothing() -> None:
    cache = PrefixCache(100)
    put(cache, [1, 2, 3], row(1), scope="a")
    put(cache, [9], row(1), scope="b")
    assert found(cache, [1, 2, 3, 4], scope="b") == 0
    assert found(cache, [1, 2, 3, 4], scope="a") == 3


@pytest.mark.parametrize("other", [[1, 3, 2, 4], [1, 2, 4, 4], [257, 2, 3, 4], [1, 2 + 2**31, 3, 4], [1, 2]])
def test_other_tokens_are_not_found(other: list[int]) -> None:
    cache = PrefixCache(100)
    put(cache, [1, 2, 3], row(1))
    assert found(cache, other) == 0


class Counted(Prefixes):
    num_keys = 0

    def key(self, count: int) -> Key:
        self.num_keys += 1
        return super().key(count)


def test_a_search_reads_the_hash_once_a_stored_length() -> None:
    cache, prompt = PrefixCache(30), Counted("", range(10))
    for length in (1, 2, 3, 4, 5):  # the first two are given up
        put(cache, [9] * length, row(10))
    put(cache, [8] * 5, row(5))  # and the third
    put(cache, [8] * 20, row(5))
    cache.find(prompt)
    assert prompt.num_keys == 2


def test_the_least_recently_used_is_given_up() -> None:
    cache = PrefixCache(30)
    for token in (1, 2, 3):
        put(cache, [token], row(10))
    assert found(cache, [1, 0]) == 1  # used again
    put(cache, [4], row(11))
    assert [token for token in (1, 2, 3, 4) if found(cache, [token, 0])] == [1, 4]
    assert cache.used_bytes == 21


def test_a_row_beyond_the_budget_is_not_kept_and_drives_nothing_out() -> None:
    cache = PrefixCache(10)
    put(cache, [1], row(10))
    put(cache, [2], row(11))
    assert cache.used_bytes == 10 and found(cache, [1, 0]) == 1 and found(cache, [2, 0]) == 0


def test_without_a_budget_nothing_is_kept_wanted_or_counted() -> None:
    cache, prompt = PrefixCache(0), Prefixes("", [1, 2])
    cache.put(prompt, 1, row(1))
    assert cache.find(prompt) is None and not cache.wanted(prompt, 1, 0)
    assert (cache.used_bytes, cache.queries, cache.hits) == (0, 0, 0)


def test_queries_and_hits_count_tokens() -> None:
    cache = PrefixCache(100)
    put(cache, [1, 2, 3], row(1))
    found(cache, [1, 2, 3, 4, 5])
    found(cache, [4, 5])
    assert (cache.queries, cache.hits) == (7, 3)


def test_states_are_wanted_at_the_end_of_a_prompt_and_one_in_a_while() -> None:
    cache, prompt = PrefixCache(100), Prefixes("", range(3 * STRIDE))
    kept = [0]
    for count in range(0, len(prompt), 100):
        if cache.wanted(prompt, count, kept[-1]):
            kept.append(count)
    assert kept == [0, 600, 1200]
    last = len(prompt) - 1
    assert cache.wanted(prompt, last, last - 1) and not cache.wanted(Prefixes("", [1]), 0, 0)


def test_what_is_kept_already_is_not_wanted() -> None:
    cache, prompt = PrefixCache(100), Prefixes("", [1, 2, 3])
    assert cache.wanted(prompt, 2, 0)
    cache.put(prompt, 2, row(1))
    assert not cache.wanted(Prefixes("", [1, 2, 4]), 2, 0)


def test_the_order_in_which_prefixes_are_asked_for_does_not_matter() -> None:
    prompt = Prefixes("", range(10))
    ascending = [prompt.key(count) for count in range(11)]
    assert [prompt.key(count) for count in reversed(range(11))] == ascending[::-1]
    assert ascending == [Prefixes("", range(count)).key(count) for count in range(11)]


TOKENS = st.lists(st.integers(0, 2), max_size=7)
SCOPES = st.sampled_from("ab")


class Histories(RuleBasedStateMachine):
    """Against a dictionary of tuples, in order of use."""

    @initialize(max_bytes=st.integers(0, 60))
    def create(self, max_bytes: int) -> None:
        self.cache, self.model = PrefixCache(max_bytes), OrderedDict[tuple[str, tuple[int, ...]], Tensor]()
        self.queries = self.hits = self.num_rows = 0

    @rule(scope=SCOPES, tokens=TOKENS, rest=TOKENS, num_bytes=st.integers(1, 25))
    def put(self, scope: str, tokens: list[int], rest: list[int], num_bytes: int) -> None:
        self.num_rows += 1
        kept = row(num_bytes, self.num_rows)
        self.cache.put(Prefixes(scope, tokens + rest), len(tokens), kept)
        if num_bytes <= self.cache.max_bytes:
            self.model.pop((scope, tuple(tokens)), None)
            self.model[scope, tuple(tokens)] = kept
            while self.model_bytes() > self.cache.max_bytes:
                self.model.popitem(last=False)

    @rule(scope=SCOPES, tokens=TOKENS)
    def find(self, scope: str, tokens: list[int]) -> None:
        prefixes = [(scope, tuple(tokens[:count])) for count in range(len(tokens))]
        known = [prefix for prefix in prefixes if prefix in self.model]
        hit = self.cache.find(Prefixes(scope, tokens))
        self.queries += len(tokens) if self.cache.max_bytes else 0
        assert (hit is not None) == bool(known)
        if hit is not None:
            self.hits += len(known[-1][1])
            self.model.move_to_end(known[-1])
            assert hit[0] == len(known[-1][1]) and hit[1] is self.model[known[-1]]

    def model_bytes(self) -> int:
        return sum(kept.nbytes for kept in self.model.values())

    @invariant()
    def accounts_agree(self) -> None:
        assert self.cache.used_bytes == self.model_bytes() <= self.cache.max_bytes
        assert (self.cache.queries, self.cache.hits) == (self.queries, self.hits)


TestHistories = Histories.TestCase
TestHistories.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
