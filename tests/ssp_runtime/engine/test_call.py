"""A call's two ends: what the engine folds, and what its reader takes."""

from collections.abc import Sequence as Ids
from typing import Any

import pytest

from ssp_runtime.engine.call import Call, CallOptions
from ssp_runtime.engine.progress import FinishReason, Progress, Receipt
from ssp_runtime.engine.sampling_params import SamplingParams
from ssp_runtime.engine.sequence import PENALTY_WINDOW, Sequence
from ssp_runtime.tokenizers import ByteTokenizer


def sequence(folded: int = 0, pending: int | None = None) -> Sequence:
    made = Sequence(ByteTokenizer().detokenizer(), kept=True)
    made.folded, made.pending = folded, pending
    return made


def admitted(owner: Sequence, prompt: Ids[int], *, folded: int) -> Call:
    """A call that has folded so many tokens."""
    call = Call(owner, prompt, SamplingParams())
    call.admitted = 0.0
    call.take_in()
    call.skip(folded)
    return call


def progress(*tokens: int, finish_reason: FinishReason | None = None) -> Progress:
    return Progress(position=0, token_ids=tokens, finish_reason=finish_reason)


def tokens(taken: Ids[Progress]) -> list[int]:
    return [token for part in taken for token in part.token_ids]


def cut(*, taken: int) -> Call:
    """A call that computed "hallo", of which a reader took so many tokens, in one chunk, before it was cut."""
    call = Call(sequence(), [1], SamplingParams(), CallOptions(request_id="last"))
    for token in b"hallo":
        call.put(Progress(position=0, token_ids=(token,), text=chr(token)))
    call.take(taken)
    call.put(Progress(position=0, finish_reason=FinishReason.ABORT))
    return call


def following(last: Call, **options: Any) -> Call:
    call = Call(sequence(3), [1], SamplingParams(), CallOptions(**options))
    call.follow(last)
    return call


def text(taken: Ids[Progress]) -> str:
    return "".join(part.text for part in taken)


@pytest.mark.parametrize(
    ("receipt", "rest"),
    [
        (None, "lo"),
        (Receipt("another", 1, 1), "lo"),
        (Receipt("last", 0, 0), "hallo"),
        (Receipt("last", 1, 1), "allo"),  # more was sent than came
        (Receipt("last", 4, 4), "o"),  # what came could not be told to have come
        (Receipt("last", 2, 3), "lo"),
        (Receipt("last", 5, 5), ""),
        (Receipt("last", 50, 50), ""),
    ],
)
def test_a_call_begins_with_what_its_client_has_not_received_of_the_last(receipt: Receipt | None, rest: str) -> None:
    call = following(cut(taken=3), receipt=receipt)
    taken = call.take(9)
    assert text(taken) == rest
    assert bytes(tokens(taken)) == (b"llo" if receipt == Receipt("last", 2, 3) else rest.encode())
    assert call.num_carried == len(tokens(taken))


def test_received_tokens_that_the_call_before_left_behind_are_not_generated() -> None:
    assert list(following(cut(taken=3), received=(*b"lo", 9)).forced) == [9]
    assert not following(cut(taken=3), received=tuple(b"l")).forced


@pytest.fixture
def call() -> Call:
    made = Call(sequence(), [1], SamplingParams())
    for token in range(5):
        made.put(progress(token))
    return made


def test_take_gives_what_came_in_order_and_once(call: Call) -> None:
    assert call.num_unread == 5
    assert tokens(call.take(2)) == [0, 1] and call.num_unread == 3
    assert tokens(call.take(100)) == [2, 3, 4]
    assert call.take(100) == [] and call.num_unread == 0


def test_what_could_not_be_delivered_comes_again_first(call: Call) -> None:
    taken = call.take(3)
    call.put(progress(5))
    call.put_back(taken)
    assert list(call.untaken().token_ids) == [0, 1, 2, 3, 4, 5]
    assert tokens(call.take(100)) == [0, 1, 2, 3, 4, 5]


def test_what_was_taken_is_kept_too(call: Call) -> None:
    call.take(3)
    assert call.taken().token_ids == (0, 1, 2)
    assert call.everything().token_ids == (0, 1, 2, 3, 4)


def test_a_call_has_finished_once_its_last_progress_is_there(call: Call) -> None:
    assert call.finish_reason is None
    call.put(progress(5, finish_reason=FinishReason.LENGTH))
    assert call.finish_reason is FinishReason.LENGTH


@pytest.mark.parametrize(
    ("before", "folded", "position", "pending", "left"),
    [
        ((0, None), 0, 0, None, [1, 2, 3, 4]),  # new, nothing folded: as if never called
        ((0, None), 2, 3, 3, [4]),  # the next token becomes the pending one
        ((0, None), 3, 4, 4, []),
        ((0, 9), 0, 1, 9, [1, 2, 3, 4]),  # the token that was pending still is
        ((0, 9), 1, 2, 1, [2, 3, 4]),
        ((7, 9), 0, 8, 9, [1, 2, 3, 4]),
        ((7, 9), 3, 11, 3, [4]),
    ],
)
def test_give_back_leaves_the_sequence_where_folding_stopped(
    before: tuple[int, int | None], folded: int, position: int, pending: int | None, left: list[int]
) -> None:
    owner = sequence(*before)
    call = admitted(owner, [1, 2, 3, 4], folded=folded)
    call.give_back()
    assert (owner.position, owner.pending, list(call.prompt)) == (position, pending, left)
    assert [token for token, _ in owner.recent] == [1, 2, 3, 4][: 4 - len(left)]


def test_giving_back_a_call_that_was_never_admitted_changes_nothing() -> None:
    owner = sequence(7, 9)
    call = Call(owner, [1, 2], SamplingParams())
    call.give_back()
    assert (owner.position, owner.pending, call.prompt) == (8, 9, (1, 2))


def test_the_penalty_window_after_a_cut_ends_where_folding_stopped() -> None:
    owner, prompt = sequence(), [token % 251 for token in range(3 * PENALTY_WINDOW)]
    call = admitted(owner, prompt, folded=2 * PENALTY_WINDOW)
    call.give_back()
    consumed = prompt[: 2 * PENALTY_WINDOW + 1]
    assert [token for token, _ in owner.recent] == consumed[-PENALTY_WINDOW:]


def test_the_position_never_goes_back_while_a_prompt_is_folded() -> None:
    owner = sequence(7, 9)
    call = admitted(owner, [1, 2], folded=0)
    assert owner.position == 8
    call.skip(1)
    assert owner.position == 8
