"""Text as it may be shown: whole characters, and nothing that a stop text may yet claim."""

from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssp_runtime.engine.text import TextStream
from ssp_runtime.tokenizers import ByteTokenizer


def stream(*stops: str, min_tokens: int = 0) -> TextStream:
    return TextStream(ByteTokenizer().detokenizer(), stops, min_tokens)


def pushed(made: TextStream, text: str | bytes) -> list[str]:
    """What each byte makes certain, up to a stop."""
    shown = []
    for byte in text.encode() if isinstance(text, str) else text:
        shown.append(made.push([byte]))
        if made.stopped:
            break
    return shown


def test_without_stops_text_comes_at_once() -> None:
    assert pushed(stream(), "abc") == ["a", "b", "c"]


def test_a_stop_text_may_be_split_across_tokens() -> None:
    made = stream("END")
    assert pushed(made, "xEND...") == ["x", "", "", ""] and made.stopped


def test_a_beginning_that_comes_to_nothing_is_shown_after_all() -> None:
    made = stream("END")
    assert pushed(made, "ENx") == ["", "", "ENx"] and not made.stopped


def test_the_beginning_of_a_stop_may_lie_within_a_failed_one() -> None:
    made = stream("aab")
    assert "".join(pushed(made, "aaaab!")) == "aa" and made.stopped


def test_of_several_stops_the_earliest_cuts() -> None:
    made = stream("cd", "bcd")
    assert "".join(pushed(made, "abcd")) == "a" and made.stopped


@pytest.mark.parametrize("size", [1, 2, 3, 5, 100])
def test_without_stops_tokens_may_come_in_any_portions(size: int) -> None:
    made, data = stream(), "aé€b\N{SNAKE}cd".encode() + b"\xff\xe2x" + "y€z".encode()
    shown = "".join(made.push(data[i : i + size]) for i in range(0, len(data), size))
    assert shown == data.decode(errors="replace") and made.num_shown == len(shown)


def test_half_a_character_waits() -> None:
    assert pushed(stream(), "é€") == ["", "é", "", "", "€"]


def test_half_a_character_at_the_end_is_made_printable() -> None:
    made = stream()
    assert pushed(made, "é".encode()[:1]) == [""]
    assert made.flush(final=True) == "\N{REPLACEMENT CHARACTER}"


def test_half_a_character_stays_for_the_next_call_on_the_same_detokenizer() -> None:
    detokenizer = ByteTokenizer().detokenizer()
    first, second = (TextStream(detokenizer, ()) for _ in range(2))
    assert first.push("é".encode()[:1]) + first.flush(final=False) == ""
    assert second.push("é".encode()[1:]) == "é"


def test_a_stop_text_of_wide_characters() -> None:
    made = stream("€")
    assert "".join(pushed(made, "a€b")) == "a" and made.stopped


def test_bytes_that_are_no_text_are_replaced() -> None:
    assert "".join(pushed(stream(), b"a\xff\xfeb")) == "a\ufffd\ufffdb"


def test_no_stop_counts_before_min_tokens() -> None:
    made = stream("b", min_tokens=4)
    assert pushed(made, "abab") == ["a", "b", "a", ""] and made.stopped


def test_held_text_is_shown_at_the_end() -> None:
    made = stream("END")
    assert pushed(made, "aEN") == ["a", "", ""]
    assert made.flush(final=True) == "EN" and made.flush(final=True) == ""


@given(st.text("ab", max_size=30), st.lists(st.text("ab", min_size=1, max_size=4), max_size=3))
def test_what_is_shown_is_the_text_before_the_first_stop(text: str, stops: list[str]) -> None:
    made = stream(*stops)
    shown = "".join(pushed(made, text)) + ("" if made.stopped else made.flush(final=True))
    prefix, stopped = _up_to_a_stop(text, stops)
    assert (shown, made.stopped) == (prefix, stopped)


@given(st.text("ab", max_size=20), st.lists(st.text("ab", min_size=1, max_size=4), max_size=3))
def test_no_more_is_held_than_a_stop_may_claim(text: str, stops: list[str]) -> None:
    made = stream(*stops)
    pushed(made, text)
    held = made.flush(final=False)
    assert made.stopped or not held or any(stop.startswith(held) for stop in stops)


def _up_to_a_stop(text: str, stops: Iterable[str]) -> tuple[str, bool]:
    for end in range(len(text) + 1):
        found = [text[:end].find(stop) for stop in stops if stop in text[:end]]
        if found:
            return text[: min(found)], True
    return text, False
