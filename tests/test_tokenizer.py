"""The tokenizer has the interface of transformers and gives the ids of the library tokenizers."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest
import tokenizers

from nanovllm import LLM
from nanovllm.exceptions import ChatTemplateError
from nanovllm.utils.tokenizer import Tokenizer

TEXTS = ["Alice was beginning", "", "naïve 😀\n\t <|im_end|> x", "  3.14  "]


@pytest.fixture(scope="module")
def tokenizer(tiny_qwen3: str) -> Tokenizer:
    return LLM(tiny_qwen3, num_kvcache_blocks=1).tokenizer


def test_agrees_with_the_tokenizers_library(tokenizer: Tokenizer, tiny_qwen3: str) -> None:
    reference = tokenizers.Tokenizer.from_file(f"{tiny_qwen3}/tokenizer.json")
    assert isinstance(tokenizer.backend_tokenizer, tokenizers.Tokenizer)
    assert tokenizer.backend_tokenizer is tokenizer.backend_tokenizer
    for text in TEXTS:
        ids = tokenizer.encode(text)
        assert ids == reference.encode(text).ids == tokenizer.backend_tokenizer.encode(text).ids
        assert tokenizer.decode(ids) == text
        assert tokenizer(text) == {"input_ids": ids, "attention_mask": [1] * len(ids)}
    assert len(tokenizer) == reference.get_vocab_size()
    assert tokenizer.get_vocab() == reference.get_vocab()


def test_special_tokens(tokenizer: Tokenizer) -> None:
    assert tokenizer.eos_token == "<|im_end|>"
    assert tokenizer.eos_token_id is not None
    assert tokenizer.convert_ids_to_tokens(tokenizer.eos_token_id) == "<|im_end|>"
    assert tokenizer.convert_tokens_to_ids(["<|im_end|>", "no such token"]) == [tokenizer.eos_token_id, None]
    ids = [*tokenizer.encode("a"), tokenizer.eos_token_id]
    assert tokenizer.decode(ids) == "a<|im_end|>"
    assert tokenizer.decode(ids, skip_special_tokens=True) == "a"
    assert tokenizer.decode(tokenizer.eos_token_id) == "<|im_end|>"
    assert tokenizer.batch_decode([ids, ids[:1]]) == ["a<|im_end|>", "a"]


def test_an_id_without_a_token_adds_nothing(tokenizer: Tokenizer) -> None:
    a = tokenizer.encode("a")
    assert tokenizer.decode([*a, len(tokenizer), *a]) == "aa"


def test_chat_template(tokenizer: Tokenizer) -> None:
    conversation = [{"role": "user", "content": "hi"}]
    text = tokenizer.apply_chat_template(conversation, tokenize=False, add_generation_prompt=True)
    assert text == "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"
    ids = tokenizer.apply_chat_template(conversation)
    assert ids == tokenizer.encode("<|im_start|>user\nhi<|im_end|>\n")
    several = tokenizer.apply_chat_template([conversation, conversation], tokenize=False)
    assert several == ["<|im_start|>user\nhi<|im_end|>\n"] * 2


def test_chat_template_of_ones_own_with_variables(tokenizer: Tokenizer) -> None:
    template = "{{ messages[0].content }}{% for t in tools %}{{ t.name }}{% endfor %}{{ mood }}"
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": "hi "}],
        tools=[{"name": "clock "}],
        chat_template=template,
        tokenize=False,
        mood="glad",
    )
    assert text == "hi clock glad"


def test_options_that_are_not_supported_are_refused(tokenizer: Tokenizer) -> None:
    with pytest.raises(ValueError, match="return_tensors"):
        tokenizer.apply_chat_template([{"role": "user", "content": "hi"}], return_tensors="pt")


class TestConversations:
    """What is no conversation is refused by name."""

    USER: ClassVar[dict[str, str]] = {"role": "user", "content": "hi"}

    @pytest.mark.parametrize(
        ("conversation", "error", "words"),
        [
            (None, TypeError, "got None"),
            ("hi", TypeError, "got a str"),
            (7, TypeError, "got a int"),
            (USER, TypeError, "got a single message"),
            ([], ValueError, "the conversation is empty"),
            ([[USER], []], ValueError, "conversation 1: the conversation is empty"),
            (["hi"], TypeError, "conversation 0: a conversation must be a list of messages, got a str"),
            ([USER, "hi"], TypeError, r"messages\[1\] must be a dict with a role and content, got a str"),
            ([[USER], [USER, None]], TypeError, r"conversation 1: messages\[1\] must be a dict .* got None"),
            ([{"content": "hi"}], ValueError, r"messages\[0\] has no role"),
            ([{"role": 1, "content": "hi"}], TypeError, r"messages\[0\]\['role'\] must be a str, got a int"),
            ([USER, USER | {"content": 5}], TypeError, r"messages\[1\] \('user'\): content .* got a int"),
            ([USER | {"content": ["hi"]}], TypeError, r"messages\[0\] \('user'\): content\[0\] .* got a str"),
            (
                [[USER | {"content": [{"type": "text", "text": "hi"}, {"type": "image_url"}]}]],
                ValueError,
                r"conversation 0: messages\[0\] \('user'\): content\[1\] is of type 'image_url'; only 'text'",
            ),
            ([USER | {"content": [{"type": "text"}]}], TypeError, r"content\[0\]\['text'\] must be a str, got None"),
            (
                [USER, USER | {"content": "ab\ud800"}],
                ValueError,
                r"messages\[1\]\['content'\] .* at character 2",
            ),
            (
                [[USER | {"x": [{"y": "\udfff"}]}]],
                ValueError,
                r"conversation 0: messages\[0\]\['x'\]\[0\]\['y'\] ",
            ),
            ([USER | {"\ud800": 1}], ValueError, r"the key '\\ud800' of messages\[0\] has a lone surrogate"),
            ([USER | {"x": {1}}], TypeError, r"messages\[0\]\['x'\] is of type set"),
            ([USER | {"x": {b"y": 1}}], TypeError, r"the key b'y' of messages\[0\]\['x'\] is of type bytes"),
            ([USER | {"x": float("nan")}], ValueError, r"messages\[0\]\['x'\] is nan"),
        ],
    )
    def test_is_refused(self, tokenizer: Tokenizer, conversation: Any, error: type[Exception], words: str) -> None:
        with pytest.raises(error, match=words):
            tokenizer.apply_chat_template(conversation)

    def test_that_holds_itself(self, tokenizer: Tokenizer) -> None:
        message: dict[str, Any] = dict(self.USER)
        message["x"] = [message]
        with pytest.raises(ValueError, match="more than 100 values lie within each other"):
            tokenizer.apply_chat_template([message])

    def test_in_parts_of_text(self, tokenizer: Tokenizer) -> None:
        parts = [{"type": "text", "text": "h"}, {"type": "text", "text": "i"}]
        text = tokenizer.apply_chat_template([self.USER | {"content": parts}], tokenize=False)
        assert text == tokenizer.apply_chat_template([self.USER], tokenize=False)

    def test_in_parts_that_a_template_reads(self, tokenizer: Tokenizer) -> None:
        template = (
            "{% for m in messages %}{% if m.content is string %}{{ m.content }}{% else %}"
            "{% for part in m.content %}<{{ part.text | trim }}>{% endfor %}{% endif %}{% endfor %}"
        )
        parts = [{"type": "text", "text": " h"}, {"type": "text", "text": "i "}]
        messages = [self.USER | {"content": parts}, self.USER | {"content": []}, self.USER]

        def text(**options: Any) -> str:
            return tokenizer.apply_chat_template(messages, tokenize=False, **options)

        assert text(chat_template=template) == "<h><i>hi"
        assert text(chat_template="{% for m in messages %}{{ m.content }};{% endfor %}") == " hi ;;hi;"
        messages.reverse()
        assert text(chat_template=template, continue_final_message=True) == "hi<h><i"

    def test_none_is_nothing(self, tokenizer: Tokenizer) -> None:
        messages = [self.USER | {"content": None, "tool_calls": None, "name": "n"}]
        template = "{% for key in messages[0] %}{{ key }} {% endfor %}"
        assert tokenizer.apply_chat_template(messages, chat_template=template, tokenize=False) == "role name "

    @pytest.mark.parametrize("name", ["reasoning_content", "reasoning", "thinking"])
    def test_thoughts_have_each_name(self, tokenizer: Tokenizer, name: str) -> None:
        messages = [self.USER | {name: "hm"}]
        for read in ("reasoning_content", "thinking"):
            template = f"{{{{ messages[0].{read} }}}}"
            options: dict[str, Any] = {"chat_template": template, "tokenize": False}
            assert tokenizer.apply_chat_template(messages, **options) == "hm"
            assert tokenizer.apply_chat_template(messages, **options, continue_final_message=name) == "hm"

    def test_what_a_tool_returns_is_any_json(self, tokenizer: Tokenizer) -> None:
        messages = [{"role": "tool", "content": [1, {"a": 2}]}, {"role": "tool", "content": 3}]
        template = "{% for m in messages %}{{ m.content|tojson }};{% endfor %}"
        assert tokenizer.apply_chat_template(messages, chat_template=template, tokenize=False) == '[1, {"a": 2}];3;'

    def test_variables_are_named(self, tokenizer: Tokenizer) -> None:
        with pytest.raises(TypeError, match=r"the template's variables\['mood'\] is of type set"):
            tokenizer.apply_chat_template([self.USER], mood={1})
        with pytest.raises(ValueError, match=r"tools\[0\]\['name'\] has a lone surrogate"):
            tokenizer.apply_chat_template([self.USER], tools=[{"name": "\ud800"}])

    def test_a_template_that_fails_for_one_of_several(self, tokenizer: Tokenizer) -> None:
        template = "{% if messages[0].content == 'no' %}{{ raise_exception('not so') }}{% endif %}"
        with pytest.raises(ChatTemplateError, match=r"^conversation 1: .*not so"):
            tokenizer.apply_chat_template([[self.USER], [self.USER | {"content": "no"}]], chat_template=template)


def test_negative_ids_are_named(tokenizer: Tokenizer) -> None:
    with pytest.raises(ValueError, match="token_id is -1"):
        tokenizer.convert_ids_to_tokens(-1)
    with pytest.raises(ValueError, match="token_id is -2"):
        tokenizer.convert_ids_to_tokens([0, -2])


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("{{ " + "-" * 40000 + "1 }}", "the tokens of a tag is limited to 4096"),
        ("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "loops, blocks and macros is limited to 500"),
        ("{{ 'a'|indent(10000000000) }}", "a value's size in bytes is limited to"),
        ("{% for i in range(100000) %}{% for j in range(100000) %}{% endfor %}{% endfor %}", "instructions"),
    ],
)
def test_a_template_cannot_end_the_process(tokenizer: Tokenizer, template: str, words: str) -> None:
    with pytest.raises(ChatTemplateError, match=words):
        tokenizer.apply_chat_template([{"role": "user", "content": "hi"}], chat_template=template)
