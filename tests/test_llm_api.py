"""The interface nano-vLLM's users call, and what we add to it."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import io
import pickle
import pydoc
import re
import threading
from array import array
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from nanovllm import LLM, SamplingParams, __version__, _core
from nanovllm.config import Config, HfConfig

GREEDY = SamplingParams(temperature=0, max_tokens=8, ignore_eos=True)
PROMPTS = ["Alice was beginning", "to get very tired of sitting by her sister", "on the bank"]


def names_and_defaults(cls: type) -> list[tuple[str, object]]:
    return [(field.name, field.default) for field in dataclasses.fields(cls)]


def test_sampling_params_begin_with_nano_vllms_fields() -> None:
    ours = names_and_defaults(SamplingParams)
    assert ours[:3] == [("temperature", 1.0), ("max_tokens", 64), ("ignore_eos", False)]
    assert all(default is not dataclasses.MISSING for _, default in ours)


def test_config_begins_with_nano_vllms_fields() -> None:
    assert names_and_defaults(Config)[:11] == [
        ("model", dataclasses.MISSING),
        ("max_num_batched_tokens", 16384),
        ("max_num_seqs", 512),
        ("max_model_len", 4096),
        ("gpu_memory_utilization", 0.9),
        ("tensor_parallel_size", 1),
        ("enforce_eager", False),
        ("hf_config", None),
        ("eos", -1),
        ("kvcache_block_size", 256),
        ("num_kvcache_blocks", -1),
    ]


def test_generate_begins_with_nano_vllms_parameters() -> None:
    assert list(inspect.signature(LLM.generate).parameters)[:4] == ["self", "prompts", "sampling_params", "use_tqdm"]


def test_sampling_options_cross_whole() -> None:
    """The dataclass has exactly the engine's fields and defaults, and an object without ours has their defaults."""
    # How a stream is cut is Python's own.
    assert dict(names_and_defaults(SamplingParams)) == _core.sampling_defaults() | {"output_kind": None}
    nanos = SimpleNamespace(temperature=0.5, max_tokens=3, ignore_eos=True)
    _core.check_sampling_params(nanos)
    nanos.seed = "seven"
    with pytest.raises(TypeError, match="seed"):
        _core.check_sampling_params(nanos)
    del nanos.max_tokens
    with pytest.raises(AttributeError, match="max_tokens"):
        _core.check_sampling_params(nanos)


