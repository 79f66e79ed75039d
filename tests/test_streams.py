"""Answers token by token: what is handed out adds up to what `generate` gives, for one caller and for many."""

from __future__ import annotations

import asyncio
import gc
import random
import resource
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nanovllm import LLM, AsyncLLM, RequestOutput, RequestOutputKind, SamplingParams
from nanovllm.exceptions import QueueFullError

GOLDEN = Path(__file__).parent / "golden"
TINY = str(GOLDEN / "tiny_qwen3")
PROMPT = [5, 6, 7, 8, 9]
GREEDY = SamplingParams(temperature=0, max_tokens=24, ignore_eos=True)
ENDLESS = SamplingParams(temperature=0, max_tokens=100_000, ignore_eos=True)


@pytest.fixture(scope="module")
def llm() -> Iterator[LLM]:
    with LLM(TINY, num_kvcache_blocks=64) as llm:
        yield llm


def free_blocks(llm: LLM | AsyncLLM) -> int:
    return llm.stats()["num_free_blocks"]


def added_up(outputs: list[RequestOutput], index: int = 0) -> tuple[str, list[int], list[Any]]:
    """The text, the tokens and the log-probabilities of an answer, from the parts of a stream."""
    parts = [answer for output in outputs for answer in output.outputs if answer.index == index]
    logprobs = [place for answer in parts for place in answer.logprobs or []]
    return "".join(answer.text for answer in parts), [t for answer in parts for t in answer.token_ids], logprobs


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_parts_add_up_to_the_whole(llm: LLM, data: st.DataObject) -> None:
    whole = llm.generate([PROMPT], SamplingParams(seed=1, max_tokens=30, ignore_eos=True), use_tqdm=False)[0].text
    at = data.draw(st.integers(0, len(whole) - 2))
    others = data.draw(st.lists(st.text("abc ", min_size=1), max_size=2))
    stops = [whole[at : at + data.draw(st.integers(1, 4))], *others]
    params = SamplingParams(
        seed=1,
        max_tokens=30,
        ignore_eos=True,
        n=data.draw(st.integers(1, 3)),
        stop=data.draw(st.sampled_from([None, stops])),
        include_stop_str_in_output=data.draw(st.booleans()),
        min_tokens=data.draw(st.integers(0, 20)),
        logprobs=data.draw(st.sampled_from([None, 0, 2])),
        skip_special_tokens=data.draw(st.sampled_from([None, True, False])),
    )
    (expected,) = llm.generate([PROMPT], params, use_tqdm=False)
    outputs = list(llm.stream(PROMPT, params))
    for answer in expected.outputs:
        text, token_ids, logprobs = added_up(outputs, answer.index)
        assert (text, token_ids) == (answer.text, answer.token_ids)
        assert logprobs == (answer.logprobs or [])
    assert [output.finished for output in outputs] == [False] * (len(outputs) - 1) + [True]
    last = {answer.index: answer for output in outputs for answer in output.outputs}
    for answer in expected.outputs:
        ends = (answer.finish_reason, answer.stop_reason, answer.cumulative_logprob)
        got = last[answer.index]
        assert (got.finish_reason, got.stop_reason, got.cumulative_logprob) == ends


def test_kinds_of_output(llm: LLM) -> None:
    (whole,) = llm.generate([PROMPT], GREEDY, use_tqdm=False)

    def stream(kind: RequestOutputKind) -> list[RequestOutput]:
        params = SamplingParams(temperature=0, max_tokens=24, ignore_eos=True, output_kind=kind)
        return list(llm.stream(PROMPT, params))

    (final,) = stream(RequestOutputKind.FINAL_ONLY)
    assert final == whole
    grown = stream(RequestOutputKind.CUMULATIVE)
    assert grown[-1] == whole
    for output in grown:
        assert whole.text.startswith(output.text)
        assert whole.token_ids[: len(output.token_ids)] == output.token_ids
    assert len(grown) >= 24


def test_a_token_is_there_before_the_next_step(llm: LLM) -> None:
    before = llm.stats()["num_steps"]
    for output in llm.stream(PROMPT, GREEDY):
        if output.finished:
            break
        before += 1
        assert llm.stats()["num_steps"] == before


def test_a_dropped_stream_drops_its_request(llm: LLM) -> None:
    stream = llm.stream(PROMPT, ENDLESS)
    next(stream)
    assert free_blocks(llm) < 64
    del stream
    gc.collect()
    llm.generate([[1]], GREEDY, use_tqdm=False)
    assert (free_blocks(llm), llm.is_finished()) == (64, True)


