"""Every file of a model that is wrong, and every path that leads to none, is a typed exception that names it."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import struct
import traceback
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub.utils import filter_repo_objects
from hypothesis import given
from hypothesis import strategies as st

from nanovllm import LLM
from nanovllm.config import Config
from nanovllm.exceptions import ModelFormatError, ModelNotFoundError, UnsupportedModelError
from nanovllm.utils.hub import resolve_model


def gguf(version: int = 3, num_tensors: int = 0, num_metadata: int = 0, rest: bytes = b"") -> bytes:
    return b"GGUF" + struct.pack("<IQQ", version, num_tensors, num_metadata) + rest


class TestModelFiles:
    @pytest.mark.parametrize("name", ["no/such/folder/here", "/nowhere", "./nothing", "gone.gguf", "a/gone.gguf", ""])
    def test_a_missing_path(self, name: str) -> None:
        with pytest.raises(ModelNotFoundError) as error:
            LLM(name)
        assert name in str(error.value)
        assert isinstance(error.value, FileNotFoundError)

    @pytest.mark.parametrize(
        ("content", "says"),
        [
            (b"It was a dark and stormy night.", "not a GGUF file"),
            (b"", "GGUF"),
            (b"GGUF\x03", "truncated|bytes"),
            (gguf(version=99), "99"),
            (gguf(num_metadata=2**60), str(2**60)),
            (gguf(num_tensors=2**60), str(2**60)),
            (gguf(num_metadata=1, rest=struct.pack("<Q", 2**60)), "bytes"),
            (gguf(), "general.architecture"),
        ],
        ids=["text", "empty", "cut", "version", "metadata-count", "tensor-count", "string-length", "no-architecture"],
    )
    def test_a_bad_gguf(self, tmp_path: Path, content: bytes, says: str) -> None:
        path = tmp_path / "model.gguf"
        path.write_bytes(content)
        with pytest.raises(ModelFormatError, match=says):
            LLM(path)

    def test_a_path_beside_the_model_says_what_to_pass(self, copy_of_tiny: Path) -> None:
        for file in ("model.safetensors", "config.json"):
            says = f"{file}: a file of a model, not a whole one; pass {copy_of_tiny}, its directory"
            with pytest.raises(ModelFormatError, match=says):
                LLM(copy_of_tiny / file)
        (copy_of_tiny / "model.safetensors").rename(copy_of_tiny / "model-Q8_0.gguf")
        with pytest.raises(ModelFormatError, match=r"pass the path of one, such as .*model-Q8_0\.gguf"):
            LLM(copy_of_tiny)
        (copy_of_tiny / "config.json").unlink()
        with pytest.raises(ModelNotFoundError, match=r"pass the path of one, such as .*model-Q8_0\.gguf"):
            LLM(copy_of_tiny)

    def test_settings_of_config_json(self, copy_of_tiny: Path, caplog: pytest.LogCaptureFixture) -> None:
        path = copy_of_tiny / "config.json"
        config = json.loads(path.read_text())
        path.write_text(json.dumps(config | {"attention_multiplier": 0.5, "partial_rotary_factor": 1.0}))
        LLM(copy_of_tiny, num_kvcache_blocks=1)
        assert caplog.text.count("attention_multiplier") == 1
        assert "partial_rotary_factor" not in caplog.text
        path.write_text(json.dumps(config | {"partial_rotary_factor": 0.5}))
        with pytest.raises(UnsupportedModelError, match=r"config\.json: unsupported: partial_rotary_factor 0\.5"):
            LLM(copy_of_tiny)

    def test_a_truncated_gguf(self, tmp_path: Path, demo_model: str) -> None:
        path = tmp_path / "model.gguf"
        whole = Path(demo_model).read_bytes()
        for size in (len(whole) // 2, len(whole) - 1, 100_000):
            path.write_bytes(whole[:size])
            with pytest.raises(ModelFormatError, match=r"model\.gguf"):
                LLM(path, num_kvcache_blocks=1)

    @pytest.mark.parametrize("header_size", [2**60, 2**63, 10**9, 0, 1])
    def test_a_safetensors_file_with_a_lying_header(self, copy_of_tiny: Path, header_size: int) -> None:
        path = copy_of_tiny / "model.safetensors"
        path.write_bytes(struct.pack("<Q", header_size) + path.read_bytes()[8:])
        with pytest.raises(ModelFormatError, match=r"model\.safetensors"):
            LLM(copy_of_tiny, num_kvcache_blocks=1)

    def test_a_safetensors_file_whose_offsets_lie(self, copy_of_tiny: Path) -> None:
        path = copy_of_tiny / "model.safetensors"
        header = json.dumps({"a": {"dtype": "F32", "shape": [2**31, 2**31], "data_offsets": [0, 2**60]}}).encode()
        path.write_bytes(struct.pack("<Q", len(header)) + header)
        with pytest.raises(ModelFormatError, match=r"model\.safetensors"):
            LLM(copy_of_tiny, num_kvcache_blocks=1)

    def test_a_truncated_safetensors_file(self, copy_of_tiny: Path) -> None:
        path = copy_of_tiny / "model.safetensors"
        path.write_bytes(path.read_bytes()[:-1])
        with pytest.raises(ModelFormatError, match=r"model\.safetensors"):
            LLM(copy_of_tiny, num_kvcache_blocks=1)

    def test_an_unsupported_tensor_type(self, copy_of_tiny: Path) -> None:
        path = copy_of_tiny / "model.safetensors"
        content = path.read_bytes()
        (size,) = struct.unpack("<Q", content[:8])
        # Same length: 4-byte integers in place of 4-byte floats.
        path.write_bytes(content[:8] + content[8 : 8 + size].replace(b'"F32"', b'"I32"') + content[8 + size :])
        with pytest.raises(UnsupportedModelError, match=r"(?s)I32.*F32, F16, F64, BF16"):
            LLM(copy_of_tiny, num_kvcache_blocks=1)

    def test_an_unsupported_architecture(self, copy_of_tiny: Path) -> None:
        change_config(copy_of_tiny, architectures=["MambaForCausalLM"], model_type="mamba")
        with pytest.raises(UnsupportedModelError, match=r"(?s)MambaForCausalLM.*Qwen3ForCausalLM"):
            LLM(copy_of_tiny)

    @pytest.mark.parametrize(
        "change",
        [
            {"hidden_size": -1},
            {"hidden_size": 2**60},
            {"hidden_size": "wide"},
            {"num_hidden_layers": 10**9},
            {"num_attention_heads": 0},
            {"num_key_value_heads": 3},
            {"vocab_size": 10**12},
            {"head_dim": 31},
            {"rms_norm_eps": "small"},
        ],
        ids=str,
    )
    def test_a_config_that_lies(self, copy_of_tiny: Path, change: dict[str, Any]) -> None:
        change_config(copy_of_tiny, **change)
        with pytest.raises((ModelFormatError, UnsupportedModelError)) as error:
            LLM(copy_of_tiny, num_kvcache_blocks=1)
        assert str(error.value)

    @pytest.mark.parametrize("name", ["config.json", "tokenizer.json"])
    def test_json_that_is_none(self, copy_of_tiny: Path, name: str) -> None:
        (copy_of_tiny / name).write_text('{"a": ')
        with pytest.raises(ModelFormatError, match=name):
            LLM(copy_of_tiny, num_kvcache_blocks=1)

    @pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors"])
    def test_a_directory_that_lacks_a_file(self, copy_of_tiny: Path, name: str) -> None:
        (copy_of_tiny / name).unlink()
        with pytest.raises((ModelNotFoundError, ModelFormatError)) as error:
            LLM(copy_of_tiny, num_kvcache_blocks=1)
        assert str(copy_of_tiny) in str(error.value)

    def test_a_repository_while_offline(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def offline(*_: object, **__: object) -> str:
            raise ConnectionError("no route to host")

        monkeypatch.setattr("huggingface_hub.snapshot_download", offline)
        monkeypatch.setattr("huggingface_hub.hf_hub_download", offline)
        for name in ("Qwen/Qwen3-0.6B", "Qwen/Qwen3-0.6B-GGUF:Qwen3-0.6B-Q8_0.gguf"):
            with pytest.raises(ModelNotFoundError, match=r"Qwen/Qwen3-0\.6B.*no route to host"):
                LLM(name)

    def test_config_errors_name_the_file(self, copy_of_tiny: Path) -> None:
        change_config(copy_of_tiny, num_attention_heads=0)
        with pytest.raises(ModelFormatError, match=re.escape(str(copy_of_tiny / "config.json"))):
            LLM(copy_of_tiny)

    def test_a_missing_tensor_names_the_model(self, copy_of_tiny: Path) -> None:
        change_config(copy_of_tiny, num_hidden_layers=9)
        with pytest.raises(ModelFormatError, match=re.escape(str(copy_of_tiny))):
            LLM(copy_of_tiny, num_kvcache_blocks=1)

    def test_an_empty_path_is_not_the_current_directory(
        self, copy_of_tiny: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(copy_of_tiny)
        for make in (LLM, Config):
            with pytest.raises(ModelNotFoundError, match="empty"):
                make("")
        assert Config(".").model == "."

    @pytest.mark.parametrize("model", [None, 5, b"model", ["model"]])
    def test_a_model_of_another_type(self, model: Any) -> None:
        for make in (LLM, Config):
            with pytest.raises(TypeError, match=f"model must be .*not {type(model).__name__}"):
                make(model)

    def test_a_home_that_nobody_has(self) -> None:
        with pytest.raises(ModelNotFoundError, match="~nosuchuser"):
            LLM("~nosuchuser/model")

    def test_a_directory_of_gguf_files_says_what_to_pass(self, tmp_path: Path) -> None:
        (tmp_path / "b.Q8_0.gguf").write_bytes(gguf())
        (tmp_path / "a.Q4_0.gguf").write_bytes(gguf())
        with pytest.raises(ModelNotFoundError, match=r"a\.Q4_0\.gguf, b\.Q8_0\.gguf") as error:
            LLM(tmp_path)
        assert str(tmp_path / "a.Q4_0.gguf") in str(error.value)

    def test_a_missing_repository_is_one_error(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def missing(*_: object, **__: object) -> str:
            raise ValueError("404 Client Error")

        monkeypatch.setattr("huggingface_hub.snapshot_download", missing)
        with pytest.raises(ModelNotFoundError, match="404 Client Error") as error:
            LLM("owner/name")
        assert error.value.__suppress_context__
        assert "During handling" not in "".join(traceback.format_exception(error.value))


class TestHub:
    def test_a_repository_is_fetched_once_resolved(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tiny_qwen3: str
    ) -> None:
        asked: list[tuple[object, ...]] = []

        def snapshot(repo_id: str, **_: object) -> str:
            asked.append((repo_id,))
            return tiny_qwen3

        def file(repo_id: str, filename: str) -> str:
            asked.append((repo_id, filename))
            return str(tmp_path / filename)

        monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot)
        monkeypatch.setattr("huggingface_hub.hf_hub_download", file)
        assert resolve_model("Qwen/Qwen3-0.6B") == tiny_qwen3
        assert resolve_model("a-b/c.d:e-Q4_0.gguf") == str(tmp_path / "e-Q4_0.gguf")
        assert asked == [("Qwen/Qwen3-0.6B",), ("a-b/c.d", "e-Q4_0.gguf")]

    @given(
        st.lists(
            st.sampled_from(["additional_chat_templates", "additional", "additional_chat_templatesx", "onnx", "a", ""])
            | st.text("ad_/x", max_size=3),
            max_size=3,
        ),
        st.sampled_from(["rag.jinja", "model.safetensors", "config.json", "a.bin", "README.md"]),
    )
    def test_which_files_are_fetched(self, folders: list[str], name: str) -> None:
        """Those at the top, and the templates in their folder, but nothing of any other folder."""
        path = "/".join([*folders, name]).strip("/")
        with pytest.MonkeyPatch.context() as patch:
            asked: dict[str, Any] = {}
            patch.setattr("huggingface_hub.snapshot_download", lambda *_, **options: asked.update(options) or ".")
            with contextlib.suppress(UnsupportedModelError):
                resolve_model("owner/name")
        fetched = list(filter_repo_objects([path], **asked))
        folder, _, file = path.rpartition("/")
        wanted = Path(file).suffix in (".jinja", ".safetensors", ".json") if not folder else False
        wanted |= folder == "additional_chat_templates" and file.endswith(".jinja")
        assert bool(fetched) == wanted

    def test_a_repository_without_safetensors(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *_, **__: str(tmp_path))
        with pytest.raises(UnsupportedModelError, match=r"owner/name:FILE\.gguf"):
            resolve_model("owner/name")


@pytest.fixture
def copy_of_tiny(tmp_path: Path, tiny_qwen3: str) -> Path:
    return Path(shutil.copytree(tiny_qwen3, tmp_path / "model"))


def change_config(model: Path, **changes: Any) -> None:
    path = model / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
