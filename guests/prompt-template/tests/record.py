"""Renders the conversations of `rendered/conversations.json` by every built-in template, with the Jinja environment of
Hugging Face's `apply_chat_template`, and writes down the prompts. With `--check` it only compares them.

It needs `jinja2` from PyPI.
"""

import json
import sys
from datetime import datetime, timezone
from pathlib import Path

from jinja2.exceptions import TemplateError
from jinja2.ext import loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

HERE = Path(__file__).parent
TEMPLATES = HERE.parent / "src" / "templates"
RENDERED = HERE / "rendered"

# When the requests of the tests arrived.
CREATED = datetime.fromtimestamp(1_700_000_000, timezone.utc)

SNIPPETS = [
    "{{ messages | tojson }}",
    "{{ {'b': [1, 2.5, true, none], 'a': 'ü<>&\\'\"'} | tojson(indent=2) }}",
    "{{ 'a,b'.split(',')[1].upper() + ' x '.strip() }}{{ 'abc'.startswith('ab') }}",
    "{% for k, v in {'b': 1, 'a': 2}.items() %}{{ k }}={{ v }};{% endfor %}",
    "{% set ns = namespace(n=0) %}{% for i in range(4) %}{% if i == 3 %}{% break %}{% endif %}{% set ns.n = ns.n + i %}{% endfor %}{{ ns.n }}",
    "{% for i in [1, 2, 3] %}{{ loop.previtem }}-{{ loop.nextitem }};{% endfor %}",
    "a\n  {% if true %}\nb\n  {% endif %}\nc\n",
    "{%- macro greet(who, how='hi') %}{{ how }} {{ who }}{% endmacro %}{{ greet('you') }}",
    "{{ strftime_now('%Y-%m-%d %H:%M %A %B %j') }}",
    "{{ messages[-1]['content'] | length }}{{ messages[0:1] | length }}{{ 'x' if not missing is defined else 'y' }}",
    "{{ [3, 1, 2] | sort | join('-') }} {{ 'a b' | replace(' ', '_') }} {{ (['a'] + ['b']) | join }}",
    "{{ '%s has %d' | format('x', 3) }} {{ 7 // 2 }} {{ 7 % 3 }} {{ 'ab' * 2 }} {{ 1 ~ 'a' }}",
]


def tojson(value, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


def raise_exception(message):
    raise TemplateError(message)


def environment():
    jinja = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols]
    )
    jinja.filters["tojson"] = tojson
    jinja.globals["raise_exception"] = raise_exception
    jinja.globals["strftime_now"] = CREATED.strftime
    return jinja


def message(given):
    """A message as the guest shows it to templates."""
    content = given.get("content") or ""
    if isinstance(content, list):
        content = "\n".join(part["text"] for part in content)
    shown = {"role": given["role"].replace("developer", "system"), "content": content}
    if given.get("tool_calls"):
        shown["tool_calls"] = [call(one) for one in given["tool_calls"]]
    for key in ("name", "tool_call_id"):
        if key in given:
            shown[key] = given[key]
    return shown


def call(given):
    arguments = given["function"]["arguments"]
    try:
        arguments = json.loads(arguments)
    except ValueError:
        pass
    function = {"name": given["function"]["name"], "arguments": arguments}
    return {"id": given["id"], "type": "function", "function": function}


def tool(given):
    function = {"name": given["function"]["name"]}
    if "description" in given["function"]:
        function["description"] = given["function"]["description"]
    function["parameters"] = given["function"].get("parameters", {})
    return {"type": "function", "function": function}


def rendered(template, conversation):
    messages = [message(one) for one in conversation["messages"]]
    leading = []
    for one in messages:
        if one["role"] != "system":
            break
        leading.append(one["content"])
    try:
        prompt = environment().from_string(template).render(
            messages=messages,
            tools=[tool(one) for one in conversation.get("tools", [])] or None,
            system="\n\n".join(leading),
            model="m",
            add_generation_prompt=True,
        )
        return {"prompt": prompt}
    except TemplateError as error:
        return {"raised": str(error)}


def main():
    conversations = json.loads((RENDERED / "conversations.json").read_text())
    files = {
        "expected.json": {
            path.stem: {name: rendered(path.read_text(), one) for name, one in conversations.items()}
            for path in sorted(TEMPLATES.glob("*.j2"))
        },
        "snippets.json": [
            {
                "template": snippet,
                "prompt": rendered(snippet, {"messages": [{"role": "user", "content": "hi"}]})["prompt"],
            }
            for snippet in SNIPPETS
        ],
    }
    for name, content in files.items():
        text = json.dumps(content, ensure_ascii=False, indent=1) + "\n"
        if "--check" in sys.argv:
            if (RENDERED / name).read_text() != text:
                sys.exit(f"{name} is not what jinja2 renders: run record.py")
        else:
            (RENDERED / name).write_text(text)


main()