def test_a_prompt_may_grow_while_its_answer_is_read(llm: LLM) -> None:
    history = list(PROMPT)
    params = SamplingParams(temperature=0, max_tokens=24, ignore_eos=True, prompt_logprobs=0)
    for output in llm.stream(history, params):
        history += output.token_ids
        assert (output.prompt_token_ids, output.num_prompt_tokens) == (PROMPT, len(PROMPT))
    assert len(history) == len(PROMPT) + 24


def test_streams_take_turns(llm: LLM) -> None:
    expected = [llm.generate([[i]], GREEDY, use_tqdm=False)[0].text for i in range(1, 9)]
    streams = [llm.stream([i], GREEDY) for i in range(1, 9)]
    texts = [""] * 8
    while streams:
        for stream in list(streams):
            output = next(stream, None)
            if output is None:
                streams.remove(stream)
            else:
                texts[output.prompt_token_ids[0] - 1] += output.text
    assert texts == expected


def test_a_stream_refuses_what_generate_refuses(llm: LLM) -> None:
    for prompt, words in [([], "empty"), ([10**6], "outside the vocabulary"), ([[1], [2]], "one prompt")]:
        with pytest.raises(ValueError, match=words):
            llm.stream(prompt, GREEDY)  # at once, not when it is read
    with pytest.raises(TypeError, match="SamplingParams"):
        llm.stream(PROMPT, {"temperature": 0})  # type: ignore[arg-type]


async def collect(
    llm: AsyncLLM, prompt: Any, params: SamplingParams | None = None, **options: Any
) -> list[RequestOutput]:
    return [output async for output in llm.generate(prompt, params, **options)]


def test_asynchronous_answers_are_those_of_generate(llm: LLM) -> None:
    prompts = [[i, i + 1, 2] for i in range(1, 33)]
    params = SamplingParams(temperature=0.8, max_tokens=20, ignore_eos=True, seed=4, n=2, logprobs=1)
    expected = llm.generate(prompts, params, use_tqdm=False)

    async def main() -> None:
        async with AsyncLLM(TINY, num_kvcache_blocks=64) as shared:
            answers = await asyncio.gather(*(collect(shared, prompt, params) for prompt in prompts))
            for outputs, whole in zip(answers, expected, strict=True):
                assert [output.finished for output in outputs] == [False] * (len(outputs) - 1) + [True]
                last = {answer.index: answer for output in outputs for answer in output.outputs}
                assert [last[0], last[1]] == whole.outputs
            delta = SamplingParams(temperature=0, max_tokens=24, ignore_eos=True, output_kind=RequestOutputKind.DELTA)
            text, token_ids, _ = added_up(await collect(shared, PROMPT, delta))
            (whole,) = shared._llm.generate([PROMPT], GREEDY, use_tqdm=False)  # beside the thread that drives
            assert (text, token_ids) == (whole.text, whole.token_ids)

    asyncio.run(main())


def test_cancelled_requests_leave_nothing() -> None:
    """1,000 requests, a third cancelled at random moments, in some rounds; memory stays flat."""
    chance = random.Random(3)

    async def one(llm: AsyncLLM, i: int, patience: int | None) -> bool:
        params = SamplingParams(temperature=0, max_tokens=chance.randint(1, 20), ignore_eos=True)
        task = asyncio.ensure_future(collect(llm, [1 + i % 200, 2, 3], params))
        if patience is None:
            return (await task)[-1].finished
        for _ in range(patience):
            await asyncio.sleep(0)
        task.cancel()
        try:
            return (await task)[-1].finished
        except asyncio.CancelledError:
            return False

    async def main() -> None:
        async with AsyncLLM(TINY, num_kvcache_blocks=256) as llm:
            sizes = []
            for _ in range(20):
                plan = [chance.randint(0, 300) if i % 3 == 0 else None for i in range(1000)]
                done = await asyncio.gather(*(one(llm, i, patience) for i, patience in enumerate(plan)))
                assert all(finished for finished, patience in zip(done, plan, strict=True) if patience is None)
                # What was cancelled last goes with the next step.
                await collect(llm, PROMPT, GREEDY)
                assert (free_blocks(llm), llm.stats()["num_running"], llm.stats()["num_waiting"]) == (256, 0, 0)
                assert not llm._requests._by_id
                assert not llm._requests._by_sequence
                sizes.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
            assert sizes[-1] - sizes[4] < 16_000  # kilobytes

    asyncio.run(main())


