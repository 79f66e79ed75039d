"""The tokenizer has the interface of transformers and gives the ids of the library tokenizers."""

from __future__ import annotations

import pytest
import tokenizers

from nanovllm import LLM
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
