"""Conversations with the models that have a chat template, where the operator allows them."""

from dataclasses import dataclass, field

from ssp.v1 import generation_pb2
from ssp_runtime.chat.chat import Chat, Message
from ssp_runtime.engine.generator import Generator
from ssp_runtime.errors import ChatUnavailable


@dataclass(frozen=True, kw_only=True)
class Chats:
    """A process renders for each model, from its first conversation on. Of the event loop."""

    allowed: bool
    _by_model: dict[str, Chat] = field(default_factory=dict, init=False)

    async def prompt(self, conversation: generation_pb2.Chat, generator: Generator) -> list[int]:
        """Raises `ChatUnavailable`, and as `Chat.prompt`."""
        messages = [Message(role=message.role, content=message.content) for message in conversation.messages]
        return await self._of(generator).prompt(messages)

    async def forget(self, model: str) -> None:
        """It is being unloaded."""
        chat = self._by_model.pop(model, None)
        if chat is not None:
            await chat.close()

    async def close(self) -> None:
        for model in list(self._by_model):
            await self.forget(model)

    def _of(self, generator: Generator) -> Chat:
        if not self.allowed:
            raise ChatUnavailable(
                "this server applies no chat templates; send a prompt, or start it with --chat-templates"
            )
        template = generator.artifact.description.chat_template
        if template is None:
            raise ChatUnavailable(f"model {generator.name!r} came without a chat template; send a prompt")
        if generator.name not in self._by_model:
            self._by_model[generator.name] = Chat(template, generator.tokenizer)
        return self._by_model[generator.name]