def test_blocks_are_free_within_a_step_of_a_cancel() -> None:
    async def main() -> None:
        async with AsyncLLM(TINY, num_kvcache_blocks=64) as llm:
            other = asyncio.ensure_future(collect(llm, [9], ENDLESS))
            outputs = llm.generate(PROMPT, ENDLESS)
            async for _ in outputs:
                break
            while llm.stats()["num_running"] < 2:
                await asyncio.sleep(0)
            await outputs.aclose()
            # Its turn comes when the step under way has ended.
            assert llm.stats()["num_running"] == 1
            other.cancel()
            await asyncio.gather(other, return_exceptions=True)

    asyncio.run(main())


def test_who_does_not_read_holds_nobody_up() -> None:
    async def main() -> None:
        async with AsyncLLM(TINY, num_kvcache_blocks=64, max_queued=2) as llm:
            slow = llm.generate(PROMPT, SamplingParams(temperature=0, max_tokens=1000, ignore_eos=True))
            first = await anext(slow)
            while llm.stats()["num_running"] > 0:
                assert (await collect(llm, [9], GREEDY))[-1].finished
            rest = [output async for output in slow]
            assert len(rest) == 1  # of all that came meanwhile
            assert len(first.token_ids) < len(rest[0].token_ids) == 1000

    asyncio.run(main())


def test_requests_are_aborted_by_their_id() -> None:
    async def main() -> None:
        async with AsyncLLM(TINY, num_kvcache_blocks=64) as llm:
            outputs = []
            async for output in llm.generate(PROMPT, ENDLESS, request_id="a"):
                outputs.append(output)
                if len(outputs) == 2:
                    with pytest.raises(ValueError, match="'a' is that of another request"):
                        await collect(llm, PROMPT, GREEDY, request_id="a")
                    assert await llm.abort("a")
                    assert not await llm.abort("a")
            assert (outputs[-1].finished, outputs[-1].finish_reason, outputs[0].request_id) == (True, "abort", "a")
            assert (await collect(llm, PROMPT, GREEDY, request_id="a"))[-1].finish_reason == "length"
            assert not await llm.abort("b")

    asyncio.run(main())


def test_a_name_is_free_once_its_request_is_answered() -> None:
    """The reader of the first may still be there; what it does is nothing to the second."""

    async def main() -> None:
        async with AsyncLLM(TINY, num_kvcache_blocks=64) as llm:
            second = None
            async for output in llm.generate(PROMPT, GREEDY, request_id="s"):
                if output.finished:
                    second = llm.generate([9], ENDLESS, request_id="s")
                    await anext(second)
            assert second is not None
            with pytest.raises(ValueError, match="'s' is that of another request"):
                await collect(llm, PROMPT, GREEDY, request_id="s")
            await second.aclose()
            assert llm.stats()["num_running"] == 0
            third = llm.generate([9], ENDLESS, request_id="s")
            await anext(third)
            assert await llm.abort("s")
            assert [output.finish_reason async for output in third] == ["abort"]

    asyncio.run(main())


def test_errors_are_each_readers_own() -> None:
    async def main() -> None:
        async with AsyncLLM(TINY, num_kvcache_blocks=64) as llm:
            tasks = [asyncio.ensure_future(collect(llm, [i], ENDLESS)) for i in range(1, 4)]
            while llm.stats()["num_running"] < 3:
                await asyncio.sleep(0.001)
            llm._requests.close("a test has ended it")
            errors = await asyncio.gather(*tasks, return_exceptions=True)
            assert [str(error) for error in errors] == ["a test has ended it"] * 3
            assert len({id(error) for error in errors}) == 3

    asyncio.run(main())


def test_readers_whose_loop_was_closed_are_dropped() -> None:
    with AsyncLLM(TINY, num_kvcache_blocks=64) as llm:
        loop = asyncio.new_event_loop()
        outputs = llm.generate(PROMPT, ENDLESS)
        loop.run_until_complete(anext(outputs))
        time.sleep(0.05)  # more has come, whose callback the loop will never run
        loop.close()
        deadline = time.monotonic() + 20
        while llm.stats()["num_running"] > 0:
            assert time.monotonic() < deadline
            time.sleep(0.01)


def test_an_interrupted_stream_leaves_nothing_queued(llm: LLM) -> None:
    """Whoever keeps the exception keeps the frames, but not the request."""
    stream = llm.stream(PROMPT, ENDLESS)
    next(stream)
    kept = None
    try:
        stream.throw(KeyboardInterrupt)
    except KeyboardInterrupt as error:
        kept = error
    assert kept is not None
    assert llm.is_finished()
    assert free_blocks(llm) == 64


