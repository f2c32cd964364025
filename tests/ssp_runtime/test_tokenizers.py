"""Text to ids and back, half characters and foreign letters included."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssp_runtime import tokenizers
from ssp_runtime.errors import ArtifactError, InvalidRequest
from ssp_runtime.tokenizers import ByteTokenizer, DNATokenizer, HyenaDNATokenizer, TokenIds


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


def test_the_published_dna_vocabulary_has_its_letters_after_the_special_tokens() -> None:
    tokenizer = HyenaDNATokenizer()
    assert tokenizer.encode("ACGTNacgtn") == [7, 8, 9, 10, 11] * 2
    assert tokenizer.encode("RZé") == [6] * 3, "what is no letter is [UNK]"
    assert (tokenizer.vocab_size, tokenizer.bos_id, tokenizer.eos_ids) == (12, None, (1,))
    assert tokenizer.detokenizer().push([10, 7, 0, 1, 6, 12, 15, 7]) == "TAA"


def test_the_mask_of_the_published_dna_vocabulary_may_stand_in_a_text() -> None:
    tokenizer = HyenaDNATokenizer()
    assert tokenizer.mask_id == 3
    assert tokenizer.encode("[MASK]A[MASK][MASK]") == [3, 7, 3, 3] and tokenizer.encode("[mask]") == [6, 6, 7, 6, 6, 6]
    assert tokenizer.decode([7, 3, 8]) == "AC"
    assert ByteTokenizer().mask_id is DNATokenizer().mask_id is TokenIds(4).mask_id is None


def test_ids_without_a_vocabulary_are_no_text() -> None:
    tokenizer = TokenIds(40, eos_ids=(3,))
    assert tokenizers.from_json(tokenizer.to_json()) == tokenizer != TokenIds(41, eos_ids=(3,))
    assert tokenizer.detokenizer().push([1, 2]) == ""
    with pytest.raises(InvalidRequest, match="token ids only; give it one with ssp-model convert --tokenizer"):
        tokenizer.encode("a")


@pytest.mark.parametrize(("ids", "written"), [((), None), ((3,), 3), ((3, 5), [3, 5])])
def test_one_end_of_a_text_is_written_as_it_was_before_there_could_be_several(
    ids: tuple[int, ...], written: int | list[int] | None
) -> None:
    tokenizer = TokenIds(40, ids)
    assert tokenizer.to_json() == {"kind": "ids", "vocab_size": 40, "eos_id": written}
    assert tokenizers.from_json(tokenizer.to_json()).eos_ids == ids
