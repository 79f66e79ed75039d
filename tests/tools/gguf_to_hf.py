"""Turns a GGUF file into a Hugging Face directory, weights dequantised.

    python tests/tools/gguf_to_hf.py MODEL.gguf DIRECTORY [--dtype float32|bfloat16|float16]

Needs numpy, gguf, tokenizers and safetensors.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from reference.gguf_tokenizer import build_tokenizer, tokenizer_config
from reference.gguf_weights import load_gguf, read_metadata
from reference.safetensors_io import DTYPES, save_file


def convert(source: Path, directory: Path, dtype: str = "float32") -> None:
    """Write config.json, model.safetensors, generation_config.json and the tokenizer's files into `directory`."""
    weights, config = load_gguf(source)
    meta = read_metadata(source)
    directory.mkdir(parents=True, exist_ok=True)
    save_file(weights, directory / "model.safetensors", dtype)
    _write_json(directory / "config.json", config | {"torch_dtype": dtype})
    special = {key: config[key] for key in ("bos_token_id", "eos_token_id") if key in config}
    _write_json(directory / "generation_config.json", special)

    build_tokenizer(meta).save(str(directory / "tokenizer.json"))
    settings = tokenizer_config(meta)
    template = meta.get("tokenizer.chat_template")
    if template is not None:
        # transformers 5 reads the file, and older code the setting.
        settings["chat_template"] = template
        (directory / "chat_template.jinja").write_text(template, encoding="utf-8")
    _write_json(directory / "tokenizer_config.json", settings)


def _write_json(path: Path, value: dict) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description="Turn a GGUF file into a Hugging Face directory, weights dequantised.")
    parser.add_argument("source", type=Path, help="GGUF file")
    parser.add_argument("directory", type=Path, help="where to write; made if missing")
    parser.add_argument("--dtype", choices=DTYPES, default="float32", help="type of the stored weights")
    args = parser.parse_args()
    convert(args.source, args.directory, args.dtype)
    print(f"wrote {args.directory}")


if __name__ == "__main__":
    main()
