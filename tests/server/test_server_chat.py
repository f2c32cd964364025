"""Messages in place of a prompt, over a real server and by both clients."""

import json
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from tokenizers import Tokenizer

from ssp_client import AsyncClient, ChatMessage, Client, FailedPrecondition, InvalidArgument, SamplingParams
from ssp_client.cli import main
from ssp_runtime.commands.convert import convert
from tests.server.server_process import PATIENCE, ServerProcess, eventually
from tests.ssp_runtime.chat.templates import ALTERNATING, BOS, END, TOKENS, TURNS, vocabulary
from tests.ssp_runtime.formats.mamba_folder import write_mamba

GREEDY = SamplingParams(temperature=0.0, ignore_eos=True, max_tokens=12)
TALK: list[ChatMessage] = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Who are you?"},
    {"role": "assistant", "content": "A model."},
    {"role": "user", "content": "naïve 東京 🙂?"},
]
TEMPLATES = {"turns": TURNS, "alternating": ALTERNATING, "broken": "{{ 1 / 0 }}", "hanging": "{{ 9 ** (9 ** 9) }}"}


def write(folder: Path, template: str | None) -> None:
    write_mamba(folder)
    (folder / "tokenizer.json").write_bytes(vocabulary())
    settings = {**TOKENS, "add_bos_token": True, **({} if template is None else {"chat_template": template})}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


@pytest.fixture(scope="module")
def chatting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    root = tmp_path_factory.mktemp("chats")
    for name, template in {**TEMPLATES, "plain": None}.items():
        write(root / name, template)
    convert(str(root / "turns"), root / "converted")
    folders = [root / name for name in (*TEMPLATES, "plain", "converted")]
    with ServerProcess("--chat-templates", "--model-root", root, "--slots", "4", "--models", *folders) as made:
        yield made


@pytest.fixture
def client(chatting: ServerProcess) -> Iterator[Client]:
    with Client(chatting.target, timeout=PATIENCE) as made:
        yield made


def ids(text: str) -> list[int]:
    return list(Tokenizer.from_str(vocabulary().decode()).encode(text, add_special_tokens=False).ids)


def turns(*messages: ChatMessage) -> str:
    said = "".join(f"<|start|>{message['role']}\n{message['content']}{END}\n" for message in messages)
    return f"{said}<|start|>assistant\n"


@pytest.mark.parametrize("model", ["turns", "converted"])
def test_messages_are_answered_as_their_prompt_is(model: str, client: Client) -> None:
    expected = client.complete(ids(BOS + turns(*TALK)), model=model, sampling_params=GREEDY)
    answer = client.complete(messages=TALK, model=model, sampling_params=GREEDY)
    assert answer.token_ids == expected.token_ids and len(set(answer.token_ids)) > 3
    assert client.generate_text(messages=TALK, model=model, sampling_params=GREEDY) == expected.text
    assert answer.usage is not None and answer.usage.prompt_tokens == len(ids(BOS + turns(*TALK)))


def test_a_beginning_that_the_template_writes_is_the_only_one(client: Client) -> None:
    text = f"{BOS}\n[ASK] Hi [ANSWER]"
    answer = client.complete(messages=[{"role": "user", "content": "Hi"}], model="alternating", sampling_params=GREEDY)
    assert answer.usage is not None and answer.usage.prompt_tokens == len(ids(text))
    assert answer.token_ids == client.complete(ids(text), model="alternating", sampling_params=GREEDY).token_ids


async def test_so_it_is_for_asyncio(chatting: ServerProcess, client: Client) -> None:
    expected = client.complete(messages=TALK, model="turns", sampling_params=GREEDY)
    async with AsyncClient(chatting.target, timeout=PATIENCE) as other:
        assert (await other.complete(messages=TALK, model="turns", sampling_params=GREEDY)).text == expected.text
        assert await other.generate_text(messages=TALK, model="turns", sampling_params=GREEDY) == expected.text
        async with await other.open_session("turns") as session:
            answer = await session.complete(messages=TALK, sampling_params=GREEDY)
            assert answer.token_ids == expected.token_ids and expected.text.startswith(answer.text)
            with pytest.raises(InvalidArgument, match="messages are a whole conversation"):
                await session.complete(messages=TALK)


