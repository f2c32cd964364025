"""The engine in process: whatever happens around it, a sequence's tokens are those it would have alone."""

import time
from dataclasses import replace

import pytest
import torch

from ssp_runtime.engine.call import Call
from ssp_runtime.engine.generator import GenerationLimits
from ssp_runtime.engine.progress import FinishReason
from ssp_runtime.errors import Draining, Exhausted, InvalidRequest, StateCorrupt
from ssp_runtime.state import initial_state
from ssp_runtime.tokenizers import TokenIds
from tests.ssp_runtime.engine.engine_harness import GREEDY, Driver, driver, params, tiny_artifact, tiny_model

PROMPTS = [[(7 * i + 3 * j) % 256 for j in range(1 + 6 * i)] for i in range(12)]
BOS = 0


def with_bos(prompt: list[int]) -> list[int]:
    return prompt if prompt[:1] == [BOS] else [BOS, *prompt]


def assert_pool_is_new(made: Driver) -> None:
    """All slots are free, and in the initial state."""
    pool, model = made.engine.pool, tiny_model()
    assert pool.num_used == pool.num_running == 0
    for i in range(pool.num_slots):
        pool.place(i)
        for name, tensor in initial_state(model.state_spec, 1, torch.float32, torch.device("cpu")).items():
            assert torch.equal(pool.row(i)[name], tensor), name


# Alone and together


def test_the_model_under_test_says_different_things() -> None:
    assert len({tuple(GREEDY.tokens(with_bos(prompt), 12)) for prompt in PROMPTS}) > 8


def test_a_crowd_gets_the_tokens_that_each_gets_alone() -> None:
    with driver(slots=6, piece=16) as made:
        calls = [made.submit(made.sequence(), prompt, max_tokens=5 + 3 * i) for i, prompt in enumerate(PROMPTS)]
        made.finish(*calls)
        for i, (prompt, call) in enumerate(zip(PROMPTS, calls, strict=True)):
            assert len(made.tokens(call)) == 5 + 3 * i
            GREEDY.check(made.tokens(call), with_bos(prompt))
        assert max(made.hooks.rows) > 1, "nothing ever ran together"


def test_drawn_tokens_are_the_same_alone_and_in_a_crowd() -> None:
    sampling = {"temperature": 1.0, "top_p": 0.95, "seed": 5, "repetition_penalty": 1.2, "frequency_penalty": 0.3}
    with driver(slots=12, piece=16) as made:
        alone = [made.complete(made.sequence(), prompt, **sampling) for prompt in PROMPTS]
        calls = [made.submit(made.sequence(), prompt, **sampling) for prompt in PROMPTS]
        made.finish(*calls)
        assert [made.tokens(call) for call in calls] == alone
        assert len(set(map(tuple, alone))) == len(PROMPTS)


@pytest.mark.parametrize("piece", [1, 2, 7, 64])
def test_a_prompt_may_be_folded_in_any_pieces(piece: int) -> None:
    with driver(piece=piece) as made:
        GREEDY.check(made.complete(made.sequence(), PROMPTS[6]), with_bos(PROMPTS[6]))


def test_running_streams_advance_between_the_pieces_of_a_long_prompt() -> None:
    with driver(piece=8) as made:
        stream = made.submit(made.sequence(), [1], max_tokens=30)
        made.wait(lambda: stream.num_generated > 0)
        tokens_between = []
        made.hooks.on_prefilled = lambda tokens: tokens_between.append((tokens, stream.num_generated))
        made.finish(made.submit(made.sequence(), [2] * 80, max_tokens=1), stream)
    while_running = [made for _, made in tokens_between if made < 30]
    assert all(tokens <= 8 for tokens, made in tokens_between if made < 30)
    assert while_running == sorted(set(while_running)), "two pieces without a token in between"


# Ends


def test_why_a_call_ends() -> None:
    text = GREEDY.tokens([BOS, 1, 2], 12)
    with driver() as made:

        def end(**sampling: object) -> tuple[list[int], FinishReason | None]:
            call = made.submit(made.sequence(), [1, 2], **sampling)
            return made.finish(call), call.finish_reason

        assert end() == (text, FinishReason.LENGTH)
        assert end(max_tokens=1) == ([text[0]], FinishReason.LENGTH)
        fifth = frozenset({text[4]})
        assert text.index(text[4]) == 4, "choose another prompt"
        assert end(stop_token_ids=fifth) == (text[:5], FinishReason.STOP)
        assert end(logit_bias={BOS: 100.0}, ignore_eos=False) == ([BOS], FinishReason.STOP)
        assert end(logit_bias={BOS: 100.0}, max_tokens=3) == ([BOS] * 3, FinishReason.LENGTH)


