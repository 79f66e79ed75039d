"""Every bad input is a typed exception that names the thing and the limit, and the engine stays usable."""

from __future__ import annotations

import json
import math
import re
import shutil
import struct
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nanovllm import LLM, SamplingParams, _core
from nanovllm.config import Config
from nanovllm.engine.sequence import Sequence
from nanovllm.exceptions import ChatTemplateError, ModelFormatError, ModelNotFoundError, UnsupportedModelError
from nanovllm.utils.hub import resolve_model
from runners import model_runner

GREEDY = SamplingParams(temperature=0, max_tokens=4, ignore_eos=True)
THINKING = "{% for m in messages %}{{ m.content }}{% endfor %}{% if enable_thinking %} thinking{% endif %}"


def gguf(version: int = 3, num_tensors: int = 0, num_metadata: int = 0, rest: bytes = b"") -> bytes:
    return b"GGUF" + struct.pack("<IQQ", version, num_tensors, num_metadata) + rest


class TestModelFiles:
    @pytest.mark.parametrize("name", ["no/such/folder/here", "/nowhere", "./nothing", "gone.gguf", "a/gone.gguf", ""])
    def test_a_missing_path(self, name: str) -> None:
        with pytest.raises(ModelNotFoundError) as error:
            LLM(name)
        assert name in str(error.value)
        assert isinstance(error.value, FileNotFoundError)

    @pytest.mark.parametrize(
        ("content", "says"),
        [
            (b"It was a dark and stormy night.", "not a GGUF file"),
            (b"", "GGUF"),
            (b"GGUF\x03", "truncated|bytes"),
            (gguf(version=99), "99"),
            (gguf(num_metadata=2**60), str(2**60)),
            (gguf(num_tensors=2**60), str(2**60)),
            (gguf(num_metadata=1, rest=struct.pack("<Q", 2**60)), "bytes"),
            (gguf(), "general.architecture"),
        ],
        ids=["text", "empty", "cut", "version", "metadata-count", "tensor-count", "string-length", "no-architecture"],
    )
    def test_a_bad_gguf(self, tmp_path: Path, content: bytes, says: str) -> None:
        path = tmp_path / "model.gguf"
        path.write_bytes(content)
        with pytest.raises(ModelFormatError, match=says):
            LLM(path)

    def test_a_path_beside_the_model_says_what_to_pass(self, copy_of_tiny: Path) -> None:
        for file in ("model.safetensors", "config.json"):
            with pytest.raises(
                ModelFormatError, match=f"{file} is a part of a checkpoint: give its directory, {copy_of_tiny}"
            ):
                LLM(copy_of_tiny / file)
        (copy_of_tiny / "model.safetensors").rename(copy_of_tiny / "model-Q8_0.gguf")
        with pytest.raises(ModelFormatError, match=r"pass the path of one, such as .*model-Q8_0\.gguf"):
            LLM(copy_of_tiny)
        (copy_of_tiny / "config.json").unlink()
        with pytest.raises(ModelNotFoundError, match=r"has no config\.json, but GGUF files .*model-Q8_0\.gguf"):
            LLM(copy_of_tiny)

    def test_settings_of_config_json(self, copy_of_tiny: Path, caplog: pytest.LogCaptureFixture) -> None:
        path = copy_of_tiny / "config.json"
        config = json.loads(path.read_text())
        path.write_text(json.dumps(config | {"attention_multiplier": 0.5, "partial_rotary_factor": 1.0}))
        LLM(copy_of_tiny, num_kvcache_blocks=1)
        assert caplog.text.count("attention_multiplier") == 1
        assert "partial_rotary_factor" not in caplog.text
        path.write_text(json.dumps(config | {"partial_rotary_factor": 0.5}))
        with pytest.raises(UnsupportedModelError, match=r"config\.json: unsupported: partial_rotary_factor 0\.5"):
            LLM(copy_of_tiny)

    def test_a_truncated_gguf(self, tmp_path: Path, demo_model: str) -> None:
        path = tmp_path / "model.gguf"
        whole = Path(demo_model).read_bytes()
        for size in (len(whole) // 2, len(whole) - 1, 100_000):
            path.write_bytes(whole[:size])
            with pytest.raises(ModelFormatError, match=r"model\.gguf"):
                LLM(path, num_kvcache_blocks=1)

    @pytest.mark.parametrize("header_size", [2**60, 2**63, 10**9, 0, 1])
    def test_a_safetensors_file_with_a_lying_header(self, copy_of_tiny: Path, header_size: int) -> None:
        path = copy_of_tiny / "model.safetensors"
        path.write_bytes(struct.pack("<Q", header_size) + path.read_bytes()[8:])
        with pytest.raises(ModelFormatError, match=r"model\.safetensors"):
            LLM(copy_of_tiny, num_kvcache_blocks=1)

    def test_a_safetensors_file_whose_offsets_lie(self, copy_of_tiny: Path) -> None:
        path = copy_of_tiny / "model.safetensors"
        header = json.dumps({"a": {"dtype": "F32", "shape": [2**31, 2**31], "data_offsets": [0, 2**60]}}).encode()
        path.write_bytes(struct.pack("<Q", len(header)) + header)
        with pytest.raises(ModelFormatError, match=r"model\.safetensors"):
            LLM(copy_of_tiny, num_kvcache_blocks=1)

    def test_a_truncated_safetensors_file(self, copy_of_tiny: Path) -> None:
        path = copy_of_tiny / "model.safetensors"
        path.write_bytes(path.read_bytes()[:-1])
        with pytest.raises(ModelFormatError, match=r"model\.safetensors"):
            LLM(copy_of_tiny, num_kvcache_blocks=1)

    def test_an_unsupported_tensor_type(self, copy_of_tiny: Path) -> None:
        path = copy_of_tiny / "model.safetensors"
        content = path.read_bytes()
        (size,) = struct.unpack("<Q", content[:8])
        # Same length: 4-byte integers in place of 4-byte floats.
        path.write_bytes(content[:8] + content[8 : 8 + size].replace(b'"F32"', b'"I32"') + content[8 + size :])
        with pytest.raises(UnsupportedModelError, match=r"(?s)I32.*F32, F16, F64, BF16"):
            LLM(copy_of_tiny, num_kvcache_blocks=1)

    def test_an_unsupported_architecture(self, copy_of_tiny: Path) -> None:
        change_config(copy_of_tiny, architectures=["MambaForCausalLM"], model_type="mamba")
        with pytest.raises(UnsupportedModelError, match=r"(?s)MambaForCausalLM.*Qwen3ForCausalLM"):
            LLM(copy_of_tiny)

    @pytest.mark.parametrize(
        "change",
        [
            {"hidden_size": -1},
            {"hidden_size": 2**60},
            {"hidden_size": "wide"},
            {"num_hidden_layers": 10**9},
            {"num_attention_heads": 0},
            {"num_key_value_heads": 3},
            {"vocab_size": 10**12},
            {"head_dim": 31},
            {"rms_norm_eps": "small"},
        ],
        ids=str,
    )
    def test_a_config_that_lies(self, copy_of_tiny: Path, change: dict[str, Any]) -> None:
        change_config(copy_of_tiny, **change)
        with pytest.raises((ModelFormatError, UnsupportedModelError)) as error:
            LLM(copy_of_tiny, num_kvcache_blocks=1)
        assert str(error.value)

    @pytest.mark.parametrize("name", ["config.json", "tokenizer.json"])
    def test_json_that_is_none(self, copy_of_tiny: Path, name: str) -> None:
        (copy_of_tiny / name).write_text('{"a": ')
        with pytest.raises(ModelFormatError, match=name):
            LLM(copy_of_tiny, num_kvcache_blocks=1)

    @pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors"])
    def test_a_directory_that_lacks_a_file(self, copy_of_tiny: Path, name: str) -> None:
        (copy_of_tiny / name).unlink()
        with pytest.raises((ModelNotFoundError, ModelFormatError)) as error:
            LLM(copy_of_tiny, num_kvcache_blocks=1)
        assert str(copy_of_tiny) in str(error.value)

    def test_a_repository_while_offline(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def offline(*_: object, **__: object) -> str:
            raise ConnectionError("no route to host")

        monkeypatch.setattr("huggingface_hub.snapshot_download", offline)
        monkeypatch.setattr("huggingface_hub.hf_hub_download", offline)
        for name in ("Qwen/Qwen3-0.6B", "Qwen/Qwen3-0.6B-GGUF:Qwen3-0.6B-Q8_0.gguf"):
            with pytest.raises(ModelNotFoundError, match=r"Qwen/Qwen3-0\.6B.*no route to host"):
                LLM(name)

    def test_config_errors_name_the_file(self, copy_of_tiny: Path) -> None:
        change_config(copy_of_tiny, num_attention_heads=0)
        with pytest.raises(ModelFormatError, match=re.escape(str(copy_of_tiny / "config.json"))):
            LLM(copy_of_tiny)

    def test_a_missing_tensor_names_the_model(self, copy_of_tiny: Path) -> None:
        change_config(copy_of_tiny, num_hidden_layers=9)
        with pytest.raises(ModelFormatError, match=re.escape(str(copy_of_tiny))):
            LLM(copy_of_tiny, num_kvcache_blocks=1)

    def test_an_empty_path_is_not_the_current_directory(
        self, copy_of_tiny: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(copy_of_tiny)
        for make in (LLM, Config):
            with pytest.raises(ModelNotFoundError, match="empty"):
                make("")
        assert Config(".").model == "."

    @pytest.mark.parametrize("model", [None, 5, b"model", ["model"]])
    def test_a_model_of_another_type(self, model: Any) -> None:
        for make in (LLM, Config):
            with pytest.raises(TypeError, match=f"model must be .*not {type(model).__name__}"):
                make(model)

    def test_a_home_that_nobody_has(self) -> None:
        with pytest.raises(ModelNotFoundError, match="~nosuchuser"):
            LLM("~nosuchuser/model")

    def test_a_directory_of_gguf_files_says_what_to_pass(self, tmp_path: Path) -> None:
        (tmp_path / "b.Q8_0.gguf").write_bytes(gguf())
        (tmp_path / "a.Q4_0.gguf").write_bytes(gguf())
        with pytest.raises(ModelNotFoundError, match=r"a\.Q4_0\.gguf, b\.Q8_0\.gguf") as error:
            LLM(tmp_path)
        assert str(tmp_path / "a.Q4_0.gguf") in str(error.value)

    @pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
    def test_a_part_of_a_checkpoint_says_what_to_pass(self, copy_of_tiny: Path, name: str) -> None:
        with pytest.raises(ModelFormatError, match=f"give its directory, {re.escape(str(copy_of_tiny))}$"):
            LLM(copy_of_tiny / name)

    def test_a_missing_repository_is_one_error(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def missing(*_: object, **__: object) -> str:
            raise ValueError("404 Client Error")

        monkeypatch.setattr("huggingface_hub.snapshot_download", missing)
        with pytest.raises(ModelNotFoundError, match="404 Client Error") as error:
            LLM("owner/name")
        assert error.value.__suppress_context__
        assert "During handling" not in "".join(traceback.format_exception(error.value))


class TestHub:
    def test_a_repository_is_fetched_once_resolved(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tiny_qwen3: str
    ) -> None:
        asked: list[tuple[object, ...]] = []

        def snapshot(repo_id: str, **_: object) -> str:
            asked.append((repo_id,))
            return tiny_qwen3

        def file(repo_id: str, filename: str) -> str:
            asked.append((repo_id, filename))
            return str(tmp_path / filename)

        monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot)
        monkeypatch.setattr("huggingface_hub.hf_hub_download", file)
        assert resolve_model("Qwen/Qwen3-0.6B") == tiny_qwen3
        assert resolve_model("a-b/c.d:e-Q4_0.gguf") == str(tmp_path / "e-Q4_0.gguf")
        assert asked == [("Qwen/Qwen3-0.6B",), ("a-b/c.d", "e-Q4_0.gguf")]

    def test_a_repository_without_safetensors(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *_, **__: str(tmp_path))
        with pytest.raises(UnsupportedModelError, match=r"owner/name:FILE\.gguf"):
            resolve_model("owner/name")


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


@given(st.floats() | st.integers())
def test_temperature_is_finite_and_not_negative(temperature: float) -> None:
    # float32 is what the engine computes with: larger than its largest is infinite.
    if 0 <= temperature < 3.4e38:
        assert SamplingParams(temperature=temperature).temperature == temperature
    elif not 3.4e38 <= temperature < 3.5e38:
        with pytest.raises(ValueError, match="temperature"):
            SamplingParams(temperature=temperature)


@given(st.integers())
def test_max_tokens_is_positive(max_tokens: int) -> None:
    if 1 <= max_tokens < 2**64:
        SamplingParams(max_tokens=max_tokens)
    else:
        with pytest.raises(ValueError, match="max_tokens"):
            SamplingParams(max_tokens=max_tokens)


@given(st.integers() | st.none())
def test_seed_is_64_bits(seed: int | None) -> None:
    if seed is None or 0 <= seed < 2**64:
        SamplingParams(seed=seed)
    else:
        with pytest.raises(ValueError, match="seed"):
            SamplingParams(seed=seed)


@pytest.mark.parametrize(
    "options",
    [{"temperature": "warm"}, {"temperature": None}, {"max_tokens": 2.0}, {"max_tokens": True}, {"ignore_eos": 1}],
    ids=str,
)
def test_sampling_params_of_another_type(options: dict[str, Any]) -> None:
    (name,) = options
    with pytest.raises(TypeError, match=name):
        SamplingParams(**options)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("max_num_batched_tokens", [0, -1, 1.5, "many", True]),
        ("max_num_seqs", [0, -1, None]),
        ("max_model_len", [0, -4096]),
        ("gpu_memory_utilization", [0, -0.1, 1.01, math.nan, math.inf, "all"]),
        ("tensor_parallel_size", [0, 2, 9]),
        ("kvcache_block_size", [0, 255, 300, -256]),
        ("num_kvcache_blocks", [0, -2, 2.5]),
        ("device", ["cuda", "", None]),
        ("num_threads", [0, -1, "two"]),
        ("activation_bits", [0, 4, 15, "16", True]),
        ("isa", ["sse9", "", 5]),
        ("kv_cache_dtype", ["int8", "", None]),
        ("seed", [-1, 2**64, 0.5]),
    ],
)
def test_options_outside_their_limits(tiny_qwen3: str, name: str, values: list[Any]) -> None:
    for value in values:
        with pytest.raises(ValueError, match=name if name != "isa" else "instruction set"):
            LLM(tiny_qwen3, **{"num_kvcache_blocks": 1, name: value})


@pytest.mark.parametrize("isa", _core.instruction_sets())
def test_an_instruction_set_that_is_absent(tiny_qwen3: str, isa: str) -> None:
    if _core.instruction_sets()[isa]:
        pytest.skip("this machine has it")
    with pytest.raises(ValueError, match=f"this machine does not have the instruction set {isa}"):
        LLM(tiny_qwen3, num_kvcache_blocks=1, isa=isa)


def test_instruction_sets_that_there_have_always_been() -> None:
    assert {"scalar", "avx2", "avx-vnni", "avx512", "avx512-bf16"} <= set(_core.instruction_sets())
    assert _core.instruction_sets()["scalar"]


@given(
    name=st.sampled_from(["max_num_batched_tokens", "max_num_seqs", "max_model_len", "num_threads", "seed"]),
    value=st.integers(),
)
def test_integer_options_are_taken_or_named(name: str, value: int) -> None:
    model = str(Path(__file__).parent / "golden" / "tiny_qwen3")
    if (0 if name == "seed" else 1) <= value < 2**63:
        Config(model, **{name: value})
    elif value < 0 or value >= 2**64:
        with pytest.raises(ValueError, match=name):
            Config(model, **{name: value})


def test_an_instruction_set_is_one_of_this_machine(tiny_qwen3: str) -> None:
    for name, is_available in _core.instruction_sets().items():
        with pytest.raises(ValueError, match="instruction set of this machine") as error:
            LLM(tiny_qwen3, num_kvcache_blocks=1, isa=5)
        assert (repr(name) in str(error.value)) == is_available


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"max_tokens": -1}, "max_tokens must be between 1 and"),
        ({"max_tokens": 0}, "max_tokens must be at least 1"),
        ({"temperature": 1e39}, r"temperature must be between 0 .* 3\.4e38 .*1e\+?39"),
        ({"temperature": -1}, "temperature must be between 0"),
    ],
    ids=str,
)
def test_sampling_params_say_their_limits(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        SamplingParams(**options)


def test_numbers_of_numpy_are_numbers(tiny_qwen3: str) -> None:
    integers = {name: np.int32(value) for name, value in {"max_num_seqs": 3, "num_threads": 1, "seed": 7}.items()}
    for share in (np.float32(0.5), np.float64(0.5)):
        llm = LLM(tiny_qwen3, num_kvcache_blocks=np.int64(2), gpu_memory_utilization=share, **integers)
        assert llm.config == Config(
            tiny_qwen3,
            eos=llm.config.eos,
            num_kvcache_blocks=2,
            gpu_memory_utilization=0.5,
            max_num_seqs=3,
            num_threads=1,
            seed=7,
        )
        assert type(llm.config.max_num_seqs) is int
        params = SamplingParams(temperature=np.float32(0), max_tokens=np.int64(3), seed=np.uint64(1))  # type: ignore[arg-type]
        assert len(llm.generate([np.array([1, 2])], params, use_tqdm=False)[0]["token_ids"]) <= 3  # type: ignore[list-item]
    for value in (np.bool_(True), np.float32(2)):
        with pytest.raises(ValueError, match="max_num_seqs"):
            Config(tiny_qwen3, max_num_seqs=value)


def test_a_kv_cache_of_twice_the_memory(tiny_qwen3: str) -> None:
    total, _, _ = _core.memory(device="cpu")
    block_bytes = LLM(tiny_qwen3, num_kvcache_blocks=1)._engine.kv_cache_bytes
    num_blocks = 2 * total // block_bytes
    with pytest.raises((MemoryError, ValueError), match=rf"num_kvcache_blocks.*{num_blocks}") as error:
        LLM(tiny_qwen3, num_kvcache_blocks=num_blocks)
    if num_blocks < 2**31 // 256:  # else the slots are too many for any memory
        assert isinstance(error.value, MemoryError)
        assert str(num_blocks * block_bytes) in str(error.value)
    # And where memory is what is short: one block of many tokens.
    size = 256 * (2**30 // 256)
    if total < block_bytes // 256 * size:
        with pytest.raises(MemoryError, match=rf"num_kvcache_blocks is 1,.*{block_bytes // 256 * size} bytes"):
            LLM(tiny_qwen3, num_kvcache_blocks=1, kvcache_block_size=size)


def test_a_kv_cache_beyond_all_memory(tiny_qwen3: str) -> None:
    with pytest.raises((MemoryError, ValueError)) as error:
        LLM(tiny_qwen3, num_kvcache_blocks=2**62)
    assert str(error.value)


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


@pytest.fixture
def copy_of_tiny(tmp_path: Path, tiny_qwen3: str) -> Path:
    return Path(shutil.copytree(tiny_qwen3, tmp_path / "model"))


def change_config(model: Path, **changes: Any) -> None:
    path = model / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