def test_a_session_begins_with_a_conversation_and_goes_on_with_text(client: Client) -> None:
    with client.open_session("turns") as session, client.open_session("turns") as other:
        first = session.complete(messages=TALK, sampling_params=GREEDY)
        assert first.token_ids == other.complete(ids(turns(*TALK)), sampling_params=GREEDY).token_ids
        position = session.position
        with pytest.raises(InvalidArgument, match=f"whole conversation, and {position} tokens are held here already"):
            session.complete(messages=TALK)
        assert session.info().position == position
        more = f"{END}\n{turns({'role': 'user', 'content': 'And?'})}"
        following = session.complete(more, sampling_params=GREEDY)
        assert following.token_ids == other.complete(more, sampling_params=GREEDY).token_ids


def test_messages_sent_again_are_not_taken_in_again(client: Client) -> None:
    with client.open_session("turns") as session:
        first, second = (
            list(session.generate(messages=TALK, sampling_params=GREEDY, request_id="once", expected_position=0))
            for _ in range(2)
        )
        made = [[token for chunk in chunks for token in chunk.token_ids] for chunks in (first, second)]
        assert made[0] == made[1] and session.info().position == len(ids(BOS + turns(*TALK))) + 12


def test_a_state_goes_on_with_text_only(client: Client) -> None:
    answer = client.complete(messages=TALK, model="turns", sampling_params=GREEDY, return_state=True)
    assert answer.state
    assert client.complete(" and", state=answer.state, sampling_params=GREEDY).token_ids
    with pytest.raises(InvalidArgument, match="messages are a whole conversation"):
        client.complete(messages=TALK, state=answer.state)


@pytest.mark.parametrize(
    ("model", "messages", "match"),
    [
        ("turns", [], "the messages are empty; give at least one"),
        ("turns", [{"role": "nobody", "content": ""}], "message 0: the role must be one of"),
        ("turns", [{"role": "user", "content": f"a{END}"}], r"message 0 has the text '<\|end\|>', a special token"),
        ("alternating", TALK[2:], "template refuses these messages: a user and an assistant must take turns"),
    ],
)
def test_messages_that_cannot_be_taken_are_refused(
    model: str, messages: list[ChatMessage], match: str, client: Client
) -> None:
    with pytest.raises(InvalidArgument, match=match):
        client.complete(messages=messages, model=model)


def test_messages_and_a_prompt_are_refused(client: Client) -> None:
    with pytest.raises(InvalidArgument, match="give a prompt or messages, not both"):
        client.complete("a", messages=TALK, model="turns")


@pytest.mark.parametrize(
    ("model", "match"),
    [
        ("plain", "model 'plain' came without a chat template; send a prompt"),
        ("broken", "the model's chat template fails: ZeroDivisionError"),
    ],
)
def test_a_template_that_is_not_there_or_fails_is_no_reason_to_go_under(model: str, match: str, client: Client) -> None:
    with pytest.raises(FailedPrecondition, match=match):
        client.complete(messages=TALK, model=model)
    assert client.complete(ids("a"), model=model, sampling_params=GREEDY).token_ids


def test_others_are_answered_while_a_template_hangs(client: Client) -> None:
    with client.generate(messages=TALK, model="hanging") as hanging:
        assert client.complete(messages=TALK, model="turns", sampling_params=GREEDY).text
        with pytest.raises(FailedPrecondition, match="the model's chat template fails: it takes longer than 5 s"):
            next(hanging)


def test_where_the_operator_did_not_allow_them_there_are_none(server: ServerProcess) -> None:
    with (
        Client(server.target, timeout=PATIENCE) as made,
        pytest.raises(
            FailedPrecondition, match="this server applies no chat templates; send a prompt, or start it with"
        ),
    ):
        made.complete(messages=TALK, model="writer")


def test_the_command_line_asks_as_a_user(
    chatting: ServerProcess, client: Client, capsys: pytest.CaptureFixture[str]
) -> None:
    answer = client.complete(messages=[{"role": "user", "content": "Hi"}], model="turns", sampling_params=GREEDY)
    arguments = ("--temperature", "0", "--max-tokens", "12", "--ignore-eos", "--target", chatting.target)
    assert main(["generate", "--chat", "Hi", "--model", "turns", *arguments]) == 0
    assert capsys.readouterr().out == answer.text + "\n"


def test_unloading_a_model_ends_the_process_of_its_template(chatting: ServerProcess, client: Client) -> None:
    def workers() -> int:
        return len(psutil.Process(chatting.process.pid).children())  # type: ignore[attr-defined]  # a Popen

    before = workers()
    client.load_model("again", "turns")
    client.complete(messages=TALK, model="again", sampling_params=GREEDY)
    assert workers() == before + 1
    client.unload_model("again")
    eventually(lambda: workers() == before)
