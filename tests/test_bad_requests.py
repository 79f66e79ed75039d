"""Every bad prompt and message is a typed exception that names it, and the engine stays usable."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from nanovllm import LLM, SamplingParams, _core
from nanovllm.engine.sequence import Sequence
from nanovllm.exceptions import ChatTemplateError
from runners import model_runner

GREEDY = SamplingParams(temperature=0, max_tokens=4, ignore_eos=True)
THINKING = "{% for m in messages %}{{ m.content }}{% endfor %}{% if enable_thinking %} thinking{% endif %}"


class TestRequests:
    @pytest.fixture(autouse=True)
    def usable_afterwards(self, llm: LLM) -> Any:
        before = llm.generate("Alice", GREEDY, use_tqdm=False)
        yield
        after = llm.generate("Alice", GREEDY, use_tqdm=False)
        assert after[0]["token_ids"] == before[0]["token_ids"]

    @pytest.mark.parametrize("prompt", ["", []])
    def test_an_empty_prompt(self, llm: LLM, prompt: str | list[int]) -> None:
        with pytest.raises(ValueError, match="empty"):
            llm.generate([prompt], GREEDY, use_tqdm=False)

    @pytest.mark.parametrize("offset", [0, 1, 2**31, 2**40, 2**100])
    def test_a_token_id_out_of_range(self, llm: LLM, offset: int) -> None:
        vocab_size = llm.config.hf_config.vocab_size
        bad = vocab_size + offset
        with pytest.raises(ValueError, match=str(bad)):
            llm.generate([[1, 2, bad]], GREEDY, use_tqdm=False)
        if offset == 0:
            with pytest.raises(ValueError, match=rf"position 2.*{vocab_size}"):
                llm.add_request([1, 2, bad], GREEDY)

    def test_a_negative_token_id(self, llm: LLM) -> None:
        with pytest.raises(ValueError, match=r"token_ids\[1\].*-1"):
            llm.generate([[1, -1]], GREEDY, use_tqdm=False)

    def test_true_and_false_are_no_token_ids(self, llm: LLM) -> None:
        with pytest.raises(TypeError, match=r"prompts\[1\]: token_ids\[2\] must be an integer, got True"):
            llm.generate(["a", [1, 2, True]], GREEDY, use_tqdm=False)
        with pytest.raises(TypeError, match=r"token_ids\[0\] must be an integer, got False"):
            llm.add_request([False], GREEDY)

    @pytest.mark.parametrize("seq_id", ["a", 1.5, None, True, [1]])
    def test_what_is_aborted_is_named_by_an_integer(self, llm: LLM, seq_id: Any) -> None:
        with pytest.raises(TypeError, match=f"seq_id must be an integer, not {type(seq_id).__name__}"):
            llm.abort(seq_id)
        assert not llm.abort(np.int64(12345))

    @pytest.mark.parametrize("prompt", [[1, 2.5], [1, "a"], [1, None], [[1]], None, [b"x"]])
    def test_a_prompt_of_another_type(self, llm: LLM, prompt: Any) -> None:
        with pytest.raises(TypeError):
            llm.generate([prompt], GREEDY, use_tqdm=False)

    @pytest.mark.parametrize(
        "prompt",
        [b"abc", bytearray(b"abc"), memoryview(b"abc"), {1, 2}, frozenset([1]), {1: 2}, None, 1.5, {"prompt": "a"}],
        ids=str,
    )
    def test_what_only_looks_like_token_ids(self, llm: LLM, prompt: Any) -> None:
        says = "text or a list of token ids"
        with pytest.raises(TypeError, match=f"{says}, not {type(prompt).__name__}"):
            llm.add_request(prompt, GREEDY)
        with pytest.raises(TypeError, match=rf"prompts\[1\]: .*{says}, not {type(prompt).__name__}"):
            llm.generate(["a", prompt, "b"], GREEDY, use_tqdm=False)
        with pytest.raises(TypeError, match=type(prompt).__name__ if prompt != {"prompt": "a"} else "dict"):
            llm.generate(prompt, GREEDY, use_tqdm=False)
        if not isinstance(prompt, dict):
            with pytest.raises(TypeError, match=f"{says}, not {type(prompt).__name__}"):
                llm.generate([prompt], GREEDY, use_tqdm=False)

    @pytest.mark.parametrize("token_ids", [b"abc", {1, 2}, {1: 2}, "12", None, 1.5], ids=str)
    def test_ids_elsewhere_are_lists_too(self, llm: LLM, token_ids: Any) -> None:
        for take in (llm.tokenizer._core.decode, lambda ids, _: Sequence(ids)):
            with pytest.raises(
                TypeError, match=f"token_ids must be a list of integers, not {type(token_ids).__name__}"
            ):
                take(token_ids, False)

    @pytest.mark.parametrize(
        ("bad", "error", "says"),
        [
            ([], ValueError, "empty"),
            ([1, 2**31], ValueError, "vocabulary"),
            ([1] * 5000, ValueError, "max_model_len"),
            ([1, -1], ValueError, r"token_ids\[1\]"),
            ([1, "a"], TypeError, r"token_ids\[1\]"),
            ("\ud800", ValueError, "surrogate"),
        ],
        ids=["empty", "outside", "long", "negative", "text", "surrogate"],
    )
    def test_of_several_prompts_the_wrong_one_is_named(
        self, llm: LLM, bad: Any, error: type[Exception], says: str
    ) -> None:
        with pytest.raises(error, match=says) as raised:
            llm.generate(["a", "b", bad, "c"], GREEDY, use_tqdm=False)
        assert "prompts[2]" in str(raised.value)
        with pytest.raises(error, match=says) as raised:
            llm.generate([bad], GREEDY, use_tqdm=False)
        assert "prompts[" not in str(raised.value)

    def test_messages_go_to_chat(self, llm: LLM) -> None:
        messages: list[Any] = [{"role": "user", "content": "hi"}]
        for prompts in (messages, [messages], ["a", messages]):
            with pytest.raises(TypeError, match="use chat"):
                llm.generate(prompts, GREEDY, use_tqdm=False)

    @pytest.mark.parametrize("params", [{"temperature": 0}, 0.5, "greedy", SamplingParams], ids=str)
    def test_sampling_params_that_are_none(self, llm: LLM, params: Any) -> None:
        for call in (llm.add_request, llm.generate):
            with pytest.raises(TypeError, match="sampling_params must be SamplingParams"):
                call("a", params)
        with pytest.raises(TypeError, match=r"sampling_params\[1\] must be SamplingParams"):
            llm.generate(["a", "b"], [GREEDY, params], use_tqdm=False)

    def test_text_that_is_not_unicode(self, llm: LLM) -> None:
        with pytest.raises(ValueError, match="surrogate"):
            llm.generate("\ud800", GREEDY, use_tqdm=False)

    def test_a_prompt_beyond_max_model_len(self, llm: LLM) -> None:
        limit = llm.config.max_model_len
        for length in (limit, limit + 1):
            with pytest.raises(ValueError, match=rf"{length} tokens.*{limit}"):
                llm.generate([[1] * length], GREEDY, use_tqdm=False)

    def test_a_prompt_beyond_the_cache(self, tiny_qwen3: str) -> None:
        llm = LLM(tiny_qwen3, num_kvcache_blocks=1)
        with pytest.raises(ValueError, match="num_kvcache_blocks"):
            llm.add_request([1] * 257, GREEDY)

    def test_one_bad_prompt_leaves_none_queued(self, llm: LLM) -> None:
        with pytest.raises(ValueError, match="empty"):
            llm.generate(["fine", "fine too", []], GREEDY, use_tqdm=False)
        assert llm.is_finished()

    @pytest.mark.parametrize("num_params", [0, 1, 3])
    def test_prompts_and_params_of_different_numbers(self, llm: LLM, num_params: int) -> None:
        with pytest.raises(ValueError, match=rf"2 prompts but {num_params} sampling"):
            llm.generate(["a", "b"], [GREEDY] * num_params, use_tqdm=False)

    def test_params_changed_after_they_were_made(self, llm: LLM) -> None:
        params = SamplingParams()
        params.max_tokens = 0
        with pytest.raises(ValueError, match="max_tokens"):
            llm.generate(["a"], params, use_tqdm=False)

    def test_a_template_that_refuses(self, llm: LLM) -> None:
        with pytest.raises(ChatTemplateError, match="not today"):
            llm.chat([{"role": "user", "content": "hi"}], chat_template="{{ raise_exception('not today') }}")
        with pytest.raises(ChatTemplateError, match="line 1"):
            llm.chat([{"role": "user", "content": "hi"}], chat_template="{% if %}")

    @pytest.mark.parametrize("messages", [[], [[]], None, {"role": "user", "content": "hi"}])
    def test_no_conversation(self, llm: LLM, messages: Any) -> None:
        with pytest.raises((TypeError, ValueError), match="conversation"):
            llm.chat(messages)
        assert llm.is_finished()

    @pytest.mark.parametrize(
        ("options", "says"),
        [
            ({"temperature": 0}, r"SamplingParams\(temperature=\.\.\.\)"),
            ({"max_tokens": 1}, r"SamplingParams\(max_tokens=\.\.\.\)"),
            ({"use_tqmd": False}, "use_tqmd.*did you mean 'use_tqdm'"),
            ({"skip_special_token": False}, "did you mean 'skip_special_tokens'"),
            ({"enable_thinkin": False}, "did you mean 'enable_thinking'"),
            ({"max_token": 5}, "did you mean 'max_tokens'"),
            ({"zebra": 5}, "zebra.*chat_template_kwargs"),
            ({"tokenize": False}, "tokenize"),
            ({"chat_template_kwargs": {"tools": []}}, "tools"),
            ({"chat_template_kwargs": {"enable_thinking": True}, "enable_thinking": True}, "enable_thinking"),
            ({"chat_template_kwargs": 5}, "chat_template_kwargs must be a dict, not int"),
        ],
        ids=str,
    )
    def test_chat_swallows_no_option(self, llm: LLM, options: dict[str, Any], says: str) -> None:
        options = {"chat_template": THINKING} | options
        with pytest.raises(TypeError, match=says):
            llm.chat([{"role": "user", "content": "hi"}], GREEDY, **options)

    def test_variables_of_the_template_reach_it(self, llm: LLM) -> None:
        messages = [{"role": "user", "content": "hi"}]

        def answer(**options: Any) -> list[int]:
            return llm.chat(messages, GREEDY, False, chat_template=THINKING, **options)[0]["token_ids"]

        expected = llm.generate("hi thinking", GREEDY, use_tqdm=False)[0]["token_ids"]
        assert answer(enable_thinking=True) == answer(chat_template_kwargs={"enable_thinking": True}) == expected
        # What the template does not use may be given, but not by mistake.
        assert answer(chat_template_kwargs={"zebra": 5}) == answer() != expected


@pytest.mark.parametrize("chunk_sizes", [[], [0, 3], [2], [4], [2**63, 2**63, 3]])
def test_chunks_that_do_not_add_up(tiny_qwen3: str, chunk_sizes: list[int]) -> None:
    runner = model_runner(tiny_qwen3, num_kvcache_blocks=1)
    with pytest.raises(ValueError, match="chunk_sizes"):
        runner.logits([1, 2, 3], chunk_sizes)


@pytest.mark.parametrize("call", [lambda r: r.logits([2**31]), lambda r: r.logits([1] * 257), lambda r: r.logits([])])
def test_logits_of_a_bad_prompt(tiny_qwen3: str, call: Callable[[_core.ModelRunner], object]) -> None:
    runner = model_runner(tiny_qwen3, num_kvcache_blocks=1)
    with pytest.raises(ValueError, match="token"):
        call(runner)