def test_no_end_comes_before_min_tokens() -> None:
    with driver() as made:
        biased = {"logit_bias": {BOS: 100.0}, "ignore_eos": False, "min_tokens": 4}
        tokens = made.complete(made.sequence(), [1], **biased)
        assert len(tokens) == 5 and tokens[4] == BOS and BOS not in tokens[:4]


def test_any_of_several_ends_ends_a_text_and_none_comes_before_min_tokens() -> None:
    ends = (3, 200)
    description = replace(tiny_artifact().description, tokenizer=TokenIds(256, ends))
    with driver(artifact=replace(tiny_artifact(), description=description)) as made:
        for end in ends:
            call = made.submit(made.sequence(), [1], logit_bias={end: 100.0}, ignore_eos=False)
            assert (made.finish(call), call.finish_reason) == ([end], FinishReason.STOP)
            assert made.complete(made.sequence(), [1], logit_bias={end: 100.0}, max_tokens=3) == [end] * 3
        biased = {"logit_bias": dict.fromkeys(ends, 100.0), "ignore_eos": False, "min_tokens": 4}
        tokens = made.complete(made.sequence(), [1], **biased)
        assert len(tokens) == 5 and tokens[4] in ends and not set(ends) & set(tokens[:4])


def test_a_stop_text_is_not_returned_but_stays_in_the_state() -> None:
    with driver() as made:
        sequence = made.sequence()
        call = made.submit(sequence, [1], logit_bias={ord("x"): 100.0}, stop=["xxx"])
        assert made.finish(call) == [ord("x")] * 3 and made.text(call) == ""
        assert call.finish_reason is FinishReason.STOP and sequence.position == 2 + 3


def test_there_must_be_something_to_do() -> None:
    with driver() as made:
        with pytest.raises(InvalidRequest, match="token id 256 is outside"):
            made.submit(made.sequence(), [256])
        with pytest.raises(InvalidRequest, match="max_tokens must be in"):
            made.submit(made.sequence(), [1], max_tokens=0)
        with pytest.raises(InvalidRequest, match="give at least one token"):
            sequence = made.sequence()
            made.complete(sequence, [1])
            made.generator.new_call(sequence, [], None)


# Cancelled calls


def cancel_when(made: Driver, *, folded: int) -> None:
    """Cancels the next call to have folded so many tokens."""

    def check(_: int) -> None:
        for call in made.engine._calls:
            if call.sequence.folded >= folded:
                made.engine.cancel(call)

    made.hooks.on_prefilled = check


@pytest.mark.parametrize("history", [[], [5, 6, 7]], ids=["new", "used"])
def test_a_session_cancelled_in_a_prompt_goes_on_like_an_uninterrupted_one(history: list[int]) -> None:
    prompt = PROMPTS[8]
    with driver(piece=10) as made:
        sequence = made.sequence()
        if history:
            made.complete(sequence, history, max_tokens=1)
        context = [*with_bos(history), *GREEDY.tokens(with_bos(history), 1)] if history else []
        cancel_when(made, folded=len(context) + 20)
        cut = made.ended(made.submit(sequence, prompt))
        made.hooks.reset()
        whole = context + prompt if history else with_bos(prompt)
        assert cut.finish_reason is FinishReason.ABORT
        assert len(context) + 20 <= sequence.position < len(whole)
        GREEDY.check(made.complete(sequence, whole[sequence.position :]), whole)


def test_a_session_cancelled_in_a_prompt_can_go_on_from_there() -> None:
    with driver(piece=10) as made:
        sequence = made.sequence()
        cancel_when(made, folded=20)
        made.ended(made.submit(sequence, PROMPTS[8]))
        made.hooks.reset()
        GREEDY.check(made.complete(sequence), with_bos(PROMPTS[8])[: sequence.position - 12])


