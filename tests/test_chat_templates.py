"""Templates in the manner of each family of models give the text, or the refusal, that transformers recorded."""

from __future__ import annotations

import datetime
import gzip
import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from golden import chat_cases
from golden.chat_cases import CONVERSATIONS, IN_PARTS, MESSAGES, OPTIONS, VARIABLES, Message
from nanovllm import LLM
from nanovllm.exceptions import ChatTemplateError
from nanovllm.utils.tokenizer import Tokenizer

GOLDEN = Path(__file__).parent / "golden"
TEMPLATES = GOLDEN.parents[1] / "rust" / "tokenizer" / "tests" / "templates"
ALL_RECORDED = json.loads(gzip.decompress((GOLDEN / "chat_templates.json.gz").read_bytes()))
RECORDED, EXPRESSIONS = ALL_RECORDED["templates"], ALL_RECORDED["expressions"]


@pytest.fixture(scope="module")
def tokenizer(tiny_qwen3: str) -> Tokenizer:
    return LLM(tiny_qwen3, num_kvcache_blocks=1).tokenizer


def answer(tokenizer: Tokenizer, template: str, messages: list[Message], options: dict[str, Any]) -> dict[str, str]:
    """The text or the error, as the golden file has it."""
    try:
        return {"text": tokenizer.apply_chat_template(messages, chat_template=template, tokenize=False, **options)}
    except ChatTemplateError as error:
        refused = str(error).startswith("the chat template refused the messages: ")
        return {"raised": str(error).split(": ", 1)[1]} if refused else {"error": str(error)}
    except (TypeError, ValueError) as error:
        return {"error": str(error)}


def on(day: datetime.datetime, recorded: dict[str, str]) -> dict[str, str]:
    """What is recorded with the dates of a day."""
    return {kind: re.sub(r"\[now:(.*?)]", lambda date: day.strftime(date[1]), text) for kind, text in recorded.items()}


def texts(message: Message) -> list[str]:
    """The texts of a message's content, which is a text or a list of parts."""
    content = message["content"]
    return [part["text"] for part in content] if isinstance(content, list) else [content]


def reads_parts(messages: list[Message], recorded: dict[str, str]) -> bool:
    """Whether transformers' text has each part, and is no print of the lists."""
    text = recorded.get("text", "")
    return "'text'" not in text and all(part.strip() in text for message in messages for part in texts(message))


def test_every_template_has_its_record() -> None:
    assert {path.stem for path in TEMPLATES.glob("*.jinja")} == set(RECORDED)
    for conversations in RECORDED.values():
        assert set(conversations) == set(CONVERSATIONS)
        assert all(set(answers) == set(OPTIONS) for answers in conversations.values())
    assert list(EXPRESSIONS) == chat_cases.EXPRESSIONS


@pytest.mark.parametrize("conversation", CONVERSATIONS)
@pytest.mark.parametrize("family", sorted(RECORDED))
def test_answers_are_those_of_transformers(tokenizer: Tokenizer, family: str, conversation: str) -> None:
    messages = CONVERSATIONS[conversation]
    template = (TEMPLATES / f"{family}.jinja").read_text(encoding="utf-8")
    for name, recorded in RECORDED[family][conversation].items():
        before = datetime.datetime.now()
        ours = answer(tokenizer, template, messages, OPTIONS[name])
        if conversation in IN_PARTS and not reads_parts(messages, recorded):
            joined = [message | {"content": "".join(texts(message))} for message in messages]
            assert ours == answer(tokenizer, template, joined, OPTIONS[name]), name
        elif "error" in recorded:
            assert "text" not in ours, name
        else:
            assert ours in (on(before, recorded), on(datetime.datetime.now(), recorded)), name


def test_expressions_are_those_of_jinja2(tokenizer: Tokenizer) -> None:
    for template, recorded in EXPRESSIONS.items():
        ours = answer(tokenizer, template, MESSAGES, VARIABLES)
        assert "text" not in ours if "error" in recorded else ours == recorded, template


@pytest.mark.parametrize("letters", ["aAbBdeHIjmMpSUuwWyYzZcxXDFTRrhntGVgCklP%", "-d-H-I-j-m"])
def test_dates_are_python_s(tokenizer: Tokenizer, letters: str) -> None:
    form = re.sub("(-?.)", r"%\1|", letters)
    before = datetime.datetime.now().strftime(form)
    ours = answer(tokenizer, "{{ strftime_now(form) }}", MESSAGES, {"form": form})["text"]
    assert ours in (before, datetime.datetime.now().strftime(form))


NUMBERS = st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False)
# Without characters that only later versions of Unicode have, which Rust may print where Python escapes them.
CHARACTERS = st.characters(exclude_categories=["Cn", "Cs"])
TEXTS = st.text(CHARACTERS) | st.text("'\"\\\n\t <é😀", max_size=8)
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXTS,
    lambda values: st.lists(values, max_size=4) | st.dictionaries(TEXTS, values, max_size=4),
)


@given(value=VALUES)
def test_values_are_written_as_python_writes_them(tokenizer: Tokenizer, value: Any) -> None:
    def text(template: str) -> str:
        return answer(tokenizer, template + ";", MESSAGES, {"value": value})["text"][:-1]

    assert text("{{ value | tojson }}") == json.dumps(value, ensure_ascii=False)
    form = {"indent": 2, "sort_keys": True, "ensure_ascii": True}
    assert text("{{ value | tojson(indent=2, sort_keys=true, ensure_ascii=true) }}") == json.dumps(value, **form)
    assert text("{{ value }}") == str(value)
    assert text("{{ value ~ '' }}") == str(value)
    assert text("{{ [value] | string }}") == str([value])
