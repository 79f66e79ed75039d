"""Makes `chat_templates.json.gz`: what transformers renders with our own templates and with single expressions."""

from __future__ import annotations

import datetime
import gzip
import json
from pathlib import Path
from typing import Any
from unittest import mock

import jinja2
import transformers
from chat_cases import CONVERSATIONS, EXPRESSIONS, MESSAGES, OPTIONS, VARIABLES
from transformers.utils import chat_template_utils

HERE = Path(__file__).resolve().parent
TEMPLATES = HERE.parents[1] / "rust" / "tokenizer" / "tests" / "templates"


class Today(datetime.datetime):
    """A day that is written as the format it is asked for, for a test to fill in."""

    def strftime(self, form: str) -> str:
        return f"[now:{form}]"


def main() -> None:
    """Write what transformers answers."""
    transformers.logging.set_verbosity_error()
    tokenizer = transformers.AutoTokenizer.from_pretrained(HERE / "tiny_qwen3")
    with mock.patch.object(chat_template_utils, "datetime", Today):
        templates = {
            path.stem: {
                conversation: {name: answer(tokenizer, source, messages, OPTIONS[name]) for name in OPTIONS}
                for conversation, messages in CONVERSATIONS.items()
            }
            for path in sorted(TEMPLATES.glob("*.jinja"))
            for source in [path.read_text(encoding="utf-8")]
        }
        expressions = {line: answer(tokenizer, line, MESSAGES, VARIABLES) for line in EXPRESSIONS}
    # Without a time, so that the same answers are the same file.
    with gzip.GzipFile(HERE / "chat_templates.json.gz", "wb", mtime=0) as file:
        recorded = {"templates": templates, "expressions": expressions}
        file.write(json.dumps(recorded, ensure_ascii=False, separators=(",", ":")).encode())


def answer(tokenizer: Any, template: str, messages: list[dict[str, Any]], options: dict[str, Any]) -> dict[str, str]:
    """The text; else what the template raised, or the type of the error that ended it."""
    try:
        text = tokenizer.apply_chat_template(messages, chat_template=template, tokenize=False, **options)
        return {"text": text}
    except jinja2.TemplateError as error:
        return {"raised" if type(error) is jinja2.TemplateError else "error": str(error)}
    except Exception as error:  # what Python raises in a template is of many types
        return {"error": f"{type(error).__name__}: {error}"[:200]}


if __name__ == "__main__":
    main()