def test_a_session_cancelled_while_generating_goes_on_like_an_uninterrupted_one() -> None:
    with driver() as made:
        sequence = made.sequence()
        made.hooks.on_token = lambda call: made.engine.cancel(call) if call.num_generated == 5 else None
        first = made.finish(made.submit(sequence, [1, 2]))
        assert len(first) == 5 and sequence.position == 3 + 5
        GREEDY.check(first + made.complete(sequence, max_tokens=20), [BOS, 1, 2])


def test_a_paused_call_that_is_cancelled_ends_at_once() -> None:
    with driver(max_ahead=4) as made:
        paused = made.submit(made.sequence(), [1])
        made.wait(lambda: paused.num_unread == 4)
        started = time.monotonic()
        made.engine.cancel(paused)
        made.engine.wake()
        assert made.ended(paused).finish_reason is FinishReason.ABORT
        assert time.monotonic() - started < 0.9, "it waited for a timer"


def test_a_call_cancelled_before_it_began_changes_nothing() -> None:
    with driver(started=False) as made:
        sequence = made.sequence()
        call = made.submit(sequence, [1, 2])
        made.engine.cancel(call)
        made.engine.start()
        assert made.ended(call).finish_reason is FinishReason.ABORT
        assert sequence.position == made.engine.pool.num_used == 0
        GREEDY.check(made.complete(sequence, [2], max_tokens=4), [BOS, 2])
        made.engine.stop()


# More sequences than slots


def test_more_sessions_than_slots_all_finish_and_go_on() -> None:
    with driver(slots=2) as made:
        sequences = [made.sequence() for _ in range(7)]
        for _ in range(3):
            prompts = [[] if sequence.position else [i] for i, sequence in enumerate(sequences)]
            made.finish(*map(made.submit, sequences, prompts))
        assert made.hooks.spills >= 3 * 5 - 2 and made.hooks.restores > 5
        for i, sequence in enumerate(sequences):
            assert sequence.position == len(with_bos([i])) + 36
            _, tokens = made.complete(sequence, max_tokens=1), sequence.recent
            GREEDY.check([token for token, generated in tokens if generated], with_bos([i]))


def test_a_spilled_session_does_not_wait_for_sessions_that_wait_for_it() -> None:
    with driver(slots=2) as made:
        oldest, middle, newest = (made.sequence() for _ in range(3))
        for sequence in (oldest, middle, newest):
            made.complete(sequence, [1])
        assert oldest not in made.engine.pool and middle in made.engine.pool and newest in made.engine.pool
        calls: list[Call] = []

        def submit_all(_: Call) -> None:
            if not calls:
                calls.extend(map(made.submit, (oldest, middle, newest)))

        made.hooks.on_token = submit_all  # within one round, the spilled one first
        made.settle()
        made.finish(*calls)


def test_a_slot_is_handed_on_at_once() -> None:
    with driver(slots=1) as made:
        started = time.monotonic()
        calls = [made.submit(made.sequence(), [i], max_tokens=1) for i in range(5)]
        made.wait(lambda: all(call.finish_reason for call in calls))
        assert time.monotonic() - started < 1.0, "somebody waited for a timer"


def test_a_lagging_reader_holds_no_slot_that_others_need() -> None:
    with driver(slots=1, max_ahead=4) as made:
        lagging = made.submit(made.sequence(), [1])
        made.wait(lambda: lagging.num_unread == 4)
        GREEDY.check(made.complete(made.sequence(), [2]), [BOS, 2])
        GREEDY.check(made.finish(lagging), [BOS, 1])


def test_too_many_calls_are_refused_however_fast_they_come() -> None:
    with driver(slots=1, limits=GenerationLimits(max_waiting=3), started=False) as made:
        for _ in range(3):
            made.submit(made.sequence(), [1])
        with pytest.raises(Exhausted, match="3 calls wait") as refused:
            made.submit(made.sequence(), [1])
        assert refused.value.retry_after > 0


# Slow readers


def test_a_reader_that_lags_pauses_its_call_and_resumes_it() -> None:
    with driver() as made:
        lagging = made.submit(made.sequence(), [1], max_tokens=100)
        made.wait(lambda: lagging.num_unread == 32)
        made.settle()
        assert lagging.num_unread == 32 and lagging.finish_reason is None, "it ran too far ahead"
        lagging.take(15)
        made.engine.wake()
        made.settle()
        assert lagging.num_unread == 17, "a reader that is half-way behind is not waited for"
        lagging.put_back([])
        lagging.take(17)
        made.finish(lagging)
        GREEDY.check(list(lagging.everything().token_ids), [BOS, 1])


