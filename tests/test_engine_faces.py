"""Model runners and live engines as nano-vLLM's programs use them, and steps taken by hand."""

from __future__ import annotations

import copy
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import pytest

from conftest import GOLDEN
from engine_faces import GREEDY, PROMPTS, class_attributes, through_pickle
from nanovllm import LLM, SamplingParams, _core
from nanovllm.config import Config
from nanovllm.engine.model_runner import ModelRunner
from nanovllm.engine.scheduler import Scheduler
from nanovllm.engine.sequence import Sequence
from nanovllm.exceptions import PreconditionError
from nanovllm.models.qwen3 import Qwen3ForCausalLM
from nanovllm.utils.context import Context, get_context
from nanovllm.utils.loader import load_model

__all__ = ["class_attributes"]
"""The fixture that every test here runs under."""


def generate_by_hand(scheduler: Scheduler, runner: ModelRunner) -> None:
    while not scheduler.is_finished():
        seqs, is_prefill = scheduler.schedule()
        scheduler.postprocess(seqs, runner.call("run", seqs, is_prefill), is_prefill)


def test_steps_by_hand_answer_as_generate_does(llm: LLM) -> None:
    expected = [output["token_ids"] for output in llm.generate(PROMPTS, GREEDY, use_tqdm=False)]
    mine = Sequence(PROMPTS[0], GREEDY)
    llm.scheduler.add(mine)
    ids = [llm.add_request(prompt, GREEDY) for prompt in PROMPTS[1:]]
    queued = list(llm.scheduler.waiting)
    assert [seq.seq_id for seq in queued] == [mine.seq_id, *ids]
    assert queued[0] is mine
    generate_by_hand(llm.scheduler, llm.model_runner)
    assert [seq.completion_token_ids for seq in queued] == expected
    assert llm.is_finished()
    assert llm.step() == ([], 0)


def test_a_sequence_added_by_hand_takes_part(llm: LLM) -> None:
    expected = [output["token_ids"] for output in llm.generate(PROMPTS, GREEDY, use_tqdm=False)]
    seq = Sequence(PROMPTS[0], GREEDY)
    llm.scheduler.add(seq)
    outputs = llm.generate(PROMPTS[1:], GREEDY, use_tqdm=False)
    assert [output["token_ids"] for output in outputs] == expected[1:]
    assert llm.step()[0] == [(seq.seq_id, expected[0])]
    assert (seq.completion_token_ids, seq.is_finished) == (expected[0], True)
    again = Sequence(PROMPTS[1], GREEDY)
    llm.scheduler.add(again)
    assert llm.abort(again.seq_id)
    assert (again.token_ids, again.is_finished) == (PROMPTS[1], False)


def test_an_engine_checks_sequences_by_hand(llm: LLM) -> None:
    assert llm.config.hf_config is not None
    vocab_size = llm.config.hf_config.vocab_size
    for seq in (Sequence([vocab_size]), Sequence([1] * llm.config.max_model_len)):
        with pytest.raises(ValueError, match=r"token|max_model_len"):
            llm.scheduler.add(seq)
        assert seq.num_tokens > 0, "it still has its data"
    llm.scheduler.add(Sequence([1, 2], GREEDY))
    seqs, is_prefill = llm.scheduler.schedule()
    with pytest.raises(ValueError, match="vocabulary"):
        llm.scheduler.postprocess(seqs, [vocab_size], is_prefill)
    with pytest.raises(RuntimeError, match="in use"):
        llm.model_runner._runner.logits([1])
    assert llm.abort(seqs[0].seq_id)


