"""Makes `tokenizers/`: small tokenizers of other kinds than the tiny models', and transformers' answers."""

from __future__ import annotations

import gzip
import itertools
import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import transformers
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

HERE = Path(__file__).resolve().parent
FOLDER = HERE / "tokenizers"
TEXT = (HERE / "public_domain.txt").read_text(encoding="utf-8")
TEXTS = ["Alice was beginning", "", "naïve 😀 don't , stop .", "the Rabbit 's hole !"]
OPTIONS: dict[str, list[Any]] = {
    "add_special_tokens": [True, False],
    "padding": [False, True, "max_length"],
    "truncation": [None, False, True, "only_first", "only_second"],
    "max_length": [None, 3, 8],
    "padding_side": [None, "left"],
    "pad_to_multiple_of": [None, 4],
}
MESSAGES = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": " yes, no "}]
TEMPLATES = {
    "plain": "{% for m in messages %}<{{ m.role }}>{{ m.content }}</s>{% endfor %}",
    "trimmed": "{% for m in messages %}<{{ m.role }}>{{ m.content | trim }}</s>{% endfor %}",
    "none": "{{ messages | length }}",
    "reasoning": "{% for m in messages %}<{{ m.role }}>{{ m.thoughts }}|{{ m.content }}</s>{% endfor %}",
}


def word_piece() -> tuple[Tokenizer, dict[str, Any]]:
    """BERT's kind: lower case, tokens around and between texts with types, spaces to be cleaned up."""
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))  # noqa: S106 - no secret
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece(cleanup=False)
    trainer = trainers.WordPieceTrainer(vocab_size=160, special_tokens=special, show_progress=False)
    tokenizer.train_from_iterator(TEXT.splitlines(), trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS]:0 $A:0 [SEP]:0",
        pair="[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1",
        special_tokens=[(token, tokenizer.token_to_id(token)) for token in ("[CLS]", "[SEP]")],
    )
    roles = dict(zip(("pad_token", "unk_token", "cls_token", "sep_token", "mask_token"), special, strict=True))
    return tokenizer, roles | {
        "clean_up_tokenization_spaces": True,
        "model_input_names": ["input_ids", "token_type_ids", "attention_mask"],
        "model_max_length": 12,
    }


def unigram() -> tuple[Tokenizer, dict[str, Any]]:
    """SentencePiece's kind: a token before texts, both sides left, special tokens without a role, no padding token."""
    special = ["<unk>", "<s>", "</s>", "<tool>", "<img>"]
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(vocab_size=160, special_tokens=special, unk_token="<unk>", show_progress=False)  # noqa: S106
    tokenizer.train_from_iterator(TEXT.splitlines(), trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s>:1 $B:1", special_tokens=[("<s>", tokenizer.token_to_id("<s>"))]
    )
    return tokenizer, {
        "unk_token": "<unk>",
        "bos_token": "<s>",
        "eos_token": "</s>",
        "additional_special_tokens": ["<tool>", "<img>"],
        "padding_side": "left",
        "truncation_side": "left",
        "model_input_names": ["input_ids", "attention_mask"],
        "model_max_length": 1000000000000000019884624838656,
    }


def main() -> None:
    """Write the tokenizers and what transformers answers."""
    warnings.simplefilter("ignore")
    transformers.logging.set_verbosity_error()
    directories = {}
    for name, make in (("word_piece", word_piece), ("unigram", unigram)):
        directories[name] = FOLDER / name
        directories[name].mkdir(parents=True, exist_ok=True)
        tokenizer, config = make()
        # Training breaks ties at random; a tokenizer that is there stays, so that the same answers can be made again.
        if not (directories[name] / "tokenizer.json").exists():
            tokenizer.save(str(directories[name] / "tokenizer.json"))
        write_json(directories[name] / "tokenizer_config.json", {"tokenizer_class": "PreTrainedTokenizerFast"} | config)
    directories |= {"tiny_qwen3": HERE / "tiny_qwen3", "tiny_llama": HERE / "tiny_llama"}
    recorded = {name: record(directory) for name, directory in directories.items()}
    # Without a time, so that the same answers are the same file.
    with gzip.GzipFile(FOLDER / "calls.json.gz", "wb", mtime=0) as file:
        file.write(json.dumps(recorded, ensure_ascii=False, separators=(",", ":")).encode())


