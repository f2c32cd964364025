"""What a Step call's messages mean, without a server."""

import numpy as np
import pytest

from ssp.v1 import common_pb2, sessions_pb2
from ssp_client import InvalidArgument, SequenceLike, SessionStatus, TopLogprobs, Unavailable
from ssp_client.cursor import Cursor
from ssp_client.steps import Outputs, Steps, joined, joined_top

ID = f"key.{1:032x}"


@pytest.fixture
def cursor() -> Cursor:
    status = SessionStatus(session_id=ID, position=4, committed_position=4, version=1)
    return Cursor(ID, check_position=True, status=status)


def steps_of(cursor: Cursor) -> Steps[Outputs]:
    return Steps(cursor, joined, top_logprobs=0, expected_position=None)


def response(position: int, rows: list[list[float]] | None = None, num_left: int = 0) -> bytes:
    outputs = None
    if rows is not None:
        outputs = common_pb2.PackedFloats(data=np.array(rows, "<f4").tobytes(), width=len(rows[0]))
    status = common_pb2.SessionStatus(session_id=ID, position=position)
    return sessions_pb2.StepResponse(session=status, outputs=outputs, num_left=num_left).SerializeToString()


def test_the_first_message_says_where_and_the_others_what(cursor: Cursor) -> None:
    steps = Steps(cursor, joined_top, top_logprobs=3, expected_position=None)
    first = sessions_pb2.StepRequest.FromString(steps.call.body)
    assert (first.session_id, first.expected_position, first.top_logprobs) == (ID, 4, 3)
    assert steps.call.metadata == (("ssp-routing-key", "key"),)
    then = sessions_pb2.StepRequest.FromString(steps.put([1, 2]))
    assert then == sessions_pb2.StepRequest(input=common_pb2.SequenceInput(input_ids=common_pb2.TokenIds(ids=[1, 2])))


def test_answers_in_parts_are_put_together(cursor: Cursor) -> None:
    steps = steps_of(cursor)
    steps.put([1, 2, 3])
    steps.put([4])
    assert steps.take(response(6, [[1, 2], [3, 4]], num_left=1)) is None
    assert (steps.num_unanswered, cursor.position) == (2, 6)
    found = steps.take(response(7, [[5, 6]]))
    assert found is not None and found.tolist() == [[1, 2], [3, 4], [5, 6]]
    second = steps.take(response(8, [[7, 8]]))
    assert second is not None and second.tolist() == [[7, 8]] and second.dtype == np.float32
    assert steps.num_unanswered == 0
    assert steps.take(response(8)) is None


def test_the_likeliest_tokens(cursor: Cursor) -> None:
    steps = Steps(cursor, joined_top, top_logprobs=2, expected_position=None)
    steps.put([1, 2])
    tops = [sessions_pb2.TopLogprobs(token_ids=[9, 8], logprobs=[-0.5, -1.0]) for _ in range(2)]
    status = common_pb2.SessionStatus(session_id=ID, position=6)
    body = sessions_pb2.StepResponse(session=status, top=tops).SerializeToString()
    assert steps.take(body) == (TopLogprobs(token_ids=(9, 8), logprobs=(-0.5, -1.0)),) * 2


def test_a_refusal_leaves_the_place_known_and_an_accident_does_not(cursor: Cursor) -> None:
    steps = steps_of(cursor)
    steps.failed(InvalidArgument("no"))
    assert cursor.position == 4
    steps.put([1])
    steps.failed(InvalidArgument("no"))
    assert cursor.position is None


def test_a_lost_connection_and_a_cut_stream_leave_it_unknown(cursor: Cursor) -> None:
    steps_of(cursor).failed(Unavailable("gone"))
    assert cursor.position is None
    cursor.position = 4
    steps_of(cursor).cut()
    assert cursor.position is None


def test_nothing_is_not_sent(cursor: Cursor) -> None:
    steps = steps_of(cursor)
    empty: list[SequenceLike] = ["", [], np.empty((0, 3))]
    for nothing in empty:
        with pytest.raises(ValueError, match="at least one token or vector"):
            steps.put(nothing)
    with pytest.raises(ValueError, match="2-D floats"):
        steps.put(np.ones(3))
    assert steps.num_unanswered == 0
