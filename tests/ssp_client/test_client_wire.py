from __future__ import annotations

from dataclasses import fields
from datetime import UTC, datetime

import numpy as np
import pytest

from ssp.v1 import common_pb2, generation_pb2, models_pb2, sessions_pb2
from ssp_client import FinishReason, InputKind, SamplingParams, StreamOptions, Task, Tier, wire
from ssp_client.types import SamplingOptions


def test_text_goes_as_text() -> None:
    assert wire.sequence_to_proto("naïve").text == "naïve"


@pytest.mark.parametrize("ids", [[1, 2, 300], (1, 2, 300), np.array([1, 2, 300], np.uint16), range(3), []])
def test_integers_go_as_ids(ids: list[int]) -> None:
    message = wire.sequence_to_proto(ids)
    assert message.WhichOneof("kind") == "input_ids"
    assert list(message.input_ids.ids) == list(ids)


@pytest.mark.parametrize("dtype", ["<f4", ">f4", "f8", "f2"])
def test_vectors_go_as_little_endian_float32(dtype: str) -> None:
    vectors = np.arange(6).reshape(2, 3).astype(dtype).T
    message = wire.sequence_to_proto(vectors)
    assert message.values.width == 2
    assert np.array_equal(np.frombuffer(message.values.data, "<f4").reshape(3, 2), vectors)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ([-1], "-1 is no token id"),
        ([2**32], "no token id"),
        (np.zeros(3), "2-D floats"),
        (np.zeros((1, 2, 3)), "2-D floats"),
        (np.zeros((2, 2), int), "1-D integers"),
        ("\ud800", "surrogate"),
    ],
)
def test_what_cannot_be_sent_is_said(wrong: list[int], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        wire.sequence_to_proto(wrong)


@pytest.mark.parametrize("wrong", [b"ACGT", [True, False], ["a"], [None]])
def test_other_types_are_refused(wrong: list[int]) -> None:
    with pytest.raises(TypeError):
        wire.sequence_to_proto(wrong)


def test_absent_sampling_parameters_stay_absent() -> None:
    assert wire.sampling_to_proto(SamplingParams()) == common_pb2.SamplingParams()
    zero = wire.sampling_to_proto(SamplingParams(temperature=0, seed=0, n=1))
    assert zero.HasField("temperature") and zero.HasField("seed") and not zero.HasField("top_k")


def test_every_sampling_parameter_arrives() -> None:
    params = SamplingParams(
        temperature=0.5, top_p=0.25, top_k=3, min_p=0.125, repetition_penalty=1.5, presence_penalty=-1.0,
        frequency_penalty=0.5, max_tokens=7, min_tokens=2, stop=("a", "b"), stop_token_ids=(1, 2), ignore_eos=True,
        seed=2**64 - 1, logit_bias={3: -1.0}, n=2, exclude_stop=True,
    )  # fmt: skip
    message = wire.sampling_to_proto(params)
    assert [descriptor.name for descriptor, _ in message.ListFields()] == [field.name for field in fields(params)]
    assert message.seed == 2**64 - 1 and dict(message.logit_bias) == {3: -1.0} and list(message.stop) == ["a", "b"]


def test_one_stop_text_is_not_taken_for_letters() -> None:
    assert list(wire.sampling_to_proto(SamplingParams(stop="END")).stop) == ["END"]


def test_counts_that_do_not_fit_are_named() -> None:
    with pytest.raises(ValueError, match="max_tokens=-1"):
        wire.sampling_to_proto(SamplingParams(max_tokens=-1))


def test_contract_types_and_keywords_name_the_same_fields() -> None:
    names = {field.name for field in fields(SamplingParams)}
    assert names == set(SamplingOptions.__annotations__) == set(common_pb2.SamplingParams.DESCRIPTOR.fields_by_name)


def test_stream_options() -> None:
    message = wire.stream_options_to_proto(StreamOptions(max_chunk_tokens=1))
    assert message.max_chunk_tokens == 1 and not message.HasField("max_chunk_delay_ms")


def test_chunks_read_back() -> None:
    status = common_pb2.SessionStatus(session_id="r.1", position=9, committed_position=7, version=3)
    usage = common_pb2.Usage(prompt_tokens=1, completion_tokens=2, cached_tokens=3)
    message = generation_pb2.GenerateResponse(
        request_id="q", index=1, token_ids=[4, 5], text="hi", usage=usage, session=status,
        finish_reason=common_pb2.FINISH_REASON_STOP,
    )  # fmt: skip
    chunk = wire.chunk_from_proto(message)
    assert chunk.finish_reason is FinishReason.STOP and str(chunk.finish_reason) == "stop"
    assert chunk.session and (chunk.session.position, chunk.session.version) == (9, 3)
    assert chunk.usage and chunk.usage.cached_tokens == 3
    assert (chunk.token_ids, chunk.text, chunk.index, chunk.request_id) == ((4, 5), "hi", 1, "q")
    assert wire.chunk_from_proto(generation_pb2.GenerateResponse()).finish_reason is None


def test_sessions_read_back() -> None:
    message = sessions_pb2.Session(model="m", tier=sessions_pb2.TIER_HOST, state_bytes=5, busy=True)
    message.create_time.FromSeconds(86_400)
    info = wire.session_from_proto(message)
    assert info.create_time == datetime(1970, 1, 2, tzinfo=UTC) and info.last_used_time is None
    assert info.tier is Tier.HOST and info.busy


def test_every_task_is_known() -> None:
    tasks = {wire.model_from_proto(models_pb2.Model(task=task)).task for task in models_pb2.Task.values()}
    assert tasks == set(Task)


def test_models_read_back() -> None:
    message = models_pb2.Model(
        name="m", task=models_pb2.TASK_CLASSIFY, input_kind=models_pb2.INPUT_KIND_VALUES, labels=["a"], d_input=4
    )
    info = wire.model_from_proto(message)
    assert info.task is Task.CLASSIFY and info.input_kind is InputKind.VALUES and info.labels == ("a",)
    assert {field.name for field in fields(info)} == set(models_pb2.Model.DESCRIPTOR.fields_by_name)
