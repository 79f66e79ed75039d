"""Makes `gguf_tokenizers/`: a small tokenizer of each kind of GGUF vocabulary, in both forms.

Each is trained here and written as a `tokenizer.json` in the manner of the models that come with its kind, and
llama.cpp's own converter makes the GGUF vocabulary of it. Run it with llama.cpp's
checkout and its `gguf-py` on the path. Training breaks ties at random, so that no two runs make the same files.
"""

from __future__ import annotations

import json
import random
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gguf
import sentencepiece
from conversion.base import TextModel
from conversion.gemma import Gemma4Model
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers.tokenization_utils_sentencepiece import SentencePieceExtractor

HERE = Path(__file__).resolve().parent
FOLDER = HERE / "gguf_tokenizers"
TEXT = (HERE / "public_domain.txt").read_text(encoding="utf-8").splitlines()
# Pieces that the training texts mix: words of many scripts, code, numbers, white space.
PIECES = [
    *("the", " the", " and", "I'm", " don't", "we'LL", " fooBar", " HTTPServer", " naïve", " é", "\u0301", " über"),
    *(" Привет", " мир", " Ωμέγα", " שלום", " مرحبا", " हिन्दी", " ภาษาไทย"),
    *(" 日本語", "漢字", "テキスト", " 한국어", "我想"),
    *(" def f(x):", "\n    return x", "\n\n", "\r\n", "\t", "  ", "    ", "        "),
    *(" 12", "345", " 1,234.5", " 2026-11-26", "½", "²"),
    *(" !=", " == ", "();", "{}", "[0]", "->", "...", "!!", "//", "🚀", " 😀", "👩‍👩‍👧"),
]
CONTRACTIONS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
UPPER, LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
WORDS = rf"[^\r\n\p{{L}}\p{{N}}]?{UPPER}*{LOWER}+%s|[^\r\n\p{{L}}\p{{N}}]?{UPPER}+{LOWER}*%s"
SPACES = r"\s*[\r\n]+|\s+(?!\S)|\s+"
BYTE_LEVEL_SIZE, SENTENCE_PIECE_SIZE = 420, 600


def texts(count: int = 3000) -> Iterator[str]:
    """Draw the texts to train on."""
    drawn = random.Random(11)
    yield from TEXT
    for _ in range(count):
        yield "".join(drawn.choices(PIECES, k=drawn.randrange(1, 20)))


def byte_level(cuts: list[Any], special: list[str], normalizer: Any = None, **options: Any) -> Tokenizer:
    """Train byte-level BPE over the given cuts; the first special token begins texts if `bos` is set."""
    bos, user_defined = options.pop("bos", False), options.pop("user_defined", [])
    tokenizer = Tokenizer(models.BPE(**options))
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    *before, last = cuts
    if isinstance(last, str):
        before, last = [*before, last], pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    steps = [pre_tokenizers.Split(Regex(cut), "isolated") if isinstance(cut, str) else cut for cut in before]
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([*steps, last])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=BYTE_LEVEL_SIZE, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(texts(), trainer)
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    tokenizer.add_tokens([AddedToken(token, normalized=False) for token in user_defined])
    if bos:
        tokenizer.post_processor = around(tokenizer, special[0])
    return tokenizer


def around(tokenizer: Tokenizer, bos: str) -> Any:
    """Return what puts a token before a text."""
    ids = [(bos, tokenizer.token_to_id(bos))]
    return processors.TemplateProcessing(single=f"{bos} $A", pair=f"{bos} $A $B:1", special_tokens=ids)


def gpt2_words() -> Any:
    """Return GPT-2's own cut, which the library knows."""
    return pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)


def smollm() -> Tokenizer:
    """Single digits, then GPT-2's words."""
    return byte_level([pre_tokenizers.Digits(individual_digits=True), gpt2_words()], ["<|im_start|>", "<|im_end|>"])


def llama_bpe() -> Tokenizer:
    """Llama 3: numbers by threes, whole words first, a token before each text."""
    cut = rf"{CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{{1,3}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|{SPACES}"
    return byte_level([cut], ["<|begin_of_text|>", "<|eot_id|>"], ignore_merges=True, bos=True)


