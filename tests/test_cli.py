"""The command `nanovllm`: what it says of a model, and the files it makes."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest

from conftest import GOLDEN
from golden import family_cases
from nanovllm import LLM, SamplingParams
from runners import model_runner


def run(*args: str | Path, check: bool = True) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "nanovllm", *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, check=check, timeout=120)


def error(*args: str | Path) -> str:
    """The one line that a failing command prints."""
    done = run(*args, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("nanovllm: ")
    assert done.stderr.count("\n") == 1, done.stderr
    return done.stderr


def info(model: str | Path, *options: str) -> dict[str, Any]:
    return dict(json.loads(run("info", model, "--json", *options).stdout))


def nmse(expected: np.ndarray, got: np.ndarray) -> float:
    return float(np.sum((expected - got) ** 2) / np.sum(expected.astype(np.float64) ** 2))


def test_info_counts_what_the_file_holds(demo_model: str) -> None:
    report = info(demo_model, "--context", "1000", "--tensors")
    tensors = gguf.GGUFReader(demo_model).tensors
    assert report["architecture"] == "llama"
    assert report["parameters"] == sum(int(t.n_elements) for t in tensors)
    assert report["memory"]["weight_bytes"] == sum(int(t.n_bytes) for t in tensors)
    assert {q["name"]: q["tensors"] for q in report["quantization"]} == {"Q4_1": 210, "Q8_0": 1, "F32": 61}
    assert sum(k["bytes"] for k in report["kinds"]) == report["memory"]["weight_bytes"]
    assert [t["name"] for t in report["tensors"]] == [t.name for t in tensors]
    assert report["shape"]["num_hidden_layers"] == 30
    # Keys and values of 3 heads of 64 in 30 layers, two bytes each.
    assert report["memory"]["kv_cache_bytes"] == 1000 * 2 * 30 * 3 * 64 * 2
    assert report["tokenizer"]["vocab_size"] == 49152
    assert "<|im_start|>" in report["tokenizer"]["chat_template"]
    speed = report["speed"]
    limit = speed["bandwidth"]["bytes_per_second"] / report["memory"]["loaded_bytes"]
    assert report["memory"]["loaded_bytes"] == pytest.approx(report["memory"]["weight_bytes"], rel=0.001)
    assert speed["tokens_per_second"] == pytest.approx(limit)
    assert 0 < speed["tokens_per_second_at_context"] < limit


@pytest.mark.parametrize("name", ["qwen3_moe", "gpt_oss_mxfp4", "gemma4_experts"])
def test_info_knows_experts(name: str, tmp_path: Path) -> None:
    """A token is computed with all parameters but those of the experts that it does not go through."""
    directory, file = tmp_path / "model", tmp_path / "model.gguf"
    family_cases.write(name, directory)
    run("quantize", directory, file, "--type", "F32")
    tensors = gguf.GGUFReader(file).tensors
    stacked = sum(int(t.n_elements) for t in tensors if t.name.endswith(("_exps.weight", "_exps.bias")))
    count, per_token = {"qwen3_moe": (8, 2), "gpt_oss_mxfp4": (3, 3), "gemma4_experts": (6, 2)}[name]
    for model in (directory, file):
        report = info(model)
        shape = report["shape"]
        assert (shape["num_experts"], shape["num_experts_per_tok"]) == (count, per_token)
        idle = stacked * (count - per_token) // count
        assert report["parameters"] - report["active_parameters"] == pytest.approx(idle, rel=0.02)
    assert f"{count}, of which a token goes through {per_token}" in run("info", file).stdout


def test_info_is_readable(demo_model: str) -> None:
    text = run("info", demo_model).stdout
    for part in [
        "llama",
        "134.5 M",
        "Q4_1",
        "attention",
        "8192 tokens",
        "Chat template",
        "KV cache",
        "tokens a second",
    ]:
        assert part in text


def test_info_of_a_directory(tiny_model: str) -> None:
    report = info(tiny_model)
    assert report["format"] == "safetensors"
    assert report["memory"]["kv_cache_dtype"] == "F32"
    assert report["bits_per_weight"] == 32


def test_info_names_settings_that_nobody_knows(tmp_path: Path) -> None:
    shutil.copytree(GOLDEN / "tiny_llama", tmp_path / "model")
    path = tmp_path / "model" / "config.json"
    assert run("info", path.parent).stderr == ""
    path.write_text(json.dumps(json.loads(path.read_text()) | {"logit_\nbonus": 2}))
    done = run("info", path.parent, "--json")
    assert "logit_\\nbonus" in done.stderr
    assert json.loads(done.stdout)["format"] == "safetensors"


def test_info_describes_what_it_cannot_run(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    writer = gguf.GGUFWriter(path, "mamba")
    writer.add_tensor("blk.0.ssm_in.weight", np.zeros((4, 32), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    report = info(path)
    assert report["architecture"] == "mamba"
    assert report["parameters"] == 128
    assert "mamba" in report["unsupported"]
    assert "does not run here" in run("info", path).stdout


@pytest.mark.parametrize("name", ["tiny_llama", "tiny_qwen3"])
def test_a_directory_becomes_the_same_model(name: str, tmp_path: Path) -> None:
    """Weights, hyperparameters, tokenizer and chat template survive the way to GGUF."""
    directory, path = GOLDEN / name, tmp_path / "model.gguf"
    run("quantize", directory, path, "--type", "F32")
    tokens = list(range(5, 45))
    stored, written = (model_runner(model, max_model_len=64).logits(tokens) for model in (directory, path))
    assert nmse(stored, written) < 1e-10
    first, second = (LLM(str(model), num_kvcache_blocks=8, num_threads=1) for model in (directory, path))
    prompts = ["Hello, world! 1234", "  It's\n\nfine."]
    assert [first.tokenizer.encode(p) for p in prompts] == [second.tokenizer.encode(p) for p in prompts]
    params = SamplingParams(temperature=0, max_tokens=12)
    # Only ids are compared: a row of the embedding without a token has a placeholder in GGUF, and no text elsewhere.
    answers = [[a["token_ids"] for a in llm.generate(prompts, params, use_tqdm=False)] for llm in (first, second)]
    assert answers[0] == answers[1]
    assert first.tokenizer.chat_template == second.tokenizer.chat_template
    assert first.tokenizer.eos_token_id == second.tokenizer.eos_token_id


def types_of(path: Path) -> dict[str, str]:
    return {t.name: t.tensor_type.name for t in gguf.GGUFReader(path).tensors}


def test_types_follow_the_mix(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    run("quantize", GOLDEN / "tiny_qwen3", path, "--type", "q4_k_m")
    types = types_of(path)
    # Rows of 64 are no whole blocks of a K type, so the types that llama.cpp puts in their places are taken.
    assert types["blk.1.attn_q.weight"] == "Q5_0"
    assert types["output.weight"] == "Q8_0"
    assert types["blk.0.attn_norm.weight"] == "F32"
    run("quantize", GOLDEN / "tiny_qwen3", path, "--type", "Q4_0", "--pure", "--force")
    assert types_of(path)["output.weight"] == "Q4_0"


@pytest.mark.parametrize(("mix", "limit"), [("Q8_0", 1e-3), ("Q5_1", 0.03), ("IQ4_NL", 0.3), ("Q4_K_M", 0.3)])
def test_fewer_bits_are_a_little_different(mix: str, limit: float, tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    report = run("quantize", GOLDEN / "tiny_llama", path, "--type", mix).stdout
    assert "NMSE" in report
    tokens = list(range(5, 45))
    whole = model_runner(GOLDEN / "tiny_llama", max_model_len=64).logits(tokens)
    difference = nmse(whole, model_runner(path, max_model_len=64).logits(tokens))
    assert 0 < difference < limit


def test_gguf_in_gguf_out_keeps_everything_else(demo_model: str, tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    run("quantize", demo_model, path, "--type", "Q8_0", "--threads", "1")
    before, after = gguf.GGUFReader(demo_model), gguf.GGUFReader(path)
    changed = {"general.file_type", "general.quantization_version"}
    for key, field in before.fields.items():
        if not key.startswith("GGUF.") and key not in changed:
            assert after.fields[key].contents() == field.contents(), key
    assert [t.name for t in after.tensors] == [t.name for t in before.tensors]
    assert {t.tensor_type.name for t in after.tensors} == {"Q8_0", "F32"}


def test_a_tokenizer_is_kept_or_its_losses_are_named(tmp_path: Path) -> None:
    """Five ends of a generation stay five, white space around an added token stays its own; the rest is a warning."""
    model, path = tmp_path / "model", tmp_path / "model.gguf"
    shutil.copytree(GOLDEN / "tiny_llama", model)
    assert run("quantize", model, path, "--type", "Q8_0").stderr == ""
    ends = [2, 7, 5, 9, 11]
    (model / "generation_config.json").write_text(json.dumps({"eos_token_id": ends}))
    tokenizer = json.loads((model / "tokenizer.json").read_text(encoding="utf-8"))
    for token in tokenizer["added_tokens"]:
        token["lstrip"] = token["rstrip"] = True
    (model / "tokenizer.json").write_text(json.dumps(tokenizer), encoding="utf-8")
    assert run("quantize", model, path, "--type", "Q8_0", "--force").stderr == ""
    first, second = (LLM(str(p), num_kvcache_blocks=4, num_threads=1) for p in (model, path))
    text = f"a  {tokenizer['added_tokens'][0]['content']}  b"
    assert first.tokenizer.encode(text) == second.tokenizer.encode(text)
    keys = gguf.GGUFReader(path).fields
    assert sorted(keys["tokenizer.ggml.eos_token_ids"].contents()) == sorted(ends)
    (model / "generation_config.json").write_text(json.dumps({"eos_token_id": [2, 99_999]}))
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | {"logit_bonus": 2}))
    warnings = run("quantize", model, path, "--type", "Q8_0", "--force").stderr.splitlines()
    assert len(warnings) == 2
    assert all(line.startswith("nanovllm: warning: ") for line in warnings)
    assert "logit_bonus" in warnings[0]
    assert "end-of-sequence id 99999" in warnings[1]


def test_quantising_again_warns(demo_model: str, tmp_path: Path) -> None:
    warnings = run("quantize", demo_model, tmp_path / "model.gguf", "--type", "F16").stderr
    assert "(1 of Q8_0, 210 of Q4_1)" in warnings
    assert warnings.count("\n") == 1


def test_a_file_larger_than_its_type_says_why(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    (warning,) = run("quantize", GOLDEN / "tiny_qwen3", path, "--type", "Q4_K_M").stderr.splitlines()
    matrices = [t for t in gguf.GGUFReader(path).tensors if len(t.shape) > 1]
    bits = 8 * sum(int(t.n_bytes) for t in matrices) / sum(int(t.n_elements) for t in matrices)
    for part in ["larger than Q4_K_M", f"with {bits:.1f} bits", "rows of 64 and of 128", "Q5_0 instead of Q4_K"]:
        assert part in warning


def test_two_bits_are_not_none(tmp_path: Path) -> None:
    """A conversion to zeros would have a normalised mean squared error of 1."""
    path = tmp_path / "model.gguf"
    values = np.random.default_rng(1).normal(size=(64, 256)).astype(np.float32)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_tensor("blk.0.attn_q.weight", values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    run("quantize", path, tmp_path / "two.gguf", "--type", "Q2_K")
    (tensor,) = gguf.GGUFReader(tmp_path / "two.gguf").tensors
    assert tensor.tensor_type.name == "Q2_K"
    assert nmse(values, gguf.quants.dequantize(tensor.data, tensor.tensor_type)) < 0.12


def test_threads_do_not_change_the_file(tmp_path: Path) -> None:
    one, four = tmp_path / "one.gguf", tmp_path / "four.gguf"
    run("quantize", GOLDEN / "tiny_llama", one, "--type", "Q4_1", "--threads", "1")
    run("quantize", GOLDEN / "tiny_llama", four, "--type", "Q4_1", "--threads", "4")
    assert one.read_bytes() == four.read_bytes()


def test_nothing_is_overwritten_unasked(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    path.write_text("precious")
    assert "--force" in error("quantize", GOLDEN / "tiny_llama", path, "--type", "Q8_0")
    assert path.read_text() == "precious"


def test_bad_input_is_one_line(tmp_path: Path) -> None:
    assert "there is no model" in error("info", tmp_path / "missing.gguf")
    (tmp_path / "bad.gguf").write_bytes(b"GGUF\x03")
    assert "bad.gguf" in error("info", tmp_path / "bad.gguf")
    assert "no such" in error("quantize", GOLDEN / "tiny_llama", tmp_path / "no" / "x.gguf", "--type", "F16").lower()
    wrong = run("quantize", GOLDEN / "tiny_llama", tmp_path / "x.gguf", "--type", "IQ2_XS", check=False)
    assert wrong.returncode == 2
    assert "Q4_K_M" in wrong.stderr
    assert "importance matrix" in wrong.stderr


def test_a_value_that_is_not_finite_names_its_tensor(tmp_path: Path) -> None:
    path = tmp_path / "nan.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_tensor("blk.0.attn_q.weight", np.full((2, 32), np.nan, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    assert "blk.0.attn_q.weight" in error("quantize", path, tmp_path / "out.gguf", "--type", "Q8_0")
    assert not (tmp_path / "out.gguf").exists()


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_an_interrupted_command_leaves_nothing(demo_model: str, tmp_path: Path, name: str) -> None:
    number = signal.Signals[name]
    # A child inherits what is ignored, as SIGINT is where this is a background job, so handlers are set by hand.
    default = "signal.default_int_handler" if name == "SIGINT" else "signal.SIG_DFL"
    code = (
        f"import signal, sys; signal.signal(signal.{name}, {default});"
        "from nanovllm.__main__ import main; sys.exit(main())"
    )
    arguments = ["quantize", demo_model, tmp_path / "x.gguf", "--type", "Q6_K", "--threads", "1"]
    command = [sys.executable, "-c", code, *arguments]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert child.stdout is not None
    child.stdout.readline()  # the first tensor is done
    child.send_signal(number)
    started = time.monotonic()
    out, err = child.communicate(timeout=60)
    assert child.returncode == 128 + number, (out, err)
    assert time.monotonic() - started < 30
    assert not list(tmp_path.iterdir())


def test_info_counts_tables_that_replace_codebooks(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    writer = gguf.GGUFWriter(path, "mamba")
    writer.add_tensor("blk.0.a.weight", np.zeros((4, 50), np.uint8), raw_dtype=gguf.GGMLQuantizationType.IQ1_S)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    memory = info(path)["memory"]
    assert memory["weight_bytes"] == 4 * 50
    assert memory["loaded_bytes"] == 4 * 114


@pytest.mark.skipif(os.name == "nt", reason="pipes of POSIX")
def test_a_reader_that_leaves_does_not_end_the_work(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    command = [sys.executable, "-m", "nanovllm", "quantize", str(GOLDEN / "tiny_qwen3"), str(path), "--type", "Q8_0"]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert child.stdout is not None
    child.stdout.close()
    assert child.wait(timeout=60) == 0
    assert child.stderr is not None
    child.stderr.close()
    assert types_of(path)["output.weight"] == "Q8_0"


def test_a_value_too_large_for_the_type_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "large.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_tensor("blk.0.attn_q.weight", np.full((2, 32), 1e6, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    assert "1000000 is not finite as F16" in error("quantize", path, tmp_path / "out.gguf", "--type", "F16")
