"""Whatever a template does, it ends, in time and within its memory, and the next is rendered."""

import asyncio
import os
from dataclasses import replace

import pytest

from ssp_runtime.chat import renderer as module
from ssp_runtime.chat.renderer import RenderBounds, Renderer
from ssp_runtime.chat.template import ChatTemplate
from ssp_runtime.errors import ArtifactError, ChatTemplateFailed, Draining, Exhausted

HELLO = [[{"role": "user", "content": "hello"}]]
BOUNDS = RenderBounds(seconds=20, memory_bytes=256 << 20, max_characters=100_000)
SHORT = replace(BOUNDS, seconds=1)


async def rendered(source: str, bounds: RenderBounds = BOUNDS) -> str:
    made = Renderer(ChatTemplate(source=source, tokens={}), bounds)
    try:
        (text,) = await made.render(HELLO)
        return text
    finally:
        await made.close()


UNSAFE = [
    "{{ ''.__class__.__mro__ }}",
    "{{ messages.__class__.__base__.__subclasses__() }}",
    "{{ ''|attr('__class__') }}{{ 1 / 0 }}",
    "{{ strftime_now.__globals__['sys'] }}",
    "{{ cycler.__init__.__globals__.os.system('true') }}",
    "{{ self._TemplateReference__context.vars }}",
    "{{ '{0.__class__.__mro__}'.format(messages) }}",
    "{{ ('{0.__class__.__mro__}' | attr('format'))(messages) }}",
    "{{ messages.append(1) }}",
    "{{ messages[0].update(role='system') }}",
    "{{ __import__('os') }}",
    "{{ open('/etc/passwd') }}",
    "{% import 'os' as os %}",
    "{% include '/etc/passwd' %}",
    "{% extends 'base' %}",
    "{{ lipsum() }}",
]


@pytest.mark.parametrize("source", UNSAFE)
async def test_the_sandbox_has_no_way_out(source: str) -> None:
    with pytest.raises(ChatTemplateFailed, match="the model's chat template fails"):
        await rendered(source)


@pytest.mark.parametrize("source", ["{{ raise_exception.__globals__ }}", "{{ '{0.__class__}'.format(messages) }}"])
async def test_what_it_hides_is_nothing(source: str) -> None:
    assert await rendered(source) == ""


TOO_LONG = [
    "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "{{ ([1] * 1000000) | map('string') | list | length }}" * 500,
    "{{ 9 ** (9 ** 9) }}",
]
TOO_LARGE = [
    "{{ 'x' * 10**9 }}",
    "{% set x = 'x' * 10**9 %}",
    "{{ 'x' | center(10**9) }}",
    "{{ '%1000000000d' % 1 }}",
    "{{ '{:>1000000000}'.format(1) }}",
    "{{ 'x'.ljust(1000000000) }}",
    "{{ messages | tojson(indent=10**9) }}",
    "{% set ns = namespace(x='x' * 1000) %}{% for a in range(99) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}",
]
TOO_MUCH_TEXT = ["{% for a in range(99999) %}abc{% endfor %}", "{{ 'x' * 200000 }}"]
BROKEN = [
    "{{ range(10**9) }}",
    "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "{% for a in messages recursive %}{{ loop(messages) }}{% endfor %}",
    "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}",
    "{{ " + "-" * 50_000 + "1 }}",
    "{% if %}",
    "{{ missing.role }}",
    "{{ '\\ud800' }}",
]


@pytest.mark.parametrize("source", TOO_LONG)
async def test_a_template_without_end_is_ended(source: str) -> None:
    with pytest.raises(ChatTemplateFailed, match="it takes longer than 1 s"):
        await rendered(source, SHORT)


@pytest.mark.parametrize("source", TOO_LARGE)
async def test_one_that_takes_too_much_memory_is_ended(source: str) -> None:
    with pytest.raises(ChatTemplateFailed, match="it takes more than 256 MiB of memory"):
        await rendered(source)


@pytest.mark.parametrize("source", TOO_MUCH_TEXT)
async def test_one_that_writes_too_much_is_ended(source: str) -> None:
    with pytest.raises(ChatTemplateFailed, match="it writes more than 100000 characters"):
        await rendered(source)


@pytest.mark.parametrize("source", BROKEN)
async def test_one_that_fails_says_why(source: str) -> None:
    with pytest.raises(ChatTemplateFailed, match=r"the model's chat template fails: [^i]"):
        await rendered(source)


async def test_the_next_conversation_is_rendered_by_a_new_process() -> None:
    source = "{% if messages[0].content == 'hang' %}{{ 'x' * 10**9 }}{% endif %}{{ messages[0].content }}"
    made = Renderer(ChatTemplate(source=source, tokens={}), BOUNDS)
    hanging = [[{"role": "user", "content": "hang"}]]
    first, other = await asyncio.gather(made.render(hanging), made.render(HELLO), return_exceptions=True)
    assert isinstance(first, ChatTemplateFailed) and other == ["hello"]
    await made.close()


async def test_the_event_loop_goes_on_meanwhile() -> None:
    rendering = asyncio.ensure_future(rendered(TOO_LONG[0], SHORT))
    ticks = 0
    while not rendering.done():
        await asyncio.sleep(0.05)
        ticks += 1
    assert isinstance(rendering.exception(), ChatTemplateFailed) and ticks > 5


async def test_who_is_cancelled_disturbs_nobody() -> None:
    made = Renderer(ChatTemplate(source="{{ messages[0].content }}", tokens={}), BOUNDS)
    assert await made.render(HELLO) == ["hello"]
    waiting = asyncio.ensure_future(made.render([[{"role": "user", "content": "somebody else's"}]]))
    await asyncio.sleep(0)
    waiting.cancel()
    assert await made.render(HELLO) == ["hello"]
    await made.close()


async def test_only_so_many_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_WAITING", 1)
    made = Renderer(ChatTemplate(source="{{ messages[0].content }}", tokens={}), BOUNDS)
    answers = await asyncio.gather(*(made.render(HELLO) for _ in range(4)), return_exceptions=True)
    assert [type(answer) for answer in answers] == [list, list, Exhausted, Exhausted]
    await made.close()


async def test_who_waits_while_it_is_closed_is_refused() -> None:
    made = Renderer(ChatTemplate(source="{{ messages[0].content }}", tokens={}), BOUNDS)
    waiting = [asyncio.ensure_future(made.render(HELLO)) for _ in range(3)]
    await asyncio.sleep(0)
    await made.close()
    answers = await asyncio.gather(*waiting, return_exceptions=True)
    assert isinstance(answers[-1], Draining) and made._process is None


async def test_no_process_is_left() -> None:
    made = Renderer(ChatTemplate(source="{{ messages[0].content }}", tokens={}), BOUNDS)
    await made.render(HELLO)
    process = made._process
    assert process is not None
    await made.close()
    with pytest.raises(ProcessLookupError):
        os.kill(process.pid, 0)


def test_a_template_too_long_to_be_honest_is_refused() -> None:
    with pytest.raises(ArtifactError, match="the chat template has 262145 bytes; 262144 are the most"):
        ChatTemplate(source="x" * 262_145, tokens={})
