"""Vocabularies from files: text as the library that wrote them makes it, but as it comes."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as Library

from ssp_runtime import tokenizers
from ssp_runtime.errors import ArtifactError, InvalidRequest
from ssp_runtime.formats.foreign import load_foreign
from ssp_runtime.tokenizers import ByteTokenizer, Detokenizer, HuggingFaceTokenizer, Tokenizer, WorldTokenizer
from tests.ssp_runtime.formats.mamba_folder import write_mamba
from tests.ssp_runtime.vocabularies import EOS, byte_level, sentencepiece, world

FILES = {
    "byte level": byte_level(),
    "sentencepiece": sentencepiece(),
    "metaspace": sentencepiece(metaspace=True),
}
BYTES = [bytes((n,)) for n in range(128, 256) if n != 0xE2]
WORLD = world("a", "b", "ab", " ", "abb", b"\xe2", b"\x82\xac", b"\xf0\x9f", "é", "'", "\n", *BYTES)
TOKENIZERS: dict[str, Tokenizer] = {
    **{name: HuggingFaceTokenizer(contents) for name, contents in FILES.items()},
    "world": WorldTokenizer(WORLD),
    "bytes": ByteTokenizer(),
    "bytes without a beginning": ByteTokenizer(bos_id=None),
}
WORD_PIECE = {"type": "WordPiece", "prefix": "##", "cleanup": True}
texts = st.text() | st.text(alphabet="the qu▁  é€🙂", max_size=12)


def streamed(detokenizer: Detokenizer, ids: list[int]) -> list[str]:
    return [detokenizer.push([token]) for token in ids]


@pytest.mark.parametrize("name", FILES)
@settings(deadline=None)
@given(text=texts)
def test_streamed_text_is_what_the_library_makes_of_all_at_once(name: str, text: str) -> None:
    library, tokenizer = Library.from_str(FILES[name].decode()), TOKENIZERS[name]
    ids, detokenizer = tokenizer.encode(text), tokenizer.detokenizer()
    pieces = streamed(detokenizer, ids)
    assert "".join(pieces) + detokenizer.finish() == library.decode(ids)
    assert not any("\ufffd" in piece for piece in pieces) or "\ufffd" in text, "half a character"


@settings(deadline=None)
@given(ids=st.lists(st.integers(0, 305), max_size=12))
def test_so_it_is_for_any_tokens_over_bytes(ids: list[int]) -> None:
    detokenizer = TOKENIZERS["byte level"].detokenizer()
    expected = Library.from_str(FILES["byte level"].decode()).decode(ids)
    assert "".join(streamed(detokenizer, ids)) + detokenizer.finish() == expected


@pytest.mark.parametrize("name", TOKENIZERS)
@settings(deadline=None)
@given(data=st.data())
def test_a_detokenizer_goes_on_from_what_waits(name: str, data: st.DataObject) -> None:
    tokenizer = TOKENIZERS[name]
    ids = data.draw(st.lists(st.integers(0, tokenizer.vocab_size + 3), max_size=10))
    cut = data.draw(st.integers(0, len(ids)))
    first, second = tokenizer.detokenizer(), tokenizer.detokenizer()
    first.push(ids[:cut])
    second.follow(ids[:cut])
    second.push(first.waiting)
    assert second.waiting == first.waiting and len(first.waiting) <= 3
    assert streamed(second, ids[cut:]) == streamed(first, ids[cut:])
    assert second.finish() == first.finish()


@pytest.mark.parametrize("name", ["sentencepiece", "metaspace"])
def test_only_what_begins_a_text_loses_its_space(name: str) -> None:
    tokenizer = TOKENIZERS[name]
    assert isinstance(tokenizer, HuggingFaceTokenizer)
    the, bos = tokenizer.id_of("▁the"), tokenizer.id_of("<s>")
    assert the is not None and bos is not None
    assert streamed(tokenizer.detokenizer(), [bos, the, the]) == ["", "the", " the"]
    within = tokenizer.detokenizer()
    within.follow([bos, the])
    assert within.push([the]) == " the"
    after_bos = tokenizer.detokenizer()
    after_bos.follow([bos])
    assert after_bos.push([the]) == "the"


def test_what_a_file_puts_around_a_text_and_where_it_cuts_one_do_not_count() -> None:
    tokenizer = HuggingFaceTokenizer(sentencepiece())
    assert tokenizer.prefix == [1] and tokenizer.encode("the") == [tokenizer.id_of("▁the")]
    assert len(TOKENIZERS["byte level"].encode("a text of more than three tokens")) > 3
    assert HuggingFaceTokenizer(byte_level()).prefix == []


@pytest.mark.parametrize(
    ("contents", "message"),
    [
        (b"{", "cannot be read"),
        (b"[]", "cannot be read"),
        (b"\xff\xfe", "cannot be read"),
        (json.dumps({**json.loads(byte_level()), "decoder": WORD_PIECE}).encode(), "cannot be streamed"),
    ],
)
def test_a_file_that_is_no_vocabulary_is_refused(contents: bytes, message: str) -> None:
    with pytest.raises(ArtifactError, match=message):
        HuggingFaceTokenizer(contents)


def test_a_mask_has_its_usual_name_or_is_told(tmp_path: Path) -> None:
    """A word of the text is no mask."""
    plain, special = json.loads(byte_level()), json.loads(byte_level())
    for file, is_special in ((plain, False), (special, True)):
        token = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": is_special}
        file["added_tokens"].append({"id": 301, "content": "<mask>", **token})
    assert HuggingFaceTokenizer(json.dumps(plain).encode()).mask_id is None
    usual = HuggingFaceTokenizer(json.dumps(special).encode())
    assert usual.mask_id == 301 and usual.encode("the<mask>")[-1] == 301 and "mask_id" not in usual.to_json()
    told = HuggingFaceTokenizer(byte_level(), mask_id=7)
    (tmp_path / "tokenizer.json").write_bytes(byte_level())
    assert told.mask_id == 7 and tokenizers.from_json(told.to_json(), tmp_path) == told
    with pytest.raises(ArtifactError, match="the mask is 9999, which"):
        HuggingFaceTokenizer(byte_level(), mask_id=9999)


def test_a_checkpoint_tells_its_mask(tmp_path: Path) -> None:
    write_mamba(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"mask_token": {"content": EOS}}))
    tokenizer = load_foreign(tmp_path).description.tokenizer
    assert tokenizer is not None and tokenizer.mask_id == tokenizer.eos_ids[0] == 0


def test_a_beginning_that_no_token_is_refused() -> None:
    with pytest.raises(ArtifactError, match="the beginning or end of a text is 9999"):
        HuggingFaceTokenizer(byte_level(), bos_id=9999)


@settings(deadline=None)
@given(text=st.text(alphabet="ab é€\n'"))
def test_world_tokens_come_back_as_they_went(text: str) -> None:
    tokenizer = WorldTokenizer(WORLD)
    detokenizer = tokenizer.detokenizer()
    assert "".join(streamed(detokenizer, tokenizer.encode(text))) + detokenizer.finish() == text


def test_the_longest_world_token_is_taken() -> None:
    tokenizer = WorldTokenizer(WORLD)
    assert tokenizer.encode("ababbb'") == [3, 5, 2, 10]
    assert tokenizer.encode("€") == [6, 7]
    assert streamed(tokenizer.detokenizer(), [6, 7, 0, 1]) == ["", "€", "", "a"]
    with pytest.raises(InvalidRequest, match="no token for the byte 0x7a, number 2"):
        tokenizer.encode("abz")


@pytest.mark.parametrize(
    "line", ["1 'a' 2", "0 'a' 1", "x 'a' 1", "1 a 1", "1 ['a'] 1", "1 __import__('os') 1", "1", "1 '' 0", "1 'é' 1"]
)
def test_a_line_that_is_no_token_is_refused(line: str) -> None:
    with pytest.raises(ArtifactError, match="is damaged, or is no RWKV vocabulary"):
        WorldTokenizer(line.encode())


@pytest.mark.parametrize("name", TOKENIZERS)
def test_a_stored_vocabulary_is_the_same_and_a_changed_one_refused(name: str, tmp_path: Path) -> None:
    tokenizer = TOKENIZERS[name]
    for file, contents in tokenizer.files.items():
        (tmp_path / file).write_bytes(contents)
    described = json.loads(json.dumps(tokenizer.to_json()))
    again = tokenizers.from_json(described, tmp_path)
    assert again == tokenizer and again.files == tokenizer.files
    for file, contents in tokenizer.files.items():
        (tmp_path / file).write_bytes(contents + b"\n")
        with pytest.raises(ArtifactError, match="was changed after it was written"):
            tokenizers.from_json(described, tmp_path)
        (tmp_path / file).unlink()
        with pytest.raises(ArtifactError, match="cannot be read"):
            tokenizers.from_json(described, tmp_path)
