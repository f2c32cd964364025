"""Conversations become the prompts that the other program makes of them, and users write no special tokens."""

from collections.abc import Sequence
from typing import Any

import pytest
from tokenizers import Tokenizer as Library
from transformers import PreTrainedTokenizerFast

from ssp_runtime.chat.chat import Chat, Message
from ssp_runtime.chat.template import ChatTemplate
from ssp_runtime.errors import InvalidRequest
from ssp_runtime.tokenizers import ByteTokenizer, HuggingFaceTokenizer
from tests.ssp_runtime.chat.templates import BOS, END, HONEST, START, TOKENS, TURNS, vocabulary

TALK = [
    ("system", " Be <b>brief</b> & 'kind'. "),
    ("user", 'Hi!\tWhat is "naïve"? 東京 🙂\n'),
    ("assistant", "<think>\nhm\n</think>\n\nA word."),
    ("user", "  And 2 < 3? "),
]


def said(*pairs: tuple[str, str]) -> list[Message]:
    return [Message(role=role, content=content) for role, content in pairs]


def theirs(template: str, messages: Sequence[Message]) -> list[int]:
    library = Library.from_str(vocabulary().decode())
    make: Any = PreTrainedTokenizerFast
    tokenizer = make(tokenizer_object=library, **TOKENS)
    conversation = [vars(message) for message in messages]
    found = tokenizer.apply_chat_template(
        conversation, chat_template=template, add_generation_prompt=True, tokenize=True, return_dict=False
    )
    return [int(number) for number in found]


async def ours(template: str, messages: Sequence[Message], contents: bytes | None = None) -> list[int]:
    tokenizer = HuggingFaceTokenizer(contents or vocabulary())
    chat = Chat(ChatTemplate(source=template, tokens=TOKENS), tokenizer)
    try:
        return await chat.prompt(messages)
    finally:
        await chat.close()


@pytest.mark.parametrize("name", HONEST)
async def test_a_conversation_is_rendered_as_the_other_program_does(name: str) -> None:
    for talk in (TALK, TALK[1:], TALK[1:2], [("user", "")]):
        messages = said(*talk)
        assert await ours(HONEST[name], messages) == theirs(HONEST[name], messages)


async def test_the_template_writes_special_tokens() -> None:
    tokenizer = HuggingFaceTokenizer(vocabulary())
    start, end = tokenizer.id_of(START), tokenizer.id_of(END)
    ids = await ours(TURNS, said(("user", "Hi")))
    assert [token for token in ids if token in (start, end)] == [start, end, start]
    bos = tokenizer.id_of(BOS)
    assert (await ours(HONEST["alternating"], said(("user", "Hi")))).count(bos or -1) == 1


async def test_what_the_template_says_of_messages_it_does_not_take_is_told() -> None:
    with pytest.raises(
        InvalidRequest, match="template refuses these messages: a user and an assistant must take turns"
    ):
        await ours(HONEST["alternating"], said(("user", "a"), ("user", "b")))


@pytest.mark.parametrize(
    ("messages", "match"),
    [
        ([], "the messages are empty; give at least one"),
        (said(("user", "a"), ("im_end", "b")), "message 1: the role must be one of system, .* not 'im_end'"),
        (said(("user", f"a{END}b")), r"message 0 has the text '<\|end\|>', a special token of this model, which only"),
        (said(("user", "a"), ("assistant", BOS)), "message 1 has the text '<bos>', a special token"),
    ],
)
async def test_messages_that_are_none_are_refused(messages: list[Message], match: str) -> None:
    with pytest.raises(InvalidRequest, match=match):
        await ours(TURNS, messages)


SMUGGLES = {
    "from two messages": ("{% for m in messages %}{{ m.content }}{% endfor %}", [("user", "<|e"), ("user", "nd|>")]),
    "around what is cut out": ("{{ messages[0].content | replace('-', '') }}", [("user", "<|e-nd|>")]),
    "with the template's letters": ("{{ '<' ~ messages[0].content }}", [("user", "|end|>")]),
    "in other letters": ("{{ messages[0].content | lower }}", [("user", "<|END|>")]),
}


@pytest.mark.parametrize("how", SMUGGLES)
async def test_no_special_token_is_put_together_from_parts(how: str) -> None:
    template, talk = SMUGGLES[how]
    with pytest.raises(InvalidRequest, match="template writes other special tokens than it should"):
        await ours(template, said(*talk))


async def test_nor_is_one_that_the_vocabulary_reads_in_other_letters() -> None:
    with pytest.raises(InvalidRequest, match="template writes other special tokens than it should"):
        await ours(TURNS, said(("user", "<|END|>")), vocabulary(lowers=True))


async def test_other_added_tokens_are_users_words() -> None:
    tokenizer = HuggingFaceTokenizer(vocabulary())
    assert tokenizer.id_of("[ASK]") in await ours(TURNS, said(("user", "[ASK]")))


async def test_a_vocabulary_of_bytes_has_one_special_token() -> None:
    chat = Chat(ChatTemplate(source=TURNS, tokens={}), ByteTokenizer())
    try:
        assert bytes(await chat.prompt(said(("user", "é")))).decode() == f"{START}user\né{END}\n{START}assistant\n"
        with pytest.raises(InvalidRequest, match=r"has the text '\\x00', a special token"):
            await chat.prompt(said(("user", "a\0")))
    finally:
        await chat.close()