def test_a_reader_that_never_reads_is_cut_and_its_state_committed() -> None:
    with driver(max_ahead=4, stall_seconds=0.05) as made:
        sequence = made.sequence()
        stalled = made.ended(made.submit(sequence, [1]))
        assert stalled.finish_reason is FinishReason.ABORT
        assert sequence.position == sequence.settled == 2 + 4
        GREEDY.check(made.finish(stalled) + made.complete(sequence), [BOS, 1])


# Failures


def test_a_corrupt_state_fails_only_its_own_call() -> None:
    with driver() as made:
        sequences = [made.sequence() for _ in range(5)]
        victim = sequences[2]

        def corrupt(call: Call) -> None:
            if call.sequence is victim and call.num_generated == 3:
                made.engine.pool.row(victim)[name].fill_(float("nan"))

        name = next(name for name, spec in tiny_model().state_spec.items() if spec.kind == "accumulator")
        made.hooks.on_token = corrupt
        calls = [made.submit(sequence, [i, 7], temperature=float(i % 2)) for i, sequence in enumerate(sequences)]
        made.finish(*calls)
        made.hooks.reset()
        last = calls[2].last
        assert last is not None and last.finish_reason is FinishReason.ERROR and isinstance(last.error, StateCorrupt)
        assert len(made.tokens(calls[2])) == 3
        for i in (0, 4):
            GREEDY.check(made.tokens(calls[i]), with_bos([i, 7]))
        for i in (1, 3):
            assert made.tokens(calls[i]) == made.complete(made.sequence(), [i, 7], temperature=1.0)
        assert victim not in made.engine.pool


@pytest.mark.parametrize("method", ["step", "fold"])
def test_the_engine_survives_a_failing_model(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with driver() as made:
        other = made.sequence()
        made.complete(other, [3], max_tokens=5)

        def fail(*_: object, **__: object) -> None:
            raise RuntimeError("out of memory")

        with monkeypatch.context() as patch:
            patch.setattr(tiny_model(), method, fail)
            failed = made.ended(made.submit(made.sequence(), [1, 2]))
        assert failed.last is not None and isinstance(failed.last.error, RuntimeError)
        assert failed.sequence.broken and failed.sequence not in made.engine.pool
        GREEDY.check(made.complete(other, max_tokens=5), [BOS, 3, *GREEDY.tokens([BOS, 3], 5)])


# The end


def test_sequences_that_are_not_kept_leave_nothing_behind() -> None:
    with driver(slots=3) as made:
        made.finish(*(made.submit(made.generator.new_sequence(kept=False), prompt) for prompt in PROMPTS))
        assert_pool_is_new(made)


def test_stopping_ends_every_call_at_its_last_token() -> None:
    with driver(slots=1, max_ahead=4) as made:
        paused, waiting = made.submit(made.sequence(), [1]), made.submit(made.sequence(), [2])
        made.wait(lambda: paused.num_unread == 4)
        made.engine.stop()
        assert paused.finish_reason is waiting.finish_reason is FinishReason.ABORT
        assert paused.sequence.settled == 2 + 4
        with pytest.raises(Draining):
            made.submit(made.sequence(), [3])


def test_a_prompt_of_nothing_but_bos() -> None:
    with driver() as made:
        GREEDY.check(made.complete(made.sequence()), [BOS])
        GREEDY.check(made.complete(made.sequence(), [BOS]), [BOS])


def test_params_reach_the_sampler() -> None:
    with driver() as made:
        drawn = [made.complete(made.sequence(), [1], temperature=1.0, seed=seed) for seed in (3, 3, 4)]
        assert drawn[0] == drawn[1] != drawn[2]
        assert params().greedy


def test_a_bug_of_the_engine_ends_all_calls_and_not_the_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    with driver() as made:
        with monkeypatch.context() as patch:
            patch.setattr(type(made.engine), "_turn_over", lambda *_: 1 // 0)
            failed = made.ended(made.submit(made.sequence(), [1, 2]))
        assert failed.last is not None and isinstance(failed.last.error, ZeroDivisionError)
        GREEDY.check(made.complete(made.sequence(), [3], max_tokens=5), with_bos([3]))