def qwen2() -> Tokenizer:
    """Qwen: normalisation form C, single digits, tokens that are matched but not special."""
    cut = rf"{CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|{SPACES}"
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    return byte_level([cut], special, normalizers.NFC(), user_defined=["<tool_call>", "</tool_call>", "<think>"])


def tekken() -> Tokenizer:
    """Mistral: words end where a capital follows a small letter."""
    cut = WORDS % ("", "") + rf"|\p{{N}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|{SPACES}"
    return byte_level([cut], ["<s>", "</s>", "[INST]", "[/INST]"], ignore_merges=True, bos=True)


def gpt_4o() -> Tokenizer:
    """gpt-oss: as Mistral's, with contractions and numbers by threes, and several ends."""
    cut = WORDS % (f"{CONTRACTIONS}?", f"{CONTRACTIONS}?")
    cut += rf"|\p{{N}}{{1,3}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|{SPACES}"
    return byte_level([cut], ["<|startoftext|>", "<|start|>", "<|end|>", "<|return|>", "<|call|>"])


DEEPSEEK = {"bos_token": "<\uff5cbegin▁of▁sentence\uff5c>", "eos_token": "<\uff5cend▁of▁sentence\uff5c>"}


def deepseek_v3() -> Tokenizer:
    """Three cuts: numbers, East Asian writing, the rest."""
    rest = r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"""
    rest += rf"| ?[\p{{P}}\p{{S}}]+[\r\n]*|{SPACES}"
    cuts = [r"\p{N}{1,3}", "[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+", rest]
    return byte_level(cuts, [*DEEPSEEK.values(), "<\uff5cUser\uff5c>"], bos=True)


def sentence_piece(directory: Path, prefix: bool, user_defined: list[str]) -> Tokenizer:
    """Train SentencePiece's BPE, leave its `tokenizer.model`, and write it as transformers converts it."""
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=(line.replace("\n", "▁") for line in texts()),
        model_prefix=str(directory / "tokenizer"),
        model_type="bpe",
        vocab_size=SENTENCE_PIECE_SIZE,
        byte_fallback=True,
        character_coverage=0.98,
        normalization_rule_name="identity",
        add_dummy_prefix=prefix,
        remove_extra_whitespaces=False,
        allow_whitespace_only_pieces=True,
        split_digits=True,
        user_defined_symbols=user_defined,
        num_threads=1,
        minloglevel=2,
    )
    (directory / "tokenizer.vocab").unlink()
    vocab, _, merges = SentencePieceExtractor(str(directory / "tokenizer.model")).extract()
    tokenizer = Tokenizer(models.BPE(vocab, merges, fuse_unk=True, byte_fallback=True, unk_token="<unk>"))  # noqa: S106
    spaces = normalizers.Replace(" ", "▁")
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), spaces]) if prefix else spaces
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    tokenizer.decoder = decoders.Sequence([*steps, decoders.Strip(" ", 1, 0)] if prefix else steps)
    special = ["<unk>", "<s>", "</s>", *(token for token in user_defined if "turn" in token)]
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    tokenizer.add_tokens([AddedToken(token, normalized=False) for token in user_defined if token not in special])
    tokenizer.post_processor = around(tokenizer, "<s>")
    return tokenizer


def llama(directory: Path) -> Tokenizer:
    """Llama 2, Mistral, Phi-3: a space before each text."""
    return sentence_piece(directory, prefix=True, user_defined=["<table>"])


def gemma3(directory: Path) -> Tokenizer:
    """Gemma 3: no space before; the ends of turns are special."""
    return sentence_piece(directory, prefix=False, user_defined=["<start_of_turn>", "<end_of_turn>", "<table>"])


