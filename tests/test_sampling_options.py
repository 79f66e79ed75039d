"""Every sampling option against a plain reading of vLLM's definition, on logits that the model itself gives."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nanovllm import LLM, Logprob, RequestOutputKind, SamplingParams
from nanovllm.engine.sequence import Sequence
from runners import model_runner

TINY = Path(__file__).parent / "golden" / "tiny_qwen3"
PROMPT = [5, 6, 7, 8, 9, 5, 6]
LENGTH = 8


@pytest.fixture(scope="module")
def llm() -> Iterator[LLM]:
    with LLM(str(TINY), num_kvcache_blocks=64) as llm:
        yield llm


@pytest.fixture(scope="module")
def runner() -> Any:
    return model_runner(TINY, num_kvcache_blocks=8)


def answer(llm: LLM, prompt: list[int] = PROMPT, **options: Any) -> Any:
    params = SamplingParams(**{"temperature": 0, "max_tokens": LENGTH, "ignore_eos": True, **options})
    return llm.generate([prompt], params, use_tqdm=False)[0]


def changed(logits: np.ndarray, prompt: list[int], output: list[int], options: dict[str, Any]) -> np.ndarray:
    """Logits after what vLLM does to them, written as its documentation says it."""
    logits = logits.astype(np.float32).copy()
    for token, bias in (options.get("logit_bias") or {}).items():
        logits[token] += np.float32(bias)
    if len(output) < options.get("min_tokens", 0):
        logits[options.get("stop_token_ids") or []] = -np.inf
    repetition = np.float32(options.get("repetition_penalty", 1.0))
    for token in set(prompt) | set(output):
        logits[token] = logits[token] / repetition if logits[token] > 0 else logits[token] * repetition
    for token, count in Counter(output).items():
        logits[token] -= np.float32(options.get("frequency_penalty", 0.0)) * np.float32(count)
        logits[token] -= np.float32(options.get("presence_penalty", 0.0))
    allowed = options.get("allowed_token_ids")
    if allowed is not None:
        logits[np.setdiff1d(np.arange(len(logits)), allowed)] = -np.inf
    return logits


TOKENS = st.integers(0, 300)
CHANGES = st.fixed_dictionaries(
    {},
    optional={
        "logit_bias": st.dictionaries(TOKENS, st.floats(-20, 20, width=32), max_size=8),
        "repetition_penalty": st.sampled_from([0.5, 0.9, 1.0, 1.3, 2.0]),
        "frequency_penalty": st.sampled_from([-2.0, -0.5, 0.0, 0.7, 2.0]),
        "presence_penalty": st.sampled_from([-2.0, 0.0, 0.4, 2.0]),
        "allowed_token_ids": st.lists(TOKENS, min_size=2, max_size=40, unique=True),
        "min_tokens": st.integers(0, LENGTH),
        "stop_token_ids": st.lists(TOKENS, max_size=3),
    },
)


@settings(max_examples=60, deadline=None)
@given(options=CHANGES)
def test_greedy_choices_follow_the_changed_logits(llm: LLM, runner: Any, options: dict[str, Any]) -> None:
    """Each token is the likeliest of the logits that the definition gives after those before it."""
    output = answer(llm, **options)
    chosen = output.token_ids
    logits = runner.logits([*PROMPT, *chosen], None)[len(PROMPT) - 1 :]
    for at, token in enumerate(chosen):
        row = changed(logits[at], PROMPT, chosen[:at], options)
        assert row[token] >= row.max() - 1e-4, (at, token, int(row.argmax()))
    stops = options.get("stop_token_ids") or []
    if chosen[-1] in stops:
        assert (output.finish_reason, output.stop_reason) == ("stop", chosen[-1])
    else:
        assert (output.finish_reason, output.stop_reason, len(chosen)) == ("length", None, LENGTH)
    assert not set(chosen[: max(options.get("min_tokens", 0), len(chosen) - 1)]) & set(stops)


def test_logprobs_are_the_softmax_of_the_models_own_logits(llm: LLM, runner: Any) -> None:
    biased = {3: 50.0}
    output = answer(llm, logprobs=4, prompt_logprobs=2, logit_bias=biased, max_tokens=3)
    assert output.token_ids == [3, 3, 3]
    rows = runner.logits([*PROMPT, *output.token_ids], None).astype(np.float64)
    logs = rows - np.log(np.exp(rows).sum(axis=1, keepdims=True))
    for at, place in enumerate(output.logprobs):
        row = logs[len(PROMPT) - 1 + at]
        order = np.argsort(-row, kind="stable")
        assert next(iter(place)) == 3
        assert set(place) == {3, *order[:4].tolist()}
        for token, logprob in place.items():
            assert logprob.logprob == pytest.approx(row[token], abs=1e-4)
            assert logprob.rank == int(np.flatnonzero(order == token)[0]) + 1
            assert logprob.decoded_token == llm.tokenizer.decode([token])
    total = sum(place[token].logprob for token, place in zip(output.token_ids, output.logprobs, strict=True))
    assert output.cumulative_logprob == pytest.approx(total)
    assert output.prompt_logprobs[0] is None
    for at, place in enumerate(output.prompt_logprobs[1:]):
        assert place[PROMPT[at + 1]].logprob == pytest.approx(logs[at][PROMPT[at + 1]], abs=1e-4)
        assert set(place) == {PROMPT[at + 1], *np.argsort(-logs[at], kind="stable")[:2].tolist()}


@pytest.mark.parametrize("budget", [256, 300, 16384])
def test_prompt_logprobs_are_those_of_one_piece(llm: LLM, budget: int) -> None:
    """However the prompt is cut, cached or preempted: a prefix that is in the cache is computed again."""
    prompt = [(7 * i) % 290 + 5 for i in range(600)]
    expected = answer(llm, prompt, prompt_logprobs=0, max_tokens=1).prompt_logprobs
    assert len(expected) == 600
    with LLM(str(TINY), num_kvcache_blocks=8, max_num_batched_tokens=budget) as cut:
        for _ in range(2):
            got = answer(cut, prompt, prompt_logprobs=0, max_tokens=1)
            assert got.num_cached_tokens == 0
            for ours, theirs in zip(got.prompt_logprobs[1:], expected[1:], strict=True):
                assert ours == theirs
        assert answer(cut, prompt, max_tokens=1).num_cached_tokens == 512


def test_all_logprobs_are_a_distribution(llm: LLM) -> None:
    output = answer(llm, logprobs=-1, prompt_logprobs=-1, max_tokens=2)
    for place in [*output.logprobs, *output.prompt_logprobs[1:]]:
        assert len(place) == llm.config.hf_config.vocab_size
        assert sum(math.exp(logprob.logprob) for logprob in place.values()) == pytest.approx(1, abs=1e-4)
        assert isinstance(next(iter(place.values())), Logprob)


def test_texts_are_scored(llm: LLM, runner: Any) -> None:
    prompt, text = [5, 6, 7], [9, 8, 7, 6]
    rows = runner.logits([*prompt, *text], None).astype(np.float64)
    logs = rows - np.log(np.exp(rows).sum(axis=1, keepdims=True))
    expected = [logs[at][token] for at, token in enumerate([*prompt, *text][1:])]
    whole, single = llm.score([[*prompt, *text], [5]])
    assert whole.logprobs[1:] == pytest.approx(expected, abs=1e-4)
    assert (whole.logprobs[0], whole.logprob) == (None, pytest.approx(sum(expected), abs=1e-3))
    assert single == {"token_ids": [5], "logprobs": [None], "logprob": 0.0}
    (after,) = llm.score([prompt], [text])
    assert after.logprobs == [None] * 3 + whole.logprobs[3:]
    assert after.logprob == pytest.approx(sum(expected[2:]), abs=1e-3)
    (words,) = llm.score("ab", "cd")
    assert words.token_ids == llm.tokenizer.encode("ab") + llm.tokenizer.encode("cd", add_special_tokens=False)
    with pytest.raises(ValueError, match="got 1 texts but 2 continuations"):
        llm.score("a", ["b", "c"])


def probabilities(logits: np.ndarray, temperature: float, top_k: int, top_p: float, min_p: float) -> np.ndarray:
    """The distribution of vLLM: min-p, then top-k, then top-p of what is left."""
    scaled = logits.astype(np.float64) / temperature
    order = np.argsort(-scaled, kind="stable")
    p = np.exp(scaled[order] - scaled.max())
    keep = p >= min_p * p[0]
    if top_k > 0:
        keep[top_k:] = False
    p = np.where(keep, p, 0)
    p /= p.sum()
    before = np.cumsum(p) - p
    p = np.where(before < top_p, p, 0) if top_p < 1 else p
    result = np.zeros_like(p)
    result[order] = p / p.sum()
    return result


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"temperature": 0.6},
        {"top_k": 5},
        {"top_p": 0.2},
        {"min_p": 0.6},
        {"temperature": 1.4, "top_k": 30, "top_p": 0.7, "min_p": 0.3},
        {"repetition_penalty": 1.5, "top_k": 8},
        {"logit_bias": {3: 2.5}, "top_k": 4},
    ],
    ids=str,
)
def test_draws_follow_the_distribution(llm: LLM, runner: Any, options: dict[str, Any]) -> None:
    """Pearson's statistic over 4,000 draws of the first token, likely tokens alone and the others together.

    A distribution whose likeliest token is off by 4 percentage points is noticed nine times in ten; a right one is
    refused once in ten thousand.
    """
    draws = 4000
    params = SamplingParams(max_tokens=1, ignore_eos=True, n=draws, seed=11, **{"temperature": 1.0, **options})
    (output,) = llm.generate([PROMPT], params, use_tqdm=False)
    counts = Counter(answer.token_ids[0] for answer in output.outputs)
    row = changed(runner.logits(PROMPT, None)[-1], PROMPT, [], options)
    truncation = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0}
    expected = probabilities(row, *(options.get(name, value) for name, value in truncation.items()))
    # What cannot be drawn is not, unless it stands at a border where rounding decides.
    assert sum(count for token, count in counts.items() if expected[token] == 0) <= 0.02 * draws
    likely = np.flatnonzero(expected * draws >= 10)
    observed = np.array([counts[token] for token in likely] + [0.0])
    hoped = np.array([expected[token] * draws for token in likely] + [0.0])
    observed[-1], hoped[-1] = draws - observed.sum(), draws - hoped.sum()
    if hoped[-1] < 10:
        observed, hoped = observed[:-1], hoped[:-1]
    degrees = len(hoped) - 1
    statistic = ((observed - hoped) ** 2 / hoped).sum()
    # Wilson and Hilferty's quantile of the distribution, 3.72 deviations above its middle.
    limit = degrees * (1 - 2 / (9 * degrees) + 3.72 * math.sqrt(2 / (9 * degrees))) ** 3 if degrees else 1e-9
    assert statistic <= limit, (statistic, limit, degrees)


def test_several_answers_are_each_their_own(llm: LLM) -> None:
    params = SamplingParams(n=4, max_tokens=6, ignore_eos=True, seed=5)
    alone = llm.generate([PROMPT], params, use_tqdm=False)[0]
    assert len({tuple(answer.token_ids) for answer in alone.outputs}) == 4
    assert [answer.index for answer in alone.outputs] == [0, 1, 2, 3]
    assert (alone["token_ids"], alone["text"]) == (alone.outputs[0].token_ids, alone.outputs[0].text)
    among_others = llm.generate([[1, 2], PROMPT, [3]], [SamplingParams(), params, SamplingParams()], use_tqdm=False)[1]
    assert among_others == alone
    first = llm.generate([PROMPT], SamplingParams(max_tokens=6, ignore_eos=True, seed=5), use_tqdm=False)[0]
    assert first.outputs == alone.outputs[:1]


@pytest.mark.parametrize("length", [7, 256, 300])
def test_answers_to_one_prompt_share_it(llm: LLM, length: int) -> None:
    prompt = [1 + i * i % 200 for i in range(length)]
    params = SamplingParams(n=5, max_tokens=6, ignore_eos=True, seed=length, prompt_logprobs=1)
    before = llm.stats()
    shared = llm.generate([prompt], params, use_tqdm=False)[0]
    after = llm.stats()
    assert after["num_prefilled_tokens"] - before["num_prefilled_tokens"] == length
    assert (shared.num_cached_tokens, len(shared.prompt_logprobs)) == (0, length)
    assert after["num_free_blocks"] == after["num_kvcache_blocks"]
    assert len({tuple(answer.token_ids) for answer in shared.outputs}) == 5
    # One at a time, so that none shares anything but whole blocks.
    with LLM(str(TINY), num_kvcache_blocks=64, max_num_seqs=1) as one_by_one:
        apart = one_by_one.generate([prompt], params, use_tqdm=False)[0]
    assert apart.outputs == shared.outputs


def test_stop_strings_end_the_text(llm: LLM) -> None:
    whole = answer(llm, max_tokens=20)
    text = whole.text
    stop = text[4:6]
    end = text.index(stop)
    for included in (False, True):
        output = answer(llm, max_tokens=20, stop=[stop, "never"], include_stop_str_in_output=included)
        assert output.text == text[: end + len(stop) * included]
        assert (output.finish_reason, output.stop_reason) == ("stop", stop)
        assert output.token_ids == whole.token_ids[: len(output.token_ids)]
        assert len(output.token_ids) < 20
    later = answer(llm, max_tokens=20, stop=stop, min_tokens=19)
    assert len(later.token_ids) >= 19
    assert answer(llm, max_tokens=20, stop="never").text == text


def test_tokens_that_end_an_answer_are_not_in_its_text(llm: LLM) -> None:
    """Unless stop strings are; `token_ids` has them in any case."""
    ids = llm.tokenizer.encode("abc", add_special_tokens=False)
    steered = {"logit_bias": dict.fromkeys(ids, 30.0), "stop_token_ids": [ids[0]]}
    without = answer(llm, **steered)
    included = answer(llm, **steered, include_stop_str_in_output=True)
    assert without.token_ids == included.token_ids
    assert without.token_ids[-1] == without.stop_reason == ids[0]
    assert included.text == without.text + llm.tokenizer.decode([ids[0]])
    for output in (without, included):
        params = SamplingParams(
            temperature=0, ignore_eos=True, include_stop_str_in_output=output is included, **steered
        )
        parts = list(llm.stream(PROMPT, params))
        assert "".join(part.text for part in parts) == output.text
        assert [token for part in parts for token in part.token_ids] == output.token_ids


def test_bad_words_are_not_written(llm: LLM) -> None:
    pair = llm.tokenizer.encode("ab", add_special_tokens=False)
    steered = dict.fromkeys(pair, 30.0)
    assert set(answer(llm, logit_bias=steered).token_ids) <= set(pair)
    text = answer(llm, logit_bias=steered, bad_words=["ab"]).text
    assert "ab" not in text
    assert set(answer(llm, logit_bias=steered, bad_words=["a"]).text) == {"b"}


def test_special_tokens_and_text_follow_the_params(llm: LLM) -> None:
    eos = llm.tokenizer.eos_token_id
    steered = {"logit_bias": {eos: 100.0}, "max_tokens": 2}
    kept = answer(llm, **steered)
    assert kept.text == llm.tokenizer.decode([eos] * 2) != ""
    assert answer(llm, skip_special_tokens=True, **steered).text == ""
    params = SamplingParams(temperature=0, ignore_eos=True, skip_special_tokens=False, **steered)
    assert llm.generate([PROMPT], params, use_tqdm=False, skip_special_tokens=True)[0].text == kept.text
    silent = answer(llm, detokenize=False)
    assert (silent.text, silent.token_ids) == ("", answer(llm).token_ids)
    places = answer(llm, detokenize=False, logprobs=1, prompt_logprobs=1)
    for place in [*places.logprobs, *places.prompt_logprobs[1:]]:
        assert {logprob.decoded_token for logprob in place.values()} == {None}


def test_answers_are_dicts_and_objects(llm: LLM) -> None:
    output = answer(llm)
    assert output["text"] == output.text == output.outputs[0].text
    assert output["request_id"] == output.request_id
    assert 0 < output.timing["first_token"] <= output["timing"]["total"]
    assert output.prompt_token_ids == PROMPT
    assert output.prompt is None
    assert llm.generate("hi", SamplingParams(max_tokens=1), use_tqdm=False)[0].prompt == "hi"
    with pytest.raises(AttributeError, match="RequestOutput has no 'texts'"):
        _ = output.texts
    with pytest.raises(KeyError):
        _ = output["texts"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"n": 0}, "n must be between 1 and"),
        ({"n": 2, "temperature": 0}, "n must be 1 when temperature is 0"),
        ({"n": True}, "n must be an integer"),
        ({"top_k": -2}, "top_k must be at least 0, or -1 for all tokens"),
        ({"top_k": 1.5}, "top_k must be an integer"),
        ({"top_p": 0}, "top_p must be above 0 and at most 1"),
        ({"top_p": 1.1}, "top_p must be above 0 and at most 1"),
        ({"min_p": -0.1}, "min_p must be between 0 and 1"),
        ({"presence_penalty": 3}, "presence_penalty must be between -2 and 2"),
        ({"frequency_penalty": "much"}, "frequency_penalty must be a number"),
        ({"repetition_penalty": 0}, "repetition_penalty must be above 0"),
        ({"logprobs": -2}, "logprobs must be at least 0, or -1"),
        ({"prompt_logprobs": "all"}, "prompt_logprobs must be an integer"),
        ({"min_tokens": 65}, "min_tokens must be at most max_tokens, which is 64"),
        ({"min_tokens": -1}, "min_tokens must be between 0"),
        ({"stop": ""}, "stop must not have an empty text"),
        ({"stop": ["a", ""]}, "stop must not have an empty text"),
        ({"stop": 5}, "stop must be a text or a list of texts"),
        ({"stop": [5]}, r"stop\[0\] must be a text"),
        ({"stop": "a", "detokenize": False}, "stop needs detokenize"),
        ({"bad_words": [" "]}, "bad_words must not have an empty text"),
        ({"stop_token_ids": "12"}, "stop_token_ids must be a list of integers"),
        ({"stop_token_ids": [1, -1]}, r"stop_token_ids\[1\]"),
        ({"allowed_token_ids": []}, "allowed_token_ids must have at least one token"),
        ({"allowed_token_ids": [True]}, r"allowed_token_ids\[0\] must be an integer"),
        ({"logit_bias": [1]}, "logit_bias must be a dict"),
        ({"logit_bias": {1: "x"}}, r"logit_bias\[1\] must be a number"),
        ({"logit_bias": {"x": 1}}, "logit_bias has the key"),
        ({"logit_bias": {1: math.inf}}, "logit_bias of token 1 must be below infinity"),
        ({"logit_bias": {1: math.nan}}, "logit_bias of token 1 must be below infinity"),
        ({"output_kind": "delta"}, "output_kind must be a RequestOutputKind"),
        ({"skip_special_tokens": "yes"}, "skip_special_tokens must be a bool"),
    ],
    ids=str,
)
def test_what_is_out_of_range_is_refused_by_name(options: dict[str, Any], words: str) -> None:
    with pytest.raises((ValueError, TypeError), match=words):
        SamplingParams(**options)


@pytest.mark.parametrize("field", ["stop_token_ids", "allowed_token_ids", "logit_bias"])
def test_tokens_that_the_model_lacks_are_refused(llm: LLM, field: str) -> None:
    value: Any = {99_999: 1.0} if field == "logit_bias" else [99_999]
    params = SamplingParams(**{field: value})
    with pytest.raises(ValueError, match=f"{field} has token id 99999, outside the vocabulary"):
        llm.generate([PROMPT], params, use_tqdm=False)


def test_a_request_by_hand_has_one_answer(llm: LLM) -> None:
    with pytest.raises(ValueError, match="n must be 1 in add_request"):
        llm.add_request(PROMPT, SamplingParams(n=2))


def test_no_limit_on_tokens_is_that_of_the_model() -> None:
    with LLM(str(TINY), num_kvcache_blocks=8, max_model_len=40) as small:
        output = answer(small, max_tokens=None)
        assert (len(output.token_ids), output.finish_reason) == (40 - len(PROMPT), "length")


def test_kinds_of_output_change_nothing_where_there_is_one(llm: LLM) -> None:
    assert all(answer(llm, output_kind=kind) == answer(llm) for kind in RequestOutputKind)


def test_what_by_hand_is_not_told_is_refused_there(llm: LLM) -> None:
    for field in ("logprobs", "prompt_logprobs"):
        params = SamplingParams(**{field: 1})
        with pytest.raises(ValueError, match=rf"{field} is for LLM\.generate"):
            llm.add_request(PROMPT, params)
        with pytest.raises(ValueError, match=rf"{field} is for LLM\.generate"):
            Sequence(PROMPT, params)


def test_options_hold_for_sequences_that_no_scheduler_has(runner: Any) -> None:
    """Stepped by the model runner alone, and after a change by hand."""
    allowed = [11, 12, 13]
    seq = Sequence(PROMPT, SamplingParams(temperature=0, allowed_token_ids=allowed, repetition_penalty=5.0))
    seq.block_table, seq.num_scheduled_tokens = [0], len(PROMPT)
    for _ in range(6):
        (token,) = runner.run([seq], True)
        assert token in allowed
        seq.append_token(token)
        seq.num_scheduled_tokens += 1
    seq.max_tokens = None
    assert seq.max_tokens is None
    assert runner.run([seq], True)[0] in allowed


def test_other_forms_of_the_same_options(llm: LLM) -> None:
    bias = {7: 100.0}
    assert answer(llm, logit_bias=MappingProxyType(bias)).token_ids == answer(llm, logit_bias=bias).token_ids
    assert SamplingParams(seed=-1).seed == -1
    draws = {tuple(answer(llm, seed=-1, temperature=1).token_ids) for _ in range(5)}
    assert len(draws) > 1, "as without a seed"
    with pytest.raises(ValueError, match="seed"):
        SamplingParams(seed=-2)
    spaced, closed = (answer(llm, max_tokens=20, spaces_between_special_tokens=spaces) for spaces in (True, False))
    assert closed == spaced, "this tokenizer's decoder puts none there"