def record(directory: Path) -> list[dict[str, Any]]:
    """What the tokenizer answers to each call: the method or attribute, its arguments, and the result."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(directory)
    calls: list[dict[str, Any]] = []

    def call(name: str, *args: Any, **kwargs: Any) -> Any:
        entry: dict[str, Any] = {"name": name, "args": args, "kwargs": kwargs}
        try:
            answer = getattr(tokenizer, name)
            result = answer(*args, **kwargs) if callable(answer) else answer
            calls.append(entry | {"result": plain(result)})
        except Exception:  # transformers and the library tokenizers raise errors of many types
            calls.append(entry | {"result": "error"})
            return None
        return result

    for name in (
        *("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"),
        *("bos_token_id", "eos_token_id", "unk_token_id", "sep_token_id", "pad_token_id", "cls_token_id"),
        *("all_special_ids", "all_special_tokens", "model_max_length", "padding_side", "truncation_side"),
        *("is_fast", "vocab_size", "pad_token_type_id", "get_added_vocab"),
    ):
        call(name)
    for pair in (False, True):
        call("num_special_tokens_to_add", pair)
    for text in TEXTS:
        ids = call("encode", text)
        call("tokenize", text)
        call("tokenize", text, "a b", add_special_tokens=True)
        tokens = call("convert_ids_to_tokens", ids)
        call("convert_ids_to_tokens", ids, skip_special_tokens=True)
        call("convert_tokens_to_ids", tokens)
        call("convert_tokens_to_string", tokens)
        for skip in (False, True):
            call("decode", ids, skip_special_tokens=skip)
            call("decode", ids, skip_special_tokens=skip, clean_up_tokenization_spaces=False)
            call("batch_decode", [ids, ids[:2]], skip_special_tokens=skip)
    call("convert_tokens_to_ids", ["a", "no such token"])
    call("encode", TEXTS[0], TEXTS[3], max_length=9, truncation=True)
    call("encode", TEXTS[0], return_tensors="np", padding="max_length", max_length=16)
    # A part of the combinations, spread over all of them by a step that no number of options divides.
    for index, values in enumerate(itertools.product(*OPTIONS.values())):
        if index % 7 == 0:
            given = {name: value for name, value in zip(OPTIONS, values, strict=True) if value is not None}
            text, pair = TEXTS[index % 4], TEXTS[index // 4 % 4] if index % 3 else None
            call("__call__", *([text, pair] if index % 2 else [[text, TEXTS[0]], pair and [pair, TEXTS[2]]]), **given)
    # Without the empty text, whose row numpy takes for floating point there.
    call("__call__", [text for text in TEXTS if text], return_tensors="np")
    call("__call__", [TEXTS[0], TEXTS[0]], return_tensors="np")
    call("__call__", [(TEXTS[0], TEXTS[3]), (TEXTS[2], "")], return_token_type_ids=True, return_attention_mask=False)
    chat = {"conversation": MESSAGES, "tokenize": False, "continue_final_message": True}
    for template in TEMPLATES.values():
        call("apply_chat_template", **chat, chat_template=template)
        call("apply_chat_template", **chat, add_generation_prompt=True, chat_template=template)
    call(
        "apply_chat_template",
        [MESSAGES[0], MESSAGES[1] | {"thoughts": "well "}],
        tokenize=False,
        continue_final_message="thoughts",
        chat_template=TEMPLATES["reasoning"],
    )
    for given in (
        {"return_dict": True, "padding": True},
        {"return_dict": False, "return_tensors": "np", "padding": "max_length", "max_length": 64},
        {"return_dict": False, "truncation": True, "max_length": 5},
    ):
        call("apply_chat_template", [MESSAGES, MESSAGES[:1]], chat_template=TEMPLATES["plain"], **given)
        call("apply_chat_template", MESSAGES, chat_template=TEMPLATES["plain"], **given)
    return calls


def plain(value: Any) -> Any:
    """A result as JSON: an array is its type and elements."""
    if isinstance(value, np.ndarray):
        return {"dtype": str(value.dtype), "array": [plain(item) for item in value] if value.ndim else value.item()}
    if isinstance(value, np.integer):
        return int(value)
    if hasattr(value, "keys"):
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, list | tuple) else value


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Write JSON with sorted keys, so that a diff shows what changed."""
    path.write_text(json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
