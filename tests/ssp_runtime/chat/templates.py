"""Chat templates as published ones are, and vocabularies to go with them."""

from functools import cache

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers

START, END, BOS = "<|start|>", "<|end|>", "<bos>"
TOKENS = {"bos_token": BOS, "eos_token": END}

TURNS = """\
{%- for message in messages %}
    {{- '<|start|>' + message.role + '\\n' + message['content'] + '<|end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start|>assistant\\n' }}
{%- endif %}
"""

ALTERNATING = """\
{{ bos_token }}
{% if messages[0].role == 'system' %}
    {% set first = messages[0]['content'] | trim + '\\n\\n' %}
    {% set rest = messages[1:] %}
{% else %}
    {% set first, rest = '', messages %}
{% endif %}
{% for message in rest %}
    {% if (message.role == 'user') != (loop.index0 % 2 == 0) %}
        {{ raise_exception('a user and an assistant must take turns, and a user begins') }}
    {% endif %}
    {% if message.role == 'user' %}
        {{- '[ASK] ' + (first if loop.first else '') + message.content.strip() + ' [ANSWER]' -}}
    {% else %}
        {{- ' ' ~ message.content | trim ~ ' ' ~ eos_token -}}
    {% endif %}
{% endfor %}
"""

RECORDS = """\
{%- macro record(message, number) %}
{"n": {{ number }}, "said": {{ message | tojson }}}
{% endmacro %}
{%- set seen = namespace(users=0, last='nobody') %}
{%- for message in messages %}
    {%- if message.role == 'tool' %}{% continue %}{% endif %}
    {%- set seen.users = seen.users + (1 if message.role == 'user' else 0) %}
    {%- set seen.last = message.role %}
    {{- record(message, loop.index) }}
{%- endfor %}
{{ {'users': seen.users, 'last': seen.last, 'nothing': none} | tojson(indent=2) }}
{% if tools %}{{ tools | length }} tools{% endif %}
{% if undefined_here is not defined and not undefined_here %}...{% endif -%}
{%- if add_generation_prompt %}
<answer>
{%- endif %}
"""

MARKED = """\
{%- for message in messages if message.content %}
{%- if message.role == 'assistant' %}
{% generation %}{{ message.content.split('</think>')[-1].lstrip('\\n') }}{% endgeneration %}<|end|>
{% elif message.role in ['user', 'tool'] %}
### {{ message.role | capitalize }} {{ '%02d' % loop.index }}:{{ '\\n' }}{{ message.content | replace('\\t', ' ') }}
{% endif %}
{%- endfor %}
{{- '### Assistant:' if add_generation_prompt }}"""

HONEST = {"turns": TURNS, "alternating": ALTERNATING, "records": RECORDS, "marked": MARKED}


@cache
def vocabulary(*, lowers: bool = False) -> bytes:
    """Bytes, and the special tokens of these templates. One that `lowers` finds special tokens in either case."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    made = Tokenizer(models.BPE({letter: number for number, letter in enumerate(letters)}, []))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    if lowers:
        made.normalizer = normalizers.Lowercase()
    made.add_special_tokens([AddedToken(text, normalized=lowers) for text in (BOS, START, END)])
    made.add_tokens([AddedToken("[ASK]", normalized=False)])
    return made.to_str().encode()
