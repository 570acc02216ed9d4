"""templates OUT: chat templates rendered by Jinja2 in the environment that Hugging Face gives them.

Writes OUT/templates.json. The templates are our own; between them they use what models' templates
use: trimming, namespaces, slices, Python's string and dict methods, tojson, loop controls, macros,
raise_exception, values that Python prints in its own way.
"""

import json
import sys
from pathlib import Path

from jinja2 import TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

TEMPLATES = {
    "turns": """{{ bos_token }}{% for message in messages %}
    {% if message.role == 'user' %}
[U] {{ message.content | trim }}
    {%- elif message['role'] == 'assistant' %}
[A] {{ message.content }}{{ eos_token }}
    {% else %}
[{{ message.role | upper }}] {{ message.content }}
    {% endif %}
{% endfor %}
{% if add_generation_prompt %}[A]{% endif %}
""",
    "alternating": """{%- if messages[0].role == 'system' -%}
{%- set system = messages[0].content.strip() + '\\n\\n' -%}{%- set rest = messages[1:] -%}
{%- else -%}{%- set system = '' -%}{%- set rest = messages -%}{%- endif -%}
{%- for message in rest -%}
{%- if (message.role == 'user') != (loop.index0 % 2 == 0) -%}
{{ raise_exception("Conversation roles must alternate user/assistant/...") }}
{%- endif -%}
<{{ loop.index }}/{{ loop.length }}{{ ' first' if loop.first }}{{ ' last' if loop.last }}>{{ (system if loop.first else '') ~ message.content }}
{%- endfor -%}""",
    "tools": """{%- if tools is not none and tools | length > 0 %}
# Tools
{%- for tool in tools %}
{{ tool | tojson }}
{{ tool.function | tojson(indent=2) }}
{{- tool.function.name }}({% for name, spec in tool.function.parameters.properties.items() %}{{ name }}: {{ spec.type }}{{ ', ' if not loop.last }}{% endfor %})
{%- endfor %}
{%- else %}no tools{% endif %}
{%- for message in messages if message.role != 'system' %}
{%- if message.tool_calls is defined and message.tool_calls %}
{%- for call in message.tool_calls %}
<call>{{ {'name': call.function.name, 'arguments': call.function.arguments} | tojson }}</call>
{%- endfor %}
{%- else %}
{{ message.content }}
{%- endif %}
{%- endfor %}""",
    "thinking": """{%- set ns = namespace(last=-1, seen=false) %}
{%- for message in messages[::-1] %}
{%- set index = (messages | length - 1) - loop.index0 %}
{%- if not ns.seen and message.role == 'user' %}{%- set ns.last = index %}{%- set ns.seen = true %}{%- endif %}
{%- endfor %}
{%- for message in messages %}
{%- set content = message.content %}
{%- if message.role == 'assistant' and '</think>' in content %}
{%- if loop.index0 < ns.last %}{%- set content = content.split('</think>')[-1].lstrip('\\n') %}{%- endif %}
{%- endif %}
<{{ message.role }}>{{ content }}
{%- endfor %}
{%- if enable_thinking is defined and enable_thinking is false %}<think></think>{% endif %}""",
    "python": """{{ none }} {{ true }} {{ false }} {{ 1.5 }} {{ 2.0 }} {{ missing }}|{{ ['a', "it's", 1, none, true, {'k': 'v'}] }}
{{ messages[0] }} {{ {'a': [1, 2]} }} {{ '%s' | string }} {{ true | string }}
{{ 'Hello World'.lower().replace('o', 'a').title() }} {{ 'a,b,c'.split(',') | join('-') }} {{ 'x'.startswith('x') and not 'x'.endswith('y') }}
{{ messages | map(attribute='role') | join(', ') }} {{ messages | selectattr('role', 'equalto', 'user') | list | length }}
{%- for i in range(10) %}{% if i == 2 %}{% continue %}{% endif %}{% if i == 5 %}{% break %}{% endif %} {{ i }}{% endfor %}
{% macro shout(text, mark='!') %}{{ text | upper }}{{ mark }}{% endmacro %}{{ shout('hey') }} {{ shout('you', mark='?') }}
{{ messages[0].get('name', 'nobody') }} {{ messages[0].items() | list | length }} {{ messages[0].keys() | list }}
{{ '<b> & \\'quotes\\'' }} {{ {'html': '<b> & é "x"', 'z': [], 'n': none} | tojson }} {{ {'b': 1, 'a': {}} | tojson(indent=4) }}""",
    "refusing": "{{ raise_exception('Only user and assistant roles are supported, not: ' + messages[0].role) }}",
    "parts": """{% for message in messages %}{% if message.content is string %}{{ message.content }}{% else %}{% for part in message.content %}{% if part.type == 'text' %}{{ part.text }}{% endif %}{% endfor %}{% endif %};{% endfor %}""",
}

TOOLS = [{
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Current weather: °C & more",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "days": {"type": "integer", "enum": [1, 2]}},
            "required": ["city"],
        },
    },
}]

CHATS = [
    [{"role": "user", "content": "Hello"}],
    [{"role": "system", "content": " Be kind. "}, {"role": "user", "content": " Hi \n"},
     {"role": "assistant", "content": "<think>\nhm\n</think>\n\nYes?"}, {"role": "user", "content": "Grüße 👋"}],
    [{"role": "user", "content": "a"}, {"role": "user", "content": "b", "name": "Bo"}],
    [{"role": "user", "content": "Weather?"},
     {"role": "assistant", "content": None, "tool_calls": [
         {"type": "function", "function": {"name": "weather", "arguments": {"city": "Zürich", "days": 2}}}]},
     {"role": "tool", "content": "{\"t\": 21.5}"}],
]


def environment():
    def raise_exception(message):
        raise TemplateError(message)

    def tojson(value, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
        return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators,
                          sort_keys=sort_keys)

    env = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"])
    env.filters["tojson"] = tojson
    env.globals["raise_exception"] = raise_exception
    return env


def render(template, chat, tools, prompt, kwargs):
    try:
        return {"text": environment().from_string(template).render(
            messages=chat, tools=tools, documents=None, add_generation_prompt=prompt,
            bos_token="<s>", eos_token="</s>", **kwargs)}
    except TemplateError as error:
        return {"refused": str(error)}
    except TypeError:
        return {"failed": True}


def main():
    cases = []
    for name, template in TEMPLATES.items():
        for chat in range(len(CHATS)):
            for tools, prompt, kwargs in ((None, True, {}), (TOOLS, False, {"enable_thinking": False})):
                answer = render(template, CHATS[chat], tools, prompt, kwargs)
                cases.append({"template": name, "chat": chat, "tools": tools is not None,
                              "prompt": prompt, "kwargs": kwargs, **answer})
    out = {"templates": TEMPLATES, "chats": CHATS, "tools": TOOLS, "cases": cases}
    text = json.dumps(out, ensure_ascii=False, indent=1)
    (Path(sys.argv[1]) / "templates.json").write_text(text + "\n")


if __name__ == "__main__":
    main()
