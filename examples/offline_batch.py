"""Offline batch generation: many short tasks in one call, answered together.

Usage: python examples/offline_batch.py [MODEL]
MODEL is a directory, a .gguf file or a Hugging Face id; without it the demo model is used.
"""

import sys
from time import perf_counter

from nanovllm import LLM, SamplingParams

# fmt: off
COUNTRIES = [
    "Australia", "Austria", "Canada", "Chile", "China", "Egypt", "Ethiopia", "France", "Greece", "Hungary", "India",
    "Indonesia", "Ireland", "Japan", "Kenya", "Nepal", "Netherlands", "Norway", "Russia", "Sweden", "Switzerland",
    "Thailand",
]
# fmt: on


def main() -> None:
    if len(sys.argv) > 1:
        model = sys.argv[1]
    else:
        from download_demo_model import demo_model

        model = str(demo_model())

    with LLM(model) as llm:
        print(llm)
        questions = [f"What is the capital of {country}?" for country in COUNTRIES]
        conversations = [[{"role": "user", "content": question}] for question in questions]
        start = perf_counter()
        outputs = llm.chat(conversations, SamplingParams(temperature=0, max_tokens=24))  # 0 is greedy
        seconds = perf_counter() - start

    for country, output in zip(COUNTRIES, outputs, strict=True):
        print(f"{country + ':':<13} {output['text'].strip()}")
    prompt_tokens = sum(output["num_prompt_tokens"] for output in outputs)
    output_tokens = sum(len(output["token_ids"]) for output in outputs)
    print(
        f"\n{len(outputs)} tasks in {seconds:.2f} s: {prompt_tokens} prompt tokens, {output_tokens} output tokens ",
        end="",
    )
    print(f"({output_tokens / seconds:.0f} output tok/s)")


if __name__ == "__main__":
    main()