def test_the_views_of_an_engine_end_with_it(tiny_qwen3: str) -> None:
    llm = LLM(tiny_qwen3, num_kvcache_blocks=4, num_threads=1)
    scheduler, runner, seq = llm.scheduler, llm.model_runner, Sequence(PROMPTS[0])
    scheduler.add(seq)
    assert llm.scheduler is scheduler
    scheduler.schedule()
    llm.exit()
    assert (seq.token_ids, seq.block_table) == (PROMPTS[0], [])
    calls: list[Callable[[], object]] = [
        lambda: scheduler.waiting,
        lambda: scheduler.add(seq),
        lambda: scheduler.block_manager.free_block_ids,
        lambda: runner.run([seq], True),
        runner.warmup_model,
        llm.step,
        lambda: llm.add_request([1]),
    ]
    for call in calls:
        with pytest.raises(RuntimeError, match="exit"):
            call()
    llm.exit()


def test_a_runner_of_its_own(tiny_qwen3: str) -> None:
    llm = LLM(tiny_qwen3, num_kvcache_blocks=4, num_threads=1)
    expected = [output["token_ids"] for output in llm.generate(PROMPTS, GREEDY, use_tqdm=False)]
    llm.exit()
    settings = Config(tiny_qwen3, num_kvcache_blocks=4, num_threads=1, max_num_batched_tokens=5, eos=-1)
    runner, scheduler = ModelRunner(settings), Scheduler(settings)
    runner.warmup_model()
    seqs = [Sequence(prompt, GREEDY) for prompt in PROMPTS]
    for seq in seqs:
        scheduler.add(seq)
    while not scheduler.is_finished():
        batch, is_prefill = scheduler.schedule()
        input_ids, positions = runner.prepare_prefill(batch) if is_prefill else runner.prepare_decode(batch)
        logits = runner.run_model(input_ids, positions, is_prefill)
        assert (logits.shape, logits.dtype) == ((len(batch), settings.hf_config.vocab_size), np.float32)
        token_ids = runner.run(batch, is_prefill)
        assert logits.argmax(axis=1).tolist() == token_ids
        assert get_context() == Context()
        scheduler.postprocess(batch, token_ids, is_prefill)
    assert [seq.completion_token_ids for seq in seqs] == expected
    calls: list[tuple[Callable[[], object], type[Exception]]] = [
        (lambda: runner.run([Sequence([1])], True), ValueError),
        (lambda: runner.run(seqs, False), ValueError),
        (lambda: runner.run([1], True), TypeError),  # type: ignore[list-item]
        (lambda: runner.run_model([1], [0], True), ValueError),
        (lambda: runner.call("walk"), AttributeError),
        (lambda: ModelRunner(settings, 1), ValueError),
    ]
    for call, error in calls:
        with pytest.raises(error):
            call()
    runner.exit()
    with pytest.raises(RuntimeError, match="exit"):
        runner.run(seqs, False)


def test_the_size_of_the_cache_is_filled_in(tiny_qwen3: str) -> None:
    settings = Config(tiny_qwen3, max_num_seqs=2, max_model_len=512, num_threads=1)
    with pytest.raises(ValueError, match="num_kvcache_blocks"):
        Scheduler(settings)
    ModelRunner(settings).exit()
    assert settings.num_kvcache_blocks == 4
    assert len(Scheduler(settings).block_manager.blocks) == 4


def prepared(seqs: list[Sequence], *, is_prefill: bool) -> tuple[list[np.ndarray], Context]:
    """The arrays and the context that a runner prepares, for which it needs no model."""
    runner = ModelRunner.__new__(ModelRunner)
    arrays = runner.prepare_prefill(seqs) if is_prefill else runner.prepare_decode(seqs)
    return list(arrays), get_context()


