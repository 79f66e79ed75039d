"""Conversations and template variables, checked before a chat template sees them: errors name what and where."""

import json
import math
import re
from collections.abc import Sequence
from typing import Any

Message = dict[str, Any]
"""One chat message: `{"role": ..., "content": ...}` and whatever else the template reads."""

# Names under which a message has what a model thought; templates read the first, or the second.
_REASONING = ("reasoning_content", "thinking", "reasoning")
# What a tool returns may be any JSON, which templates print.
_TOOL_ROLES = ("tool", "ipython", "function")
_SURROGATE = re.compile("[\ud800-\udfff]")
_MAX_DEPTH = 100


def is_conversation_list(conversation: Any) -> bool:
    """Whether this is a list of conversations, not one, which is a list of dicts. TypeError for anything else."""
    if isinstance(conversation, str | bytes) or not isinstance(conversation, Sequence):
        kind = "a single message" if isinstance(conversation, dict) else _kind(conversation)
        raise TypeError(f"a conversation must be a list of messages, or there must be a list of them; got {kind}")
    return len(conversation) > 0 and not isinstance(conversation[0], dict)


def checked(conversation: Any, where: str = "") -> list[Message]:
    """The messages as transformers gives them to a template. `where` stands before what an error names.

    Keys whose value is None are left out, as templates know how to miss a key but print a None. What a model thought is
    there under each name that templates read.
    """
    if isinstance(conversation, str | bytes) or not isinstance(conversation, Sequence):
        raise TypeError(f"{where}a conversation must be a list of messages, got {_kind(conversation)}")
    if not conversation:
        raise ValueError(f"{where}the conversation is empty: there is nothing to answer")
    return [_message(message, f"{where}messages[{index}]") for index, message in enumerate(conversation)]


def dumps(value: object, name: str) -> str:
    """The JSON of a value. TypeError or ValueError names the part of `name` that has none."""
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False)
        text.encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise (_culprit(value, name, 0) or error) from None
    return text


class Parts:
    """The messages of a conversation whose content is a list of parts, which not every template reads.

    A template that does gets them, as in transformers; for any other they are joined to one text. Which messages it
    reads shows when it renders the conversation with a word in the place of each part.
    """

    def __init__(self, messages: list[Message]) -> None:
        self._messages = messages
        self._words = {
            index: [f"part{index}of{number}." for number, _ in enumerate(message["content"])]
            for index, message in enumerate(messages)
            if _is_in_parts(message)
        }

    def __bool__(self) -> bool:
        return bool(self._words)

    def probe(self) -> list[Message]:
        """The conversation with a word in the place of each part."""
        return [
            message | {"content": [{"type": "text", "text": word} for word in self._words[index]]}
            if index in self._words
            else message
            for index, message in enumerate(self._messages)
        ]

    def read(self, probed: str | None) -> list[Message]:
        """The conversation as the template reads it that made `probed` of the probe; None if it failed."""

        def reads(words: list[str]) -> bool:
            # In quotes it stands where the template has printed the list itself.
            quoted = (f"{quote}{word}{quote}" for word in words for quote in "'\"")
            text = probed or ""
            return bool(words) and all(word in text for word in words) and not any(word in text for word in quoted)

        return [
            message | {"content": "".join(part["text"] for part in message["content"])}
            if index in self._words and not reads(self._words[index])
            else message
            for index, message in enumerate(self._messages)
        ]


