"""Text to ids and back, half characters and foreign letters included."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssp_runtime import tokenizers
from ssp_runtime.errors import ArtifactError, InvalidRequest
from ssp_runtime.tokenizers import ByteTokenizer, DNATokenizer


@given(st.text())
def test_bytes_come_back_as_they_went(text: str) -> None:
    tokenizer = ByteTokenizer()
    detokenizer = tokenizer.detokenizer()
    pieces = [detokenizer.push([token]) for token in tokenizer.encode(text)]
    assert "".join(pieces) + detokenizer.finish() == text


def test_half_a_character_waits() -> None:
    detokenizer = ByteTokenizer().detokenizer()
    first, second, third = "€".encode()
    assert [detokenizer.push([first]), detokenizer.push([second]), detokenizer.push([third])] == ["", "", "€"]
    assert detokenizer.push([first]) == ""
    assert detokenizer.finish() == "\ufffd"


def test_dna_takes_either_case() -> None:
    tokenizer = DNATokenizer()
    assert tokenizer.encode("ACGTNacgtn") == [0, 1, 2, 3, 4] * 2
    assert tokenizer.detokenizer().push([3, 0, 3, 0]) == "TATA"


def test_a_foreign_letter_is_named_with_its_place() -> None:
    with pytest.raises(InvalidRequest, match="letter 'X' at position 2"):
        DNATokenizer().encode("ACXT")


def test_an_unknown_tokenizer_is_refused() -> None:
    with pytest.raises(ArtifactError, match="tokenizer"):
        tokenizers.from_json({"kind": "words"})