def test_inputs_have_nano_vllms_types() -> None:
    first, second = Sequence(range(10, 21)), Sequence([5, 6])
    first.num_cached_tokens, first.num_scheduled_tokens, first.block_table = 4, 6, [7, 2, 5]
    second.num_scheduled_tokens, second.block_table = 2, [1]
    arrays, context = prepared([first, second], is_prefill=True)
    assert [(array.dtype, array.tolist()) for array in arrays] == [
        (np.int64, [14, 15, 16, 17, 18, 19, 5, 6]),
        (np.int64, [4, 5, 6, 7, 8, 9, 0, 1]),
    ]
    assert (context.is_prefill, context.max_seqlen_q, context.max_seqlen_k, context.context_lens) == (True, 6, 10, None)
    for array, expected in (
        (context.cu_seqlens_q, [0, 6, 8]),
        (context.cu_seqlens_k, [0, 10, 12]),
        (context.slot_mapping, [8, 9, 10, 11, 20, 21, 4, 5]),
        (context.block_tables, [[7, 2, 5], [1, -1, -1]]),
    ):
        assert (array.dtype, array.tolist()) == (np.int32, expected)
    first.num_cached_tokens = 10
    arrays, context = prepared([first, second], is_prefill=False)
    assert [(array.dtype, array.tolist()) for array in arrays] == [(np.int64, [20, 6]), (np.int64, [10, 1])]
    assert (context.slot_mapping.tolist(), context.context_lens.tolist()) == ([22, 5], [11, 2])
    assert context.context_lens.dtype == context.slot_mapping.dtype == context.block_tables.dtype == np.int32
    first.temperature = 0.25
    temperatures = _core.prepare_sample([first, second])
    assert (temperatures.dtype, temperatures.tolist()) == (np.float32, [0.25, 1.0])


def test_graph_batch_sizes_are_nano_vllms() -> None:
    for max_num_seqs in (1, 20, 512, 2000):
        expected = [1, 2, 4, 8, *range(16, min(max_num_seqs, 512) + 1, 16)]
        assert _core.graph_batch_sizes(max_num_seqs) == expected
        for num_seqs in range(1, expected[-1] + 1):
            assert _core.graph_batch_size(expected, num_seqs) == next(n for n in expected if n >= num_seqs)
        assert _core.graph_batch_size(expected, expected[-1] + 1) is None


def test_a_models_config_is_complete(tiny_qwen3: str) -> None:
    config = Config(tiny_qwen3).hf_config
    assert config is not None
    names = "attention_bias head_dim hidden_act max_position_embeddings num_key_value_heads rms_norm_eps rope_theta"
    assert all(getattr(config, name) is not None for name in (*names.split(), "tie_word_embeddings", "vocab_size"))
    assert config.dtype == config.torch_dtype == "float32"
    assert copy.deepcopy(config) == through_pickle(config) == config


def test_any_object_with_nano_vllms_fields_will_do(tiny_qwen3: str, llm: LLM) -> None:
    own = Config(tiny_qwen3, num_kvcache_blocks=4)
    fields = "model max_num_batched_tokens max_num_seqs max_model_len gpu_memory_utilization tensor_parallel_size"
    names = f"{fields} enforce_eager hf_config eos kvcache_block_size num_kvcache_blocks".split()
    runner = ModelRunner(SimpleNamespace(**{name: getattr(own, name) for name in names}))
    assert 1 in runner.graph_bs
    runner.exit()
    params = SimpleNamespace(temperature=0.0, max_tokens=3, ignore_eos=True)
    expected = llm.generate([[1, 2]], SamplingParams(temperature=0, max_tokens=3, ignore_eos=True), use_tqdm=False)
    assert llm.generate([[1, 2]], params, use_tqdm=False) == expected
    assert llm.generate([[1, 2]], [params], use_tqdm=False) == expected


@pytest.mark.parametrize("name", ["tiny_qwen3", "tiny_llama"])
def test_a_model_is_made_from_its_own_config(name: str) -> None:
    """nano-vLLM's own line, with what transformers 5 nests: `rope_parameters` is a dict."""
    config = Config(str(GOLDEN / name)).hf_config
    assert config is not None
    assert isinstance(getattr(config, "rope_parameters", {}), dict)
    model = Qwen3ForCausalLM(config)
    load_model(model, str(GOLDEN / name))
    assert model.get_parameter("model.norm.weight").shape == (config.hidden_size,)


