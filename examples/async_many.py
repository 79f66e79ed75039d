"""Many callers of one engine in an event loop, one of which loses patience.

Usage: python examples/async_many.py [MODEL]
MODEL is a directory, a .gguf file or a Hugging Face id; without it the demo model is used.
"""

import asyncio
import sys
from contextlib import aclosing

from nanovllm import AsyncLLM, SamplingParams

PLANETS = ["Mercury", "Venus", "Mars", "Jupiter", "Saturn", "Uranus", "Neptune"]


async def describe(llm: AsyncLLM, planet: str) -> str:
    """The whole answer to a question."""
    messages = [{"role": "user", "content": f"Describe {planet} in one short sentence."}]
    text = ""
    async for output in llm.chat(messages, SamplingParams(temperature=0, max_tokens=40)):
        text = output.text
    return text


async def glance(llm: AsyncLLM) -> str:
    """The first words of a long story; the rest is never computed."""
    async with aclosing(llm.generate("Once upon a time", SamplingParams(temperature=0, max_tokens=1000))) as outputs:
        async for output in outputs:
            if len(output.text) > 40:
                break
    return str(output.text)


async def ask(model: str) -> None:
    async with AsyncLLM(model) as llm:
        *answers, story = await asyncio.gather(*(describe(llm, planet) for planet in PLANETS), glance(llm))
        for planet, answer in zip(PLANETS, answers, strict=True):
            print(f"{planet + ':':<9} {answer.strip()}")
        print(f"\n{story} ...\n{llm.stats()}")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        asyncio.run(ask(sys.argv[1]))
    else:
        from download_demo_model import demo_model

        asyncio.run(ask(str(demo_model())))
