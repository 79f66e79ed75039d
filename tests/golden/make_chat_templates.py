"""Makes `chat_templates.json.gz`: what transformers renders for each conversation with each of our own templates."""

from __future__ import annotations

import datetime
import gzip
import json
from pathlib import Path
from typing import Any
from unittest import mock

import jinja2
import transformers
from chat_cases import CONVERSATIONS, OPTIONS
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
        recorded = {
            path.stem: {
                conversation: {name: answer(tokenizer, source, messages, OPTIONS[name]) for name in OPTIONS}
                for conversation, messages in CONVERSATIONS.items()
            }
            for path in sorted(TEMPLATES.glob("*.jinja"))
            for source in [path.read_text(encoding="utf-8")]
        }
    # Without a time, so that the same answers are the same file.
    with gzip.GzipFile(HERE / "chat_templates.json.gz", "wb", mtime=0) as file:
        file.write(json.dumps(recorded, ensure_ascii=False, separators=(",", ":")).encode())


def answer(tokenizer: Any, template: str, messages: list[dict[str, Any]], options: dict[str, Any]) -> dict[str, str]:
    """The text; else what the template raised, or the type of the error that ended it."""
    try:
        text = tokenizer.apply_chat_template(messages, chat_template=template, tokenize=False, **options)
        return {"text": text}
    except jinja2.TemplateError as error:
        return {"raised" if type(error) is jinja2.TemplateError else "error": str(error)}
    except (TypeError, ValueError) as error:
        return {"error": f"{type(error).__name__}: {error}"[:200]}


if __name__ == "__main__":
    main()