def test_a_pickled_sequence_cannot_be_scheduled(llm: LLM) -> None:
    copied = through_pickle(Sequence([1, 2, 3], SamplingParams(temperature=0, max_tokens=2)))
    with pytest.raises(PreconditionError, match="pickled"):
        llm.scheduler.add(copied)
    assert llm.is_finished()


def test_snapshots_can_be_copied(llm: LLM) -> None:
    seq = Sequence([1, 2, 3])
    seq.block_table = [4, 5]
    for snapshot in (through_pickle(seq.block_table), copy.copy(seq.block_table), copy.deepcopy(seq.block_table)):
        snapshot.append(6)
        assert snapshot == [4, 5, 6]
    assert seq.block_table == [4, 5]
    assert copy.copy(llm.scheduler.waiting) == through_pickle(llm.scheduler.waiting) == deque()


def test_prompts_of_other_kinds_are_refused(llm: LLM) -> None:
    for prompts in ({"prompt": "x"}, {"a", "b"}, b"abc"):
        with pytest.raises(TypeError, match="prompts must be"):
            llm.generate(prompts, use_tqdm=False)  # type: ignore[arg-type]
    assert not llm.abort(-1)
    assert not llm.abort(2**64)


def test_an_interrupt_loses_no_answer(llm: LLM) -> None:
    """What finished is with the engine before the interrupt can be raised, and the next step hands it out."""

    class Finished(dict[int, _core.FinishedSequence]):
        def __setitem__(self, key: int, value: _core.FinishedSequence) -> None:
            raise AssertionError("set from Rust, not by Python's code")

    ids = [llm.add_request([1, 2, 3], SamplingParams(temperature=0, max_tokens=1)) for _ in range(4)]
    llm._finished = Finished()
    assert llm._engine.step(llm._finished) == 12
    assert list(llm._finished) == ids
    assert not llm.is_finished()
    outputs, num_tokens = llm.step()
    assert ([seq_id for seq_id, _ in outputs], num_tokens) == (ids, 0)


def test_a_call_that_is_left_or_dropped_leaves_nothing_queued(llm: LLM) -> None:
    """All its sequences go at once, so a second interrupt finds none to forget."""
    params = SamplingParams(temperature=0, max_tokens=50, ignore_eos=True)
    ids = iter(range(10**6, 10**7))

    def submit() -> _core.Call:
        return llm._engine.submit([([next(ids)], [1, 2, i % 100], params, 0) for i in range(300)], False)

    def queued() -> int:
        stats = llm.stats()
        return stats["num_waiting"] + stats["num_running"]

    def interrupt(*_: object) -> None:
        assert queued() > 0
        raise KeyboardInterrupt

    call = submit()
    assert queued() == call.pending == 300
    with pytest.raises(KeyboardInterrupt):
        call.results(interrupt)
    assert queued() == call.pending == 0
    assert call.results() == []
    call = submit()
    assert queued() == 300
    del call  # which is what happens if an interrupt comes before it is waited for
    assert queued() == 0
    reported: list[_core.FinishedSequence] = []
    finished = submit().results(lambda sequences, *_: reported.extend(sequences))
    assert len({seq.seq_id for seq in finished}) == len(finished) == 300
    assert reported == finished


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_fork_while_another_thread_steps_is_an_error_in_the_child(llm: LLM) -> None:
    params = SamplingParams(temperature=0, max_tokens=2000, ignore_eos=True)
    thread = threading.Thread(target=lambda: llm.generate([[1, 2, 3]] * 4, params, use_tqdm=False))
    thread.start()
    while llm.stats()["num_steps"] < 2:
        time.sleep(0.001)
    child = os.fork()
    if child == 0:
        try:
            llm.step()
        except RuntimeError as error:
            os._exit(0 if "fork" in str(error) else 1)
        os._exit(2)
    thread.join()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
