"""Both architectures from GGUF files that the package `gguf` writes, in every type it can write for such small models.

The tiny checkpoints are written with llama.cpp's names, q and k permuted for llama as its converter does. Float32 files
must give transformers' logits; the others those of the numpy oracle over the weights that `gguf` itself dequantises.
"""

from __future__ import annotations

import json
from pathlib import Path

import gguf
import numpy as np
import pytest

from nanovllm import LLM, SamplingParams
from nanovllm.exceptions import ModelFormatError, UnsupportedModelError
from reference.gguf_weights import LAYER_NAMES, MODEL_NAMES, load_gguf, permute
from reference.safetensors_io import load_checkpoint
from reference.transformer import forward
from runners import model_runner
from tensor_types import TYPES, WRITTEN_BY_PACKAGE

GOLDEN = Path(__file__).parent / "golden"
ARCHITECTURES = {"tiny_llama": "llama", "tiny_qwen3": "qwen3"}
KINDS = [kind for kind in WRITTEN_BY_PACKAGE if 64 % TYPES[kind][1] == 0]
"""Types for the matrices: the shortest rows have 64 elements, and must be whole blocks."""
ALLOWED = {"F32": 1e-10, "F16": 1e-9, "BF16": 2e-4}
"""The normalised mean squared error allowed to the logits, where it is not the 1e-7 of quantised types.

Products with bfloat16 weights round the activations to bfloat16 too."""


def gguf_name(name: str) -> str:
    """llama.cpp's name of a Hugging Face tensor."""
    for theirs, ours in MODEL_NAMES.items():
        if ours == name:
            return theirs
    _, _, layer, rest = name.split(".", 3)
    module, kind = rest.rsplit(".", 1)
    theirs = next(theirs for theirs, ours in LAYER_NAMES.items() if ours == module)
    return f"blk.{layer}.{theirs}.{kind}"


def write_vocabulary(writer: gguf.GGUFWriter, directory: Path, vocab_size: int) -> None:
    """The tokenizer as a byte-level BPE vocabulary; ids the model has beyond it are unused ones."""
    tokenizer = json.loads((directory / "tokenizer.json").read_text(encoding="utf-8"))
    tokens = {i: token for token, i in tokenizer["model"]["vocab"].items()}
    special = {added["id"]: added["content"] for added in tokenizer["added_tokens"]}
    tokens |= special
    unused, control, normal = gguf.TokenType.UNUSED, gguf.TokenType.CONTROL, gguf.TokenType.NORMAL
    kinds = [control if i in special else normal if i in tokens else unused for i in range(vocab_size)]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list([tokens.get(i, f"[unused{i}]") for i in range(vocab_size)])
    writer.add_token_types(kinds)
    merges = tokenizer["model"]["merges"]
    writer.add_token_merges([merge if isinstance(merge, str) else " ".join(merge) for merge in merges])
    writer.add_eos_token_id(2)


def write_model(path: Path, name: str, kind: str, setting: str | None = None) -> None:
    """The checkpoint `name` as a GGUF file with matrices of type `kind`; the key `setting` has an odd value."""
    weights, config = load_checkpoint(GOLDEN / name)
    heads = {"q_proj": config["num_attention_heads"], "k_proj": config["num_key_value_heads"]}
    rope = config.get("rope_parameters") or config
    writer = gguf.GGUFWriter(path, ARCHITECTURES[name])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_key_length(config["head_dim"])
    writer.add_value_length(config["head_dim"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(rope["rope_theta"])
    if setting is not None:
        writer.kv_data[0].pop(setting, None)
        writer.add_array(setting, ["odd"])
    write_vocabulary(writer, GOLDEN / name, config["vocab_size"])
    for tensor, values in weights.items():
        module = tensor.rsplit(".", 2)[-2]
        array = permute(values, heads[module]) if ARCHITECTURES[name] == "llama" and module in heads else values
        if array.ndim == 1 or kind == "F32":
            writer.add_tensor(gguf_name(tensor), np.ascontiguousarray(array, dtype=np.float32))
        else:
            quantised = gguf.GGMLQuantizationType[kind]
            data = gguf.quants.quantize(np.ascontiguousarray(array, dtype=np.float32), quantised)
            writer.add_tensor(gguf_name(tensor), data, raw_dtype=quantised)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_logits_are_those_of_the_dequantised_weights(tmp_path: Path, name: str, kind: str) -> None:
    path = tmp_path / f"{name}.{kind}.gguf"
    write_model(path, name, kind)
    with np.load(GOLDEN / f"{name}_logits.npz") as arrays:
        ids, golden = arrays["ids_257"], arrays["logits_257"]
    expected = golden if kind == "F32" else forward(*load_gguf(path), ids)
    logits = model_runner(path, kv_cache_dtype="float32").logits(ids.tolist())
    error = np.square(logits - expected).mean() / np.square(expected).mean()
    assert error < ALLOWED.get(kind, 1e-7), error


def settings(keys: type = gguf.Keys) -> set[str]:
    """Every metadata key that `gguf` knows and that begins with the architecture."""
    own = {value for value in vars(keys).values() if isinstance(value, str) and value.startswith("{arch}.")}
    nested = [value for name, value in vars(keys).items() if isinstance(value, type) and not name.startswith("_")]
    return own.union(*map(settings, nested))


HARMLESS = {
    *("tensor_data_layout", "pooling_type", "attention.layer_norm_epsilon", "rope.scaling.finetuned"),
    *("rope.freq_base_swa", "rope.dimension_count_swa", "attention.key_length_swa", "attention.value_length_swa"),
}
"""What these architectures do the same with, whatever it is."""


def refusal_of(path: Path) -> str | None:
    """What the error says that loading the model gives."""
    try:
        LLM(path, num_kvcache_blocks=1, num_threads=1, max_model_len=64)
    except (ModelFormatError, UnsupportedModelError) as error:
        return str(error)
    return None


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_no_key_is_ignored_in_silence(tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture) -> None:
    """Whatever `gguf` has a key for is read or refused, both of which an odd value shows, or named in a warning."""
    refused = 0
    for key in sorted(settings()):
        path, full = tmp_path / "model.gguf", key.format(arch=ARCHITECTURES[name], dense="dense_2")
        path.unlink(missing_ok=True)
        write_model(path, name, "F32", full)
        caplog.clear()
        refusal = refusal_of(path)
        if refusal is None:
            assert (full in caplog.text) != (key.removeprefix("{arch}.") in HARMLESS), key
        else:
            assert full in refusal
            assert str(path) in refusal
            refused += 1
    assert refused > 40


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_gguf_file_answers_as_its_directory(tmp_path: Path, name: str) -> None:
    path = tmp_path / f"{name}.gguf"
    write_model(path, name, "F32")
    greedy = SamplingParams(temperature=0, max_tokens=12)
    answers = [
        LLM(model, num_kvcache_blocks=4).generate("the quick brown fox", greedy, use_tqdm=False)[0]
        for model in (path, GOLDEN / name)
    ]
    assert answers[0]["token_ids"] == answers[1]["token_ids"]
    assert answers[0]["text"] == answers[1]["text"]