def test_a_full_queue_is_an_error_of_its_own() -> None:
    async def main() -> None:
        async with AsyncLLM(TINY, num_kvcache_blocks=64, max_queued=2) as llm:
            held = [llm.generate(PROMPT, ENDLESS) for _ in range(2)]
            for outputs in held:
                await anext(outputs)
            with pytest.raises(QueueFullError, match="max_queued is 2"):
                await collect(llm, PROMPT, GREEDY)
            await held[0].aclose()
            assert (await collect(llm, PROMPT, GREEDY))[-1].finished
            await held[1].aclose()

    asyncio.run(main())
    for bad in (0, -1):
        with pytest.raises(ValueError, match="max_queued must be at least 1"):
            AsyncLLM(TINY, max_queued=bad)
    with pytest.raises(TypeError, match="max_queued must be an integer"):
        AsyncLLM(TINY, max_queued=True)


def test_several_loops_in_several_threads_share_an_engine(llm: LLM) -> None:
    (expected,) = llm.generate([PROMPT], GREEDY, use_tqdm=False)
    answers: list[RequestOutput] = []
    with AsyncLLM(TINY, num_kvcache_blocks=64) as shared:

        async def main() -> None:
            lists = await asyncio.gather(*(collect(shared, PROMPT, GREEDY) for _ in range(8)))
            answers.extend(outputs[-1] for outputs in lists)

        threads = [threading.Thread(target=lambda: asyncio.run(main())) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert [answer.token_ids for answer in answers] == [expected.token_ids] * 32


def test_conversations_are_answered(llm: LLM) -> None:
    messages = [{"role": "user", "content": "hi"}]
    (expected,) = llm.chat(messages, GREEDY, use_tqdm=False)
    begun = [*messages, {"role": "assistant", "content": "well"}]
    (continued,) = llm.chat(begun, GREEDY, use_tqdm=False, continue_final_message=True)
    prompt = llm.tokenizer.apply_chat_template(begun, continue_final_message=True)
    assert continued.prompt_token_ids == prompt

    async def main() -> None:
        async with AsyncLLM(TINY, num_kvcache_blocks=64) as shared:
            outputs = [output async for output in shared.chat(messages, GREEDY)]
            assert outputs[-1].token_ids == expected.token_ids
            assert outputs[-1].text == expected.text

    asyncio.run(main())


def test_what_is_shut_down_says_so() -> None:
    async def main() -> None:
        llm = AsyncLLM(TINY, num_kvcache_blocks=64)
        outputs = llm.generate(PROMPT, ENDLESS)
        await anext(outputs)
        await asyncio.get_running_loop().run_in_executor(None, llm.shutdown)
        with pytest.raises(RuntimeError, match="shut down"):
            _ = [output async for output in outputs]
        with pytest.raises(RuntimeError, match="shut down"):
            await collect(llm, PROMPT, GREEDY)
        llm.shutdown()

    asyncio.run(main())


def test_an_engine_that_nobody_has_goes() -> None:
    shared = AsyncLLM(TINY, num_kvcache_blocks=8)
    threads, gone = shared._threads, weakref.ref(shared)
    asyncio.run(collect(shared, PROMPT, GREEDY))
    del shared
    gc.collect()
    assert gone() is None
    for thread in threads:
        thread.join(timeout=10)
        assert not thread.is_alive()


SCRIPT = """
import asyncio, os, sys
from nanovllm import AsyncLLM, SamplingParams
llm = AsyncLLM(sys.argv[1], num_kvcache_blocks=8)
async def main():
    async for output in llm.generate([1, 2], SamplingParams(max_tokens=100_000, ignore_eos=True)):
        break
asyncio.run(main())
child = os.fork()
if child == 0:
    async def refused():
        try:
            async for _ in llm.generate([1, 2]):
                pass
        except RuntimeError as error:
            print("refused:", error, flush=True)
    asyncio.run(refused())
    sys.exit(0)
os.waitpid(child, 0)
print("the end")
"""


def test_a_program_ends_though_its_engine_runs() -> None:
    """Also in a forked child, which is told that the engine is its parent's."""
    start = time.monotonic()
    done = subprocess.run([sys.executable, "-c", SCRIPT, TINY], check=False, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert "refused: the engine does not survive fork()" in done.stdout
    assert done.stdout.endswith("the end\n")
    assert time.monotonic() - start < 30
