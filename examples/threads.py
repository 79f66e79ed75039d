"""Several threads of one program that share an engine: their requests are computed together.

Usage: python examples/threads.py [MODEL]
MODEL is a directory, a .gguf file or a Hugging Face id; without it the demo model is used.
"""

import sys
from concurrent.futures import ThreadPoolExecutor

from nanovllm import LLM, SamplingParams

SUMS = [(a, b) for a in range(2, 5) for b in range(1, 5)]


def main() -> None:
    if len(sys.argv) > 1:
        model = sys.argv[1]
    else:
        from download_demo_model import demo_model

        model = str(demo_model())

    with LLM(model) as llm:

        def add(pair: tuple[int, int]) -> str:
            question = [{"role": "user", "content": f"What is {pair[0]} + {pair[1]}?"}]
            return str(llm.chat(question, SamplingParams(temperature=0, max_tokens=24), use_tqdm=False)[0].text)

        with ThreadPoolExecutor(max_workers=4) as pool:
            for (a, b), answer in zip(SUMS, pool.map(add, SUMS), strict=True):
                print(f"{a} + {b}: {answer.strip()}")
        print(f"{llm.metrics().num_generated_tokens} tokens in {llm.metrics().num_steps} steps")


if __name__ == "__main__":
    main()