def test_a_models_files_are_opened_once(tiny_qwen3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """`Config` opens them and the engine made of it takes them over; a copy has none, and an engine opens its own."""
    opened: list[str] = []

    def count(path: str) -> _core.Checkpoint:
        opened.append(path)
        return _core.Checkpoint(path)

    monkeypatch.setattr("nanovllm.config._core", SimpleNamespace(Checkpoint=count, device_names=_core.device_names))
    config = Config(tiny_qwen3)
    assert opened == [tiny_qwen3]
    copied = copy.deepcopy(config.hf_config)
    assert copied == config.hf_config == pickle.loads(pickle.dumps(config.hf_config))  # noqa: S301 - our own
    assert copied.take_checkpoint() is None
    checkpoint = config.hf_config.take_checkpoint()
    assert isinstance(checkpoint, _core.Checkpoint)
    assert config.hf_config.take_checkpoint() is None
    runners = [_core.ModelRunner(SimpleNamespace(model=tiny_qwen3, num_kvcache_blocks=1), checkpoint) for _ in range(2)]
    first, second = (runner.logits([1, 2, 3]) for runner in runners)
    assert np.array_equal(first, second)


def test_version_is_the_distributions() -> None:
    import importlib.metadata

    assert __version__ == importlib.metadata.version("nanovllm-rs")


def test_generate_answers_in_the_order_of_the_prompts(tiny_model: str) -> None:
    llm = LLM(tiny_model, num_kvcache_blocks=16)
    lengths = [9, 1, 5]
    params = [SamplingParams(temperature=0, max_tokens=n, ignore_eos=True) for n in lengths]
    together = llm.generate(PROMPTS, params, use_tqdm=False)
    assert [len(output["token_ids"]) for output in together] == lengths
    for prompt, param, output in zip(PROMPTS, params, together, strict=True):
        (alone,) = llm.generate([prompt], param, use_tqdm=False)
        assert alone["token_ids"] == output["token_ids"]
        assert output["num_prompt_tokens"] == len(llm.tokenizer.encode(prompt))
        assert output["finish_reason"] == "length"
        assert output["text"] == llm.tokenizer.decode(output["token_ids"])


def test_ids_and_text_are_the_same_prompt(llm: LLM) -> None:
    text = PROMPTS[1]
    ids = llm.tokenizer.encode(text)
    forms = [[text], [ids], [tuple(ids)], [np.array(ids)], text, ids, np.array(ids)]
    answers = [llm.generate(form, GREEDY, use_tqdm=False) for form in forms]
    assert all(answer == answers[0] for answer in answers)
    assert len(answers[0]) == 1


class Ids:
    """Token ids that can be iterated, and no more."""

    def __iter__(self) -> Iterator[int]:
        return iter((1, 2, 3))


class Rows:
    """Prompts that can be indexed, and no more."""

    def __getitem__(self, at: int) -> list[int]:
        if at > 1:
            raise IndexError(at)
        return [1, 2, 3]


@pytest.mark.parametrize("use_tqdm", [False, True])
def test_prompts_are_whatever_can_be_iterated(llm: LLM, use_tqdm: bool) -> None:
    expected = llm.generate([[1, 2, 3]], GREEDY, use_tqdm=False)[0]["token_ids"]
    for prompts in ([Ids(), Ids()], (iter([1, 2, 3]) for _ in range(2)), Rows(), array("I", [1, 2, 3]), np.full(3, 1)):
        outputs = llm.generate(prompts, GREEDY, use_tqdm)  # type: ignore[arg-type]
        if not isinstance(prompts, np.ndarray):
            assert {tuple(output["token_ids"]) for output in outputs} == {tuple(expected)}


def test_no_prompts_no_answers(llm: LLM) -> None:
    assert llm.generate([], GREEDY, use_tqdm=False) == []


def test_params_default_to_the_defaults(llm: LLM) -> None:
    (output,) = llm.generate(PROMPTS[:1], use_tqdm=False)
    assert 1 <= len(output["token_ids"]) <= 64


def test_a_seed_fixes_the_draw_whatever_else_runs(llm: LLM) -> None:
    seeded = SamplingParams(temperature=1.0, max_tokens=16, ignore_eos=True, seed=7)
    free = SamplingParams(temperature=1.0, max_tokens=16, ignore_eos=True)
    (alone,) = llm.generate(PROMPTS[:1], seeded, use_tqdm=False)
    among = llm.generate(PROMPTS[:1] * 4, [free, seeded, free, seeded], use_tqdm=False)
    assert among[1]["token_ids"] == among[3]["token_ids"] == alone["token_ids"]
    assert among[0]["token_ids"] != among[2]["token_ids"]


def test_the_same_engine_seed_gives_the_same_run(tiny_qwen3: str) -> None:
    params = SamplingParams(max_tokens=16, ignore_eos=True)
    runs = [
        LLM(tiny_qwen3, num_kvcache_blocks=16, seed=seed).generate(PROMPTS, params, use_tqdm=False)
        for seed in (1, 1, 2)
    ]
    assert runs[0] == runs[1] != runs[2]


def test_a_long_shared_prefix_is_computed_once(llm: LLM) -> None:
    prefix = [i % 200 for i in range(600)]
    prompts = [[*prefix, i] for i in range(3)]
    first = llm.generate(prompts[:1], GREEDY, use_tqdm=False)
    before = llm.stats()["num_prefilled_tokens"]
    rest = llm.generate(prompts, GREEDY, use_tqdm=False)
    assert [output["num_cached_tokens"] for output in rest] == [512] * 3
    assert llm.stats()["num_prefilled_tokens"] - before == 3 * (601 - 512)
    assert rest[0]["token_ids"] == first[0]["token_ids"]


def test_add_request_and_step_as_nano_vllm_has_them(llm: LLM) -> None:
    seq_ids = [llm.add_request(prompt, GREEDY) for prompt in PROMPTS]
    num_prompt_tokens = sum(len(llm.tokenizer.encode(prompt)) for prompt in PROMPTS)
    outputs, num_tokens = llm.step()
    assert (outputs, num_tokens) == ([], num_prompt_tokens)
    finished: dict[int, list[int]] = {}
    while not llm.is_finished():
        outputs, num_tokens = llm.step()
        assert num_tokens == -len(PROMPTS)
        finished.update(outputs)
    expected = llm.generate(PROMPTS, GREEDY, use_tqdm=False)
    assert [finished[seq_id] for seq_id in seq_ids] == [output["token_ids"] for output in expected]
    assert llm.step() == ([], 0)


def test_generate_leaves_other_requests_to_step(llm: LLM) -> None:
    other = llm.add_request(PROMPTS[0], SamplingParams(temperature=0, max_tokens=2, ignore_eos=True))
    (mine,) = llm.generate(PROMPTS[1:2], GREEDY, use_tqdm=False)
    assert len(mine["token_ids"]) == 8
    assert not llm.is_finished()
    ((seq_id, token_ids),), num_tokens = llm.step()
    assert (seq_id, len(token_ids), num_tokens) == (other, 2, 0)


def test_abort_frees_the_sequence(llm: LLM) -> None:
    seq_id = llm.add_request([1] * 300, GREEDY)
    llm.step()
    assert llm.stats()["num_free_blocks"] == 14
    assert llm.abort(seq_id)
    assert not llm.abort(seq_id)


def test_two_threads_generate_on_one_engine(llm: LLM) -> None:
    expected = [llm.generate(prompt, GREEDY, use_tqdm=False) for prompt in PROMPTS]
    results: dict[int, list[object]] = {}

    def work(i: int) -> None:
        results[i] = [llm.generate(PROMPTS[i], GREEDY, use_tqdm=False) for _ in range(20)]

    threads = [threading.Thread(target=work, args=(i,)) for i in range(len(PROMPTS))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert not any(thread.is_alive() for thread in threads)
    assert all(results[i] == [expected[i]] * 20 for i in range(len(PROMPTS)))


def test_many_threads_share_one_engine(llm: LLM) -> None:
    """Whoever waits drives; a thread whose call is refused, or whose sequence another one drops, holds up nobody."""
    expected = {n: llm.generate([[n, n + 1]], GREEDY, use_tqdm=False)[0]["token_ids"] for n in range(16)}
    problems: list[object] = []

    def caller(n: int) -> None:
        for round_ in range(6):
            if round_ % 3 == 2:
                with pytest.raises(ValueError, match="empty"):
                    llm.generate([[n, n + 1], []], GREEDY, use_tqdm=False)
            answer = llm.generate([[n, n + 1]], GREEDY, use_tqdm=False)[0]["token_ids"]
            if answer != expected[n]:
                problems.append((n, answer))
            llm.abort(llm.add_request([n], SamplingParams(max_tokens=1000, ignore_eos=True)))

    threads = [threading.Thread(target=caller, args=(n,)) for n in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads)
    assert problems == []


def test_progress_shows_both_speeds(llm: LLM, capsys: pytest.CaptureFixture[str]) -> None:
    llm.generate(PROMPTS, GREEDY)
    shown = capsys.readouterr().err
    assert "Generating" in shown
    assert "Prefill=" in shown
    assert "Decode=" in shown
    llm.generate(PROMPTS, GREEDY, use_tqdm=False)
    assert capsys.readouterr().err == ""


class Terminal(io.StringIO):
    """Text that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def shown_in(terminal: Terminal) -> list[float]:
    """The percentages that a bar went through, each once."""
    shown = [float(number) for number in re.findall(r"Generating: +(\d+)%", terminal.getvalue())]
    return list(dict.fromkeys(shown))


def test_progress_elsewhere_than_on_a_terminal_is_one_line(llm: LLM, capsys: pytest.CaptureFixture[str]) -> None:
    llm.generate(PROMPTS, GREEDY)
    shown = capsys.readouterr().err
    num_prompt_tokens = sum(len(llm.tokenizer.encode(prompt)) for prompt in PROMPTS)
    assert shown.count("\n") == 1
    assert "\r" not in shown
    assert re.search(rf"3/3 prompts.*; {num_prompt_tokens} prompt tokens, 24 new tokens in", shown)
    with pytest.raises(ValueError, match="empty"):
        llm.generate([[]])
    assert llm.generate([]) == []
    assert capsys.readouterr().err == ""


def test_the_bar_moves_with_tokens(demo_model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One prompt alone moves it: by its own tokens, within the one step that computes them, and by its answer's."""
    prompt = [i % 1000 for i in range(1536)]
    with LLM(demo_model, num_kvcache_blocks=9) as llm:
        monkeypatch.setattr("sys.stderr", terminal := Terminal())
        llm.generate([prompt], SamplingParams(temperature=0, max_tokens=700, ignore_eos=True))
        assert llm.stats()["num_steps"] == 700
    shown = shown_in(terminal)
    assert shown == sorted(shown)
    assert shown[-1] == 100
    assert [number for number in shown if 0 < number < 68], "within the first step"
    assert [number for number in shown if 69 < number < 100], "while the answer comes"
    assert "1/1 prompts" in terminal.getvalue()


def test_a_bar_is_full_at_the_end_though_answers_are_short(llm: LLM, monkeypatch: pytest.MonkeyPatch) -> None:
    eos = SamplingParams(temperature=0, max_tokens=3000)
    expected = llm.generate(PROMPTS, GREEDY, use_tqdm=False)
    monkeypatch.setattr("sys.stderr", terminal := Terminal())
    params = [GREEDY, SamplingParams(temperature=0, max_tokens=8, ignore_eos=True), eos]
    outputs = llm.generate(PROMPTS, params)
    assert outputs[0] == expected[0]
    assert shown_in(terminal)[-1] == 100
    assert shown_in(terminal) == sorted(shown_in(terminal))


def test_help_shows_every_option() -> None:
    """The signature and the documentation of `LLM` name each field of `Config`, with its default and its meaning."""
    parameters = inspect.signature(LLM).parameters
    options = {field.name: field.default for field in dataclasses.fields(Config)}
    assert list(parameters) == [*options, "kwargs"]
    assert [parameters[name].default for name in list(options)[1:]] == list(options.values())[1:]
    assert parameters["model"].kind is inspect.Parameter.POSITIONAL_OR_KEYWORD
    text = pydoc.render_doc(LLM, renderer=pydoc.plaintext)
    for name in options:
        assert re.search(rf"^ \|\s+{name}: \S+", text, re.MULTILINE), name
    assert "**kwargs: An unknown argument is ignored" in text

    class Mine(LLM):
        def __init__(self, size: int) -> None:
            pass

    assert list(inspect.signature(Mine).parameters) == ["size"]


def test_a_block_closes_the_engine(tiny_qwen3: str) -> None:
    with LLM(tiny_qwen3, num_kvcache_blocks=3) as llm:
        assert isinstance(llm, LLM)
        assert len(llm.generate("a", GREEDY, use_tqdm=False)) == 1
    with pytest.raises(RuntimeError, match=r"exit\(\)"):
        llm.generate("a", GREEDY)
    with pytest.raises(KeyError), LLM(model=tiny_qwen3, num_kvcache_blocks=1) as llm:
        raise KeyError
    assert "closed" in repr(llm)


def test_repr_says_model_device_and_memory(tiny_qwen3: str) -> None:
    llm = LLM(tiny_qwen3, num_kvcache_blocks=64, num_threads=1)
    size = llm._engine.kv_cache_bytes
    config = llm.config.hf_config
    heads = 2 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim
    assert size == 64 * 256 * heads * 4  # a float32 checkpoint
    for part in (tiny_qwen3, llm.description, "64 blocks of 256 tokens", f"{size / 2**20:.1f} MiB"):
        assert part in repr(llm)


def test_unknown_arguments_are_named(tiny_qwen3: str) -> None:
    with pytest.warns(UserWarning, match="gpu_memory_utilisation.*did you mean 'gpu_memory_utilization'"):
        LLM(tiny_qwen3, num_kvcache_blocks=1, gpu_memory_utilisation=0.5)


def test_config_is_completed_from_the_model(llm: LLM) -> None:
    config = llm.config
    assert config.eos == llm.tokenizer.eos_token_id
    assert config.num_kvcache_blocks == 16
    assert isinstance(config.hf_config, HfConfig)
    assert config.hf_config.model_type == "qwen3"
    assert config.max_model_len <= config.hf_config.max_position_embeddings
    assert pickle.loads(pickle.dumps(config)) == config  # noqa: S301 (our own bytes)
    with pytest.raises(AttributeError, match="no_such_key"):
        _ = config.hf_config.no_such_key


def test_exit_is_final_and_may_be_repeated(tiny_qwen3: str) -> None:
    llm = LLM(tiny_qwen3, num_kvcache_blocks=1)
    llm.exit()
    llm.exit()
    with pytest.raises(RuntimeError, match=r"exit\(\)"):
        llm.generate(PROMPTS, GREEDY)


def test_a_path_object_is_a_model(tiny_qwen3: str) -> None:
    assert LLM(Path(tiny_qwen3), num_kvcache_blocks=1).config.model == tiny_qwen3
