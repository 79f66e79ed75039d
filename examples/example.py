"""nano-vLLM's example: two prompts through the chat template, on a model given as an argument.

Usage: python examples/example.py [MODEL]
MODEL is a directory, a .gguf file or a Hugging Face id; without it the demo model is used.
"""

import sys
from time import perf_counter

from nanovllm import LLM, SamplingParams


def main() -> None:
    if len(sys.argv) > 1:
        model = sys.argv[1]
    else:
        from download_demo_model import demo_model

        model = str(demo_model())

    start = perf_counter()
    llm = LLM(model, enforce_eager=True, tensor_parallel_size=1)
    print(f"Loaded {model} in {perf_counter() - start:.2f} s")

    sampling_params = SamplingParams(temperature=0.6, max_tokens=256)
    questions = ["what is a computer?", "give three tips for staying healthy"]
    prompts = [
        llm.tokenizer.apply_chat_template(
            [{"role": "user", "content": question}], tokenize=False, add_generation_prompt=True
        )
        for question in questions
    ]

    start = perf_counter()
    outputs = llm.generate(prompts, sampling_params)
    seconds = perf_counter() - start

    for prompt, output in zip(prompts, outputs, strict=True):
        print(f"\nPrompt: {prompt!r}")
        print(f"Completion: {output['text']!r}")
    prompt_tokens = sum(output["num_prompt_tokens"] for output in outputs)
    output_tokens = sum(len(output["token_ids"]) for output in outputs)
    print(f"\n{prompt_tokens} prompt tokens, {output_tokens} output tokens in {seconds:.2f} s ", end="")
    print(f"({output_tokens / seconds:.0f} output tok/s)")


if __name__ == "__main__":
    main()
