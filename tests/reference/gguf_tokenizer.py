"""Rebuilds a Hugging Face tokenizer from a GGUF vocabulary (`tokenizer.ggml.model = gpt2`, byte-level BPE)."""

from __future__ import annotations

from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

NORMAL, CONTROL, USER_DEFINED = 1, 3, 4
"""Values of `tokenizer.ggml.token_type`."""

QWEN2_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
LLAMA3_SPLIT = QWEN2_SPLIT.replace(r"|\p{N}|", r"|\p{N}{1,3}|")


def build_tokenizer(meta: dict[str, Any]) -> Tokenizer:
    """Build a `tokenizers.Tokenizer` from a GGUF file's metadata. Raises ValueError for a scheme it does not know."""
    if meta["tokenizer.ggml.model"] != "gpt2":
        raise ValueError(f"unsupported tokenizer model {meta['tokenizer.ggml.model']!r}")
    tokens: list[str] = meta["tokenizer.ggml.tokens"]
    types: list[int] = meta["tokenizer.ggml.token_type"]
    pre = meta.get("tokenizer.ggml.pre", "gpt-2")
    merges = [tuple(merge.split(" ", 1)) for merge in meta["tokenizer.ggml.merges"]]
    vocabulary = {token: i for i, token in enumerate(tokens)}

    tokenizer = Tokenizer(models.BPE(vocabulary, merges, ignore_merges=pre == "llama-bpe"))
    tokenizer.pre_tokenizer = _pre_tokenizer(pre)
    if pre == "qwen2":
        tokenizer.normalizer = normalizers.NFC()
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(_added(tokens, types, CONTROL))
    tokenizer.add_tokens(_added(tokens, types, USER_DEFINED))
    tokenizer.post_processor = _post_processor(meta, tokens)
    return tokenizer


def tokenizer_config(meta: dict[str, Any]) -> dict[str, Any]:
    """Return the matching tokenizer_config.json, without the chat template."""
    tokens = meta["tokenizer.ggml.tokens"]
    config: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,
        "model_max_length": meta[f"{meta['general.architecture']}.context_length"],
    }
    for gguf_key, key in (("bos", "bos"), ("eos", "eos"), ("unknown", "unk"), ("padding", "pad")):
        token_id = meta.get(f"tokenizer.ggml.{gguf_key}_token_id")
        if token_id is not None:
            config[f"{key}_token"] = tokens[token_id]
    return config


def _added(tokens: list[str], types: list[int], kind: int) -> list[AddedToken]:
    return [
        AddedToken(token, special=kind == CONTROL, normalized=False)
        for token, type_ in zip(tokens, types, strict=True)
        if type_ == kind
    ]


def _pre_tokenizer(pre: str) -> pre_tokenizers.PreTokenizer:
    if pre in ("gpt-2", "default"):
        return pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    if pre == "smollm":
        digits = pre_tokenizers.Digits(individual_digits=True)
        return pre_tokenizers.Sequence([digits, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)])
    if pre in ("qwen2", "llama-bpe"):
        split = Regex(QWEN2_SPLIT if pre == "qwen2" else LLAMA3_SPLIT)
        return pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(split, behavior="isolated"),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
            ]
        )
    raise ValueError(f"unsupported pre-tokenizer {pre!r}")


def _post_processor(meta: dict[str, Any], tokens: list[str]) -> processors.PostProcessor:
    byte_level = processors.ByteLevel(trim_offsets=False)
    ids = {
        name: meta[f"tokenizer.ggml.{name}_token_id"]
        for name in ("bos", "eos")
        if meta.get(f"tokenizer.ggml.add_{name}_token")
    }
    if not ids:
        return byte_level
    start = f"{tokens[ids['bos']]} " if "bos" in ids else ""
    end = f" {tokens[ids['eos']]}" if "eos" in ids else ""
    template = processors.TemplateProcessing(
        single=f"{start}$A{end}",
        pair=f"{start}$A{end} {start}$B{end}",
        special_tokens=[(tokens[i], i) for i in ids.values()],
    )
    return processors.Sequence([byte_level, template])
