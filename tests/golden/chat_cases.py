"""Conversations for the chat templates of `rust/tokenizer/tests/templates/`, and expressions of such templates."""

from __future__ import annotations

from pathlib import Path
from typing import Any

Message = dict[str, Any]

TEXT = "Grüße, 世界 <b>&\"'</b> 😀"
ARGUMENTS = {"city": "Köln", "days": 2, "exact": True, "note": None, "hours": [6, 12.5], "unit": {"kind": "c"}}
TOOLS: list[dict[str, Any]] = [
    {
        "type": "function",
        "function": {
            "name": "weather",
            "description": 'The weather of a city, "now" or soon; in °C.',
            "parameters": {
                "type": "object",
                "properties": {
                    "city": {"type": "string", "description": "its name"},
                    "days": {"type": ["integer", "null"], "minimum": 0, "maximum": 1e2},
                    "items": {"type": "array", "items": {"type": "string", "enum": ["rain", "snow"]}},
                    "unit": {"type": "object", "properties": {"kind": {"type": "string"}}, "required": ["kind"]},
                },
                "required": ["city", "items"],
            },
            "strict": True,
        },
    },
    {"type": "function", "function": {"name": "now", "description": "The time.", "parameters": {}}},
]
DOCUMENTS = [{"title": "Bären", "text": " They sleep. ", "doc_id": "b1"}, {"title": "Ants", "text": "They don't.\n"}]


def user(content: Any) -> Message:
    """A question."""
    return {"role": "user", "content": content}


def assistant(content: Any, **fields: Any) -> Message:
    """An answer."""
    return {"role": "assistant", "content": content, **fields}


def system(content: Any) -> Message:
    """Instructions."""
    return {"role": "system", "content": content}


def called(name: str, arguments: Any, identifier: str = "a1b2c3d4e") -> dict[str, Any]:
    """A call of a function."""
    return {"id": identifier, "type": "function", "function": {"name": name, "arguments": arguments}}


def result(content: Any, identifier: str = "a1b2c3d4e", role: str = "tool") -> Message:
    """What a function returned."""
    return {"role": role, "name": "weather", "tool_call_id": identifier, "content": content}


def part(text: str) -> dict[str, str]:
    """A part of a message, in OpenAI's form."""
    return {"type": "text", "text": text}


WEATHER = called("weather", ARGUMENTS)
CONVERSATIONS: dict[str, list[Message]] = {
    "question": [user(TEXT)],
    "spaces": [user("\n  a \n\n")],
    "system": [system("Be brief.\n"), user("a")],
    "blank system": [system(" "), user("a")],
    "empty system": [system(""), user("a")],
    "modes": [system("Short. /no_think"), user("a"), assistant("<think>\nx\n</think>\n\nb"), user("c")],
    "system alone": [system("/system_override Be brief. ")],
    "several turns": [system("s"), user("a"), assistant(" b\n"), user(TEXT), assistant("d"), user("e")],
    "an answer last": [user("a"), assistant("b"), user("c"), assistant("The answer: ")],
    "thoughts in the text": [
        user("a"),
        assistant("<think>\nold\n</think>\n\nb"),
        user("c"),
        assistant("<think>\nnew\n</think>\n\nd"),
    ],
    "thoughts apart": [
        user("a"),
        assistant("b", reasoning_content="old"),
        user("c"),
        assistant("d", reasoning_content="\nnew\n", tool_calls=[WEATHER]),
        result("1"),
        assistant("f", reasoning_content="newest"),
    ],
    "channels": [user("a"), assistant("x<|channel>thought\nhm\n<channel|>b "), user("c")],
    "a call": [user("a"), assistant("", tool_calls=[WEATHER]), result('{"t": 20}')],
    "a call without content": [
        user("a"),
        assistant(None, tool_calls=[WEATHER]),
        result("20°"),
        assistant("b"),
        user("c"),
    ],
    "arguments as text": [user("a"), assistant(None, tool_calls=[called("weather", '{"city": "Köln"}')]), result("1")],
    "two calls": [
        system("s"),
        user("a"),
        assistant("I look.", tool_calls=[WEATHER, called("now", {}, "z9y8x7w6v")]),
        result("1\n2"),
        result("3", "z9y8x7w6v"),
        assistant("b"),
    ],
    "a bare call": [user("a"), assistant("", tool_calls=[{"name": "now", "arguments": {}}]), result("1")],
    "a short id": [user("a"), assistant("", tool_calls=[called("now", {}, "1")]), result("1", "1")],
    "a result of JSON": [
        user("a"),
        assistant("", tool_calls=[called("now", {})]),
        result({"content": [1, None, "ü"]}, role="tool"),
    ],
    "ipython": [user("a"), assistant("", tool_calls=[WEATHER]), result([1, {"t": 1.5}], role="ipython")],
    "no tool_calls": [user("a"), assistant("b", tool_calls=[], name=None), user("c")],
    "two questions": [user("a"), user("b")],
    "an answer first": [assistant("b"), user("a")],
    "a nameless role": [user("a"), {"role": "critic", "content": "no"}],
    "a developer": [{"role": "developer", "content": "Be brief."}, user("a")],
    "tools in a message": [system("s") | {"tools": '[{"name": "now"}]'}, user("a")],
    "parts": [user([part(" one "), part("two\n")]), assistant("b"), user([part("c")])],
    "parts everywhere": [system([part("s ")]), user([part("a"), part(" b")]), assistant([part("c")]), user("d")],
}
OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "prompt": {"add_generation_prompt": True},
    "thinking": {"add_generation_prompt": True, "enable_thinking": True, "thinking": True},
    "no thinking": {"add_generation_prompt": True, "enable_thinking": False},
    "tools": {"tools": TOOLS, "add_generation_prompt": True},
    "tools, no thinking": {"tools": TOOLS, "enable_thinking": False},
    "no tools": {"tools": []},
    "documents": {"documents": DOCUMENTS, "add_generation_prompt": True},
    "documents, tools": {"documents": DOCUMENTS, "tools": TOOLS, "controls": {"citations": True, "length": "LONG"}},
    "controls": {"controls": {"originality": "Abstractive", "length": 2}, "add_generation_prompt": True},
    "date": {"date_string": "1 Jan 2025", "add_generation_prompt": True},
    "built in": {"builtin_tools": ["search", "python", "weather"], "tools": TOOLS, "date_string": "2 Feb 2025"},
    "system functions": {"tools": TOOLS, "tools_in_user_message": False},
    "other functions": {
        "xml_tools": [{"name": "f"}],
        "python_tools": ["def f():\n    pass", "g"],
        "custom_tools": TOOLS,
    },
    "go on": {"continue_final_message": True},
    "go on with thoughts": {"continue_final_message": "reasoning_content"},
    "other tokens": {"bos_token": "[B]", "eos_token": "[E]"},
}
# Templates of a line, each for something that templates of models use or might, and what they are rendered with.
EXPRESSIONS = (Path(__file__).parent / "chat_expressions.txt").read_text(encoding="utf-8").splitlines()
MESSAGES = [user("hi"), assistant("yo")]
VARIABLES: dict[str, Any] = {
    "d": {"a": 1, "b": "zwei ü", "l": [{"x": 1}], "n": None},
    "l": [{"n": 2, "k": "y"}, {"n": 1, "k": "x"}, {"n": 3, "k": "y"}],
}
# Conversations whose content is a list of parts, which is compared only for templates that read parts.
IN_PARTS = frozenset(name for name, messages in CONVERSATIONS.items() if name.startswith("parts"))
