"""Offline batch generation: many short tasks in one call, answered together.

Usage: python examples/offline_batch.py MODEL
"""

import sys

from nanovllm import LLM, SamplingParams

REVIEWS = [
    "The battery lasts two days and the screen is gorgeous.",
    "It broke after a week and nobody answers my mails.",
    "Does what it says, nothing more.",
    "My children fight over who may use it first.",
]


def main() -> None:
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    llm = LLM(sys.argv[1])
    conversations = [
        [
            {"role": "system", "content": "Answer with one word: positive, negative or neutral."},
            {"role": "user", "content": review},
        ]
        for review in REVIEWS
    ]
    # The system prompt's tokens are computed once where they fill whole cache blocks; temperature 0 is greedy.
    outputs = llm.chat(conversations, SamplingParams(temperature=0, max_tokens=8))
    for review, output in zip(REVIEWS, outputs, strict=True):
        print(f"{output['text'].strip():<12} {review}")


if __name__ == "__main__":
    main()
