"""Which of some texts is nearest in meaning to a question: embeddings, compared by their cosine.

Usage: python examples/embeddings.py [MODEL]
MODEL is a directory, a .gguf file or a Hugging Face id; without it the demo model is used. It is no embedding model, so
the mean of its hidden states has to do; one that was trained for it (Qwen3-Embedding) is used with `pooling="last"`.
"""

import sys

import numpy as np

from nanovllm import LLM

TEXTS = [
    "The cat sleeps on the sofa all afternoon.",
    "Interest rates rose again this quarter.",
    "A kitten was napping on the couch.",
]


def main() -> None:
    if len(sys.argv) > 1:
        model = sys.argv[1]
    else:
        from download_demo_model import demo_model

        model = str(demo_model())

    with LLM(model) as llm:
        question, *texts = np.stack([output.embedding for output in llm.embed(TEXTS, pooling="mean")])
        for text, cosine in zip(TEXTS[1:], texts @ question, strict=True):
            print(f"{cosine:.3f}  {text}")


if __name__ == "__main__":
    main()