class FinalMessage:
    """The last message of a conversation that the model is to go on with, and where it ends in a prompt.

    A mark at its end goes through the template with it, as in transformers 5; the prompt ends where the mark is. If the
    template took white space away before the mark, so does this.
    """

    _MARK = "CONTINUE_FINAL_MESSAGE_TAG "

    def __init__(self, messages: list[Message], key: str, where: str) -> None:
        final = messages[-1]
        self._where = f"{where}messages[{len(messages) - 1}]"
        parts = final["content"] if key == "content" and _is_in_parts(final) else None
        text = parts[-1]["text"] if parts else final.get(key)
        if not isinstance(text, str):
            raise ValueError(f"{self._where} has no text {key!r} that continue_final_message could go on with")
        marked: Any = text + self._MARK
        if parts:
            marked = [*parts[:-1], parts[-1] | {"text": marked}]
        # What was thought stands there under several names, and the template may read any.
        keys = [name for name in _REASONING if final.get(name) == text] if key in _REASONING else [key]
        self._marked = [*messages[:-1], final | dict.fromkeys(keys, marked)]
        self._key, self._text = key, text

    def marked(self) -> list[Message]:
        """The conversation with the mark."""
        return self._marked

    def cut(self, prompt: str) -> str:
        """The prompt up to the mark."""
        head, mark, tail = prompt.rpartition(self._MARK.strip())
        if not mark or self._text.strip() not in prompt:
            raise ValueError(f"continue_final_message: the chat template leaves out the {self._key} of {self._where}")
        return head if tail.startswith(self._MARK[len(mark) :]) else head.rstrip()


def _message(message: Any, where: str) -> Message:
    if not isinstance(message, dict):
        raise TypeError(f"{where} must be a dict with a role and content, got {_kind(message)}")
    if "role" not in message:
        raise ValueError(f"{where} has no role")
    role, content = message["role"], message.get("content")
    if not isinstance(role, str):
        raise TypeError(f"{where}['role'] must be a str, got {_kind(role)}")
    where = f"{where} ({role!r})"
    if isinstance(content, list | tuple):
        if _is_in_parts(message) or role not in _TOOL_ROLES:
            for index, part in enumerate(content):
                _check_text(part, f"{where}: content[{index}]")
    elif not isinstance(content, str | dict | None) and role not in _TOOL_ROLES:
        raise TypeError(f"{where}: content must be a str, a list of parts or None, got {_kind(content)}")
    given = {key: value for key, value in message.items() if value is not None}
    reasoning = next((given[key] for key in _REASONING if key in given), None)
    return given if reasoning is None else {"thinking": reasoning} | given | {"reasoning_content": reasoning}


def _is_in_parts(message: Message) -> bool:
    """Whether the content of a message is a list of parts in OpenAI's form."""
    content = message.get("content")
    return isinstance(content, list | tuple) and all(isinstance(part, dict) and "type" in part for part in content)


def _check_text(part: Any, where: str) -> None:
    """Raises for what is no part of a message's content with a text, in OpenAI's form."""
    if not isinstance(part, dict) or "type" not in part:
        raise TypeError(f"{where} must be a dict such as {{'type': 'text', 'text': ...}}, got {_kind(part)}")
    if part["type"] != "text":
        raise ValueError(f"{where} is of type {part['type']!r}; only 'text' is supported")
    if not isinstance(part.get("text"), str):
        raise TypeError(f"{where}['text'] must be a str, got {_kind(part.get('text'))}")


def _kind(value: object) -> str:
    return "None" if value is None else f"a {type(value).__name__}"


def _culprit(value: object, path: str, depth: int) -> Exception | None:
    """The error for the first part of a value that JSON has no form for."""
    if depth > _MAX_DEPTH:
        return ValueError(f"{path[:200]}...: more than {_MAX_DEPTH} values lie within each other")
    parts: list[tuple[object, str]]
    if isinstance(value, dict):
        parts = [(key, f"the key {key!a} of {path}") for key in value]
        parts += [(item, f"{path}[{key!a}]") for key, item in value.items()]
    elif isinstance(value, list | tuple):
        parts = [(item, f"{path}[{index}]") for index, item in enumerate(value)]
    else:
        return _leaf(value, path)
    errors = (_culprit(part, name, depth + 1) for part, name in parts)
    return next((error for error in errors if error), None)


def _leaf(value: object, path: str) -> Exception | None:
    surrogate = _SURROGATE.search(value) if isinstance(value, str) else None
    if surrogate:
        return ValueError(f"{path} has a lone surrogate at character {surrogate.start()}")
    if isinstance(value, float) and not math.isfinite(value):
        return ValueError(f"{path} is {value}, which JSON does not have")
    if not isinstance(value, str | int | float | None):
        return TypeError(f"{path} is of type {type(value).__name__}, which JSON does not have")
    return None