def gemma4(directory: Path) -> Tokenizer:  # noqa: ARG001 - one shape for all
    """Gemma 4: BPE over whole texts with listed merges, and bytes for what is no token."""
    special = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"]
    trained = Tokenizer(models.BPE())
    trained.normalizer = normalizers.Replace(" ", "▁")
    trained.pre_tokenizer = pre_tokenizers.Split(Regex(r"▁+|\n+|[^▁\n]+"), "isolated")
    trainer = trainers.BpeTrainer(
        vocab_size=SENTENCE_PIECE_SIZE - 256 - len(special), limit_alphabet=150, show_progress=False
    )
    trained.train_from_iterator(texts(), trainer)
    model = json.loads(trained.to_str())["model"]
    tokens = [*special, *(f"<0x{byte:02X}>" for byte in range(256)), *sorted(model["vocab"], key=model["vocab"].get)]
    vocab = {token: index for index, token in enumerate(tokens)}
    merges = [tuple(merge) for merge in model["merges"]]
    tokenizer = Tokenizer(models.BPE(vocab, merges, fuse_unk=True, byte_fallback=True, unk_token="<unk>"))  # noqa: S106
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    tokenizer.add_special_tokens([AddedToken("<|turn>", special=True), AddedToken("<turn|>", special=True)])
    tokenizer.post_processor = around(tokenizer, "<bos>")
    return tokenizer


# The cut's name in GGUF, and the roles of tokens.
BYTE_LEVEL: dict[str, tuple[Callable[[], Tokenizer], dict[str, str]]] = {
    "smollm": (smollm, {"eos_token": "<|im_end|>"}),
    "llama-bpe": (llama_bpe, {"bos_token": "<|begin_of_text|>", "eos_token": "<|eot_id|>"}),
    "qwen2": (qwen2, {"eos_token": "<|im_end|>"}),
    "tekken": (tekken, {"bos_token": "<s>", "eos_token": "</s>"}),
    "gpt-4o": (gpt_4o, {"bos_token": "<|startoftext|>", "eos_token": "<|return|>"}),
    "deepseek-v3": (deepseek_v3, DEEPSEEK),
}
SENTENCE_PIECE: dict[str, tuple[Callable[[Path], Tokenizer], dict[str, str]]] = {
    "llama": (llama, {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}),
    "gemma3": (gemma3, {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}),
    "gemma4": (gemma4, {"bos_token": "<bos>", "eos_token": "<eos>", "unk_token": "<unk>", "pad_token": "<pad>"}),
}


def main() -> None:
    """Write the tokenizers named on the command line, or all."""
    for name in sys.argv[1:] or [*BYTE_LEVEL, *SENTENCE_PIECE]:
        directory = FOLDER / name
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(parents=True)
        with tempfile.TemporaryDirectory() as folder:
            source = Path(folder)
            if name in BYTE_LEVEL:
                train, roles = BYTE_LEVEL[name]
                tokenizer = train()
            else:
                train_in, roles = SENTENCE_PIECE[name]
                tokenizer = train_in(source)
            tokenizer.save(str(source / "tokenizer.json"))
            config: dict[str, Any] = {"tokenizer_class": "PreTrainedTokenizerFast", **roles}
            added = tokenizer.get_added_tokens_decoder()
            config["extra_special_tokens"] = [token.content for token in added.values() if token.special]
            config["added_tokens_decoder"] = {str(index): described(token) for index, token in added.items()}
            (source / "tokenizer_config.json").write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n")
            (source / "config.json").write_text('{"model_type": "llama"}')
            convert(name, source, directory / "vocab.gguf")
            for file in ("tokenizer.json", "tokenizer_config.json"):
                shutil.copy(source / file, directory / file)


def described(token: AddedToken) -> dict[str, Any]:
    """Return an added token as tokenizer_config.json has it."""
    fields = ("content", "single_word", "lstrip", "rstrip", "normalized", "special")
    return {field: getattr(token, field) for field in fields}


def convert(name: str, source: Path, file: Path) -> None:
    """Write the GGUF vocabulary of a directory as llama.cpp's converter does."""
    writer = gguf.GGUFWriter(file, "llama")
    model: Any = SimpleNamespace(dir_model=source, hparams={}, gguf_writer=writer)
    for method in ("does_token_look_special", "_create_vocab_sentencepiece", "get_vocab_base", "find_hparam"):
        setattr(model, method, getattr(TextModel, method).__get__(model))
    # Which cut it is the converter knows by the ids of one text, of real tokenizers alone.
    model.get_vocab_base_pre = lambda _: name
    if name in BYTE_LEVEL:
        TextModel._set_vocab_gpt2(model)
    elif name == "gemma4":
        Gemma4Model.set_vocab(model)
    else:
        TextModel._set_vocab_sentencepiece(model)
        if name == "gemma3":
            writer.add_add_space_prefix(False)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()


if __name__ == "__main__":
    main()
