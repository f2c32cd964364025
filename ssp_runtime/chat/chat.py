"""Conversations with one model, as prompts."""

import asyncio
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ssp_runtime.chat.renderer import RenderBounds, Renderer
from ssp_runtime.chat.template import ChatTemplate
from ssp_runtime.errors import InvalidRequest
from ssp_runtime.tokenizers import Tokenizer

ROLES = ("system", "developer", "user", "assistant", "tool")


@dataclass(frozen=True, kw_only=True)
class Message:
    role: str
    content: str


class Chat:
    """Special tokens are the template's alone. A message that has the text of one is refused; and so are messages of
    which the template makes other special tokens than of blank ones, should it put them together from parts."""

    def __init__(self, template: ChatTemplate, tokenizer: Tokenizer, bounds: RenderBounds | None = None) -> None:
        self._tokenizer = tokenizer
        self._renderer = Renderer(template, bounds)

    async def prompt(self, messages: Sequence[Message]) -> list[int]:
        """The tokens of the conversation, and of the beginning of the model's answer. Raises as `Renderer.render`, and
        `InvalidRequest` for messages that are none."""
        await asyncio.to_thread(_check, messages, self._tokenizer.special_tokens)
        conversations = [[vars(message) for message in messages]]
        if self._tokenizer.special_tokens:
            conversations.append([{"role": message.role, "content": _blank(message.content)} for message in messages])
        texts = await self._renderer.render(conversations)
        return await asyncio.to_thread(self._tokens, texts)

    async def close(self) -> None:
        await self._renderer.close()

    def _tokens(self, texts: Sequence[str]) -> list[int]:
        special = set(self._tokenizer.special_tokens.values())
        rows = [self._tokenizer.encode(text) for text in texts]
        first, *others = [[token for token in row if token in special] for row in rows]
        if any(other != first for other in others):
            raise InvalidRequest(
                "with these messages the model's chat template writes other special tokens than it should; change them,"
                " or send a prompt"
            )
        return rows[0]


def _check(messages: Sequence[Message], special_tokens: Mapping[str, int]) -> None:
    """Raises `InvalidRequest`."""
    if not messages:
        raise InvalidRequest("the messages are empty; give at least one")
    for number, message in enumerate(messages):
        if message.role not in ROLES:
            raise InvalidRequest(f"message {number}: the role must be one of {', '.join(ROLES)}, not {message.role!r}")
        found = next((text for text in special_tokens if text in message.content), None)
        if found is not None:
            raise InvalidRequest(
                f"message {number} has the text {found!r}, a special token of this model, which only its chat template"
                " may write; take it out"
            )


def _blank(content: str) -> str:
    """As long and with the same spaces, in a letter that no token is of."""
    return re.sub(r"\S", "\ue000", content)
