"""An answer as it is written, from one caller's loop.

Usage: python examples/streaming.py [MODEL]
MODEL is a directory, a .gguf file or a Hugging Face id; without it the demo model is used.
"""

import sys

from nanovllm import LLM, SamplingParams


def main() -> None:
    if len(sys.argv) > 1:
        model = sys.argv[1]
    else:
        from download_demo_model import demo_model

        model = str(demo_model())

    with LLM(model) as llm:
        prompt = llm.tokenizer.apply_chat_template(
            [{"role": "user", "content": "Count from one to ten."}], add_generation_prompt=True
        )
        params = SamplingParams(temperature=0, max_tokens=80, stop=["8."], skip_special_tokens=True)
        for output in llm.stream(prompt, params):
            print(output.text, end="", flush=True)
        print(f"\n{output.finish_reason}: {output.stop_reason!r}, {output.timing}")


if __name__ == "__main__":
    main()
