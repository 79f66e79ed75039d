"""`_core.GgufFile` and `_core.SafeTensors` against the packages `gguf` and `safetensors`."""

from __future__ import annotations

import filecmp
import json
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

import gguf
import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from nanovllm import LLM, SamplingParams, _core
from nanovllm.exceptions import ModelFormatError, ModelNotFoundError, UnsupportedModelError
from nanovllm.utils.hub import resolve_model
from tensor_types import KNOWN_BY_PACKAGE, NUMBERS, READ_BY_PACKAGE
from test_gguf_models import write_model

V = gguf.GGUFValueType
SCALARS: dict[gguf.GGUFValueType, st.SearchStrategy[Any]] = {
    V.UINT8: st.integers(0, 2**8 - 1),
    V.INT8: st.integers(-(2**7), 2**7 - 1),
    V.UINT16: st.integers(0, 2**16 - 1),
    V.INT16: st.integers(-(2**15), 2**15 - 1),
    V.UINT32: st.integers(0, 2**32 - 1),
    V.INT32: st.integers(-(2**31), 2**31 - 1),
    V.FLOAT32: st.floats(width=32, allow_nan=False),
    V.BOOL: st.booleans(),
    V.STRING: st.text(),
    V.UINT64: st.integers(0, 2**64 - 1),
    V.INT64: st.integers(-(2**63), 2**63 - 1),
    V.FLOAT64: st.floats(allow_nan=False),
}

KINDS = [gguf.GGMLQuantizationType[name] for name in KNOWN_BY_PACKAGE if name != "Q8_1"]
"""Types of drawn tensors: the engine's, but for the one that `gguf` gives another size than ggml."""


@st.composite
def metadata(draw: st.DrawFn) -> dict[str, tuple[Any, ...]]:
    """Keys with a value, its type and, for an array, its elements' type."""
    pairs: dict[str, tuple[Any, ...]] = {}
    for key in draw(st.lists(st.from_regex(r"x\.[a-z0-9._]{1,12}", fullmatch=True), max_size=6, unique=True)):
        kind = draw(st.sampled_from(list(SCALARS)))
        if draw(st.booleans()):
            pairs[key] = (draw(st.lists(SCALARS[kind], min_size=1, max_size=5)), V.ARRAY, kind)
        else:
            pairs[key] = (draw(SCALARS[kind]), kind)
    return pairs


@st.composite
def tensors(draw: st.DrawFn, max_size: int = 4) -> dict[str, tuple[Any, Any]]:
    """Names with a type and stored rows of random bits, `[..., bytes a row]`."""
    named = {}
    for i in range(draw(st.integers(0, max_size))):
        kind = draw(st.sampled_from(KINDS))
        _, size = gguf.GGML_QUANT_SIZES[kind]
        shape = (*draw(st.lists(st.integers(1, 3), max_size=3)), size * draw(st.integers(1, 3)))
        seed = draw(st.integers(0, 2**32 - 1))
        named[f"t{i}"] = (kind, np.random.default_rng(seed).integers(0, 256, shape, np.uint8))
    return named


def write(path: Path, pairs: Any, named: Any, alignment: int = 32, split: int = 0) -> None:
    writer = gguf.GGUFWriter(path, "llama", split_max_tensors=split)
    if alignment != 32:
        writer.add_custom_alignment(alignment)
    for key, value in pairs.items():
        writer.add_key_value(key, *value)
    for name, (kind, rows) in named.items():
        writer.add_tensor(name, rows, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def read_metadata(path: Path) -> dict[str, Any]:
    """What the package `gguf` makes of a file's metadata."""
    fields = gguf.GGUFReader(path).fields
    return {key: field.contents() for key, field in fields.items() if not key.startswith("GGUF.")}


def assert_same_tensors(file: _core.GgufFile, path: Path) -> None:
    """`file` has the tensors that the package `gguf` finds at `path`, in the same order."""
    theirs = gguf.GGUFReader(path).tensors
    assert list(file.tensors) == [tensor.name for tensor in theirs]
    for tensor in theirs:
        info = file.tensors[tensor.name]
        assert (info.name, info.dtype) == (tensor.name, tensor.tensor_type.name)
        assert info.shape == tuple(tensor.shape[::-1].tolist())
        raw = file.raw(tensor.name)
        assert (raw.dtype, raw.shape, info.nbytes) == (np.uint8, (tensor.n_bytes,), tensor.n_bytes)
        assert raw.tobytes() == tensor.data.tobytes()


@settings(max_examples=60, deadline=None)
@given(metadata(), tensors(), st.sampled_from([32, 64, 256]))
def test_what_gguf_writes_is_read(pairs: Any, named: Any, alignment: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.gguf"
        write(path, pairs, named, alignment)
        file = _core.GgufFile(path)
        assert file.version == 3
        assert file.metadata == read_metadata(path)
        assert list(file.metadata) == list(read_metadata(path))
        for key, (value, kind, *_) in pairs.items():
            assert file.metadata[key] == value
            assert type(file.metadata[key]) is type(value), kind
        assert_same_tensors(file, path)


@settings(max_examples=60, deadline=None)
@given(metadata(), tensors(), st.sampled_from([32, 64, 256]))
def test_what_is_saved_is_what_gguf_reads(pairs: Any, named: Any, alignment: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path, copy = Path(folder) / "model.gguf", Path(folder) / "copy.gguf"
        write(path, pairs, named, alignment)
        _core.GgufFile(path).save(copy)
        assert read_metadata(copy) == read_metadata(path)
        assert list(read_metadata(copy)) == list(read_metadata(path))
        types = [{k: field.types for k, field in gguf.GGUFReader(p).fields.items()} for p in (path, copy)]
        assert types[0] == types[1]
        assert_same_tensors(_core.GgufFile(path), copy)
        assert sorted(p.name for p in Path(folder).iterdir()) == ["copy.gguf", "model.gguf"]


def test_a_file_of_llama_cpp_is_saved_byte_by_byte(demo_model: str, tmp_path: Path) -> None:
    _core.GgufFile(demo_model).save(tmp_path / "copy.gguf")
    assert filecmp.cmp(demo_model, tmp_path / "copy.gguf", shallow=False)


@settings(max_examples=100, deadline=None)
@given(tensors(1))
def test_tensors_are_dequantised_as_gguf_does(named: Any) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.gguf"
        write(path, {}, named)
        file = _core.GgufFile(path)
        for name, (kind, rows) in named.items():
            values = file.tensor(name)
            assert (values.dtype, values.shape) == (np.float32, file.tensors[name].shape)
            with np.errstate(all="ignore"):  # random bits hold infinite scales
                if kind.name in NUMBERS:
                    expected = rows.view(NUMBERS[kind.name]).astype(np.float32)
                elif kind.name in READ_BY_PACKAGE:
                    expected = gguf.quants.dequantize(rows, kind)
                else:
                    continue
            np.testing.assert_array_equal(values, expected.reshape(values.shape))


@settings(max_examples=40, deadline=None)
@given(metadata(), tensors(6), st.integers(1, 3), st.data())
def test_a_split_model_is_one(pairs: Any, named: Any, size: int, data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path, whole = Path(folder) / "model.gguf", Path(folder) / "whole.gguf"
        write(whole, pairs, named)
        write(path, pairs, named, split=size)
        shards = sorted(Path(folder).glob("model*"))
        assert len(shards) == max(1, -(-len(named) // size))
        file = _core.GgufFile(data.draw(st.sampled_from(shards)))
        kept = {key: value for key, value in file.metadata.items() if not key.startswith("split.")}
        assert kept == read_metadata(whole)
        assert_same_tensors(file, whole)
        merged = Path(folder) / "merged.gguf"
        file.save(merged)
        assert read_metadata(merged) == read_metadata(whole)
        assert_same_tensors(_core.GgufFile(merged), whole)


@pytest.fixture(scope="module")
def split_model(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A random llama in one file, and the same in several."""
    folder = tmp_path_factory.mktemp("split")
    whole = folder / "whole.gguf"
    write_model(whole, "tiny_llama", "Q8_0")
    reader = gguf.GGUFReader(whole)
    writer = gguf.GGUFWriter(folder / "model.gguf", "llama", split_max_tensors=9)
    for key, field in reader.fields.items():
        if not key.startswith("GGUF.") and key != "general.architecture":
            sub_type = field.types[-1] if field.types[0] == V.ARRAY else None
            writer.add_key_value(key, field.contents(), field.types[0], sub_type)
    for tensor in reader.tensors:
        writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return [whole, *sorted(folder.glob("model-*.gguf"))]


class TestSplitModels:
    def test_an_engine_runs_on_any_shard(self, split_model: list[Path]) -> None:
        whole, *shards = split_model
        assert len(shards) > 1
        assert shards[0].name == f"model-00001-of-{len(shards):05}.gguf"
        params = SamplingParams(temperature=0, max_tokens=8, ignore_eos=True)
        answers = [
            LLM(path, num_kvcache_blocks=1, num_threads=1).generate(["ab"], params, use_tqdm=False)[0]["token_ids"]
            for path in (whole, shards[0], shards[-1])
        ]
        assert answers[0] == answers[1] == answers[2]

    def test_a_missing_shard_is_named(self, split_model: list[Path], tmp_path: Path) -> None:
        first, second, *_ = split_model[1:]
        (tmp_path / first.name).write_bytes(first.read_bytes())
        with pytest.raises(ModelNotFoundError, match=f"{second.name}.*missing"):
            LLM(tmp_path / first.name, num_kvcache_blocks=1)

    def test_the_hub_is_asked_for_all_shards(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        asked: list[str] = []

        def download(_: str, filename: str) -> str:
            asked.append(filename)
            return str(tmp_path / filename)

        monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
        assert resolve_model("owner/name:q/m-00002-of-00003.gguf") == str(tmp_path / "q/m-00002-of-00003.gguf")
        assert sorted(asked) == [f"q/m-0000{i}-of-00003.gguf" for i in (1, 2, 3)]
        asked.clear()
        assert resolve_model("owner/name:m-2-of-3.gguf") == str(tmp_path / "m-2-of-3.gguf")
        assert asked == ["m-2-of-3.gguf"]


class TestGgufFile:
    def test_what_is_not_there(self, tmp_path: Path) -> None:
        with pytest.raises(ModelNotFoundError, match="nothing"):
            _core.GgufFile(tmp_path / "nothing.gguf")
        with pytest.raises(ModelFormatError, match="not a regular file"):
            _core.GgufFile(tmp_path)
        (tmp_path / "text.gguf").write_text("Once upon a time")
        with pytest.raises(ModelFormatError, match=r"text\.gguf: not a GGUF file"):
            _core.GgufFile(tmp_path / "text.gguf")
        write(tmp_path / "empty.gguf", {}, {})
        file = _core.GgufFile(tmp_path / "empty.gguf")
        assert file.tensors == {}
        for read in (file.raw, file.tensor):
            with pytest.raises(KeyError, match="output"):
                read("output.weight")

    def test_its_repr(self, tmp_path: Path) -> None:
        write(tmp_path / "m.gguf", {}, {"t": (gguf.GGMLQuantizationType.Q8_0, np.zeros((2, 34), np.uint8))})
        file = _core.GgufFile(tmp_path / "m.gguf")
        assert repr(file) == "GgufFile(version=3, 1 metadata keys, 1 tensors)"
        assert repr(file.tensors["t"]) == 'TensorInfo(name="t", dtype="Q8_0", shape=[2, 32], nbytes=68)'

    @pytest.mark.skipif(sys.platform == "win32", reason="an open mapping cannot be shortened there")
    def test_a_shortened_file_is_an_error(self, tmp_path: Path) -> None:
        path = tmp_path / "m.gguf"
        write(path, {}, {"t": (gguf.GGMLQuantizationType.F32, np.zeros(2**20, np.uint8))})
        file = _core.GgufFile(path)
        with path.open("r+b") as handle:
            handle.truncate(100)
        for read in (file.raw, file.tensor, lambda _: file.save(tmp_path / "copy.gguf")):
            with pytest.raises(ModelFormatError, match=r"m\.gguf.*100"):
                read("t")

    def test_arrays_are_copies(self, tmp_path: Path) -> None:
        write(tmp_path / "m.gguf", {}, {"t": (gguf.GGMLQuantizationType.F32, np.zeros((2, 8), np.uint8))})
        file = _core.GgufFile(tmp_path / "m.gguf")
        file.tensor("t")[:] = 1
        file.raw("t")[:] = 1
        assert not file.tensor("t").any()
        array = file.tensor("t")
        del file
        assert array.sum() == 0

    def test_threads_may_share_it(self, tmp_path: Path) -> None:
        rows = np.random.default_rng(0).standard_normal((64, 256)).astype(np.float32)
        write(tmp_path / "m.gguf", {}, {"t": (gguf.GGMLQuantizationType.F32, rows.view(np.uint8))})
        file = _core.GgufFile(tmp_path / "m.gguf")
        wrong: list[int] = []

        def read(i: int) -> None:
            if any((file.tensor("t") != rows).any() for _ in range(20)):
                wrong.append(i)

        threads = [threading.Thread(target=read, args=(i,)) for i in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not wrong


NUMPY = {"F64": "f8", "F32": "f4", "F16": "f2", "I64": "i8", "I32": "i4", "I16": "i2", "I8": "i1", "BOOL": "?"}
NUMPY |= {"U64": "u8", "U32": "u4", "U16": "u2", "U8": "u1", "C64": "c8"}
ML = {"BF16": ml_dtypes.bfloat16, "F8_E4M3": ml_dtypes.float8_e4m3fn, "F8_E5M2": ml_dtypes.float8_e5m2}


@st.composite
def arrays(draw: st.DrawFn) -> dict[str, Any]:
    named = {}
    names = st.text(min_size=1).filter(lambda name: name != "__metadata__")
    for name in draw(st.lists(names, max_size=5, unique=True)):
        dtype = np.dtype(draw(st.sampled_from([*NUMPY.values()])))
        shape = draw(hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=3))
        named[name] = draw(hnp.arrays(dtype, shape))
    return named


@settings(max_examples=100, deadline=None)
@given(arrays(), st.dictionaries(st.text(), st.text(), max_size=3))
def test_what_safetensors_writes_is_read(named: dict[str, Any], metadata: dict[str, str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.safetensors"
        safetensors.numpy.save_file(named, path, metadata or None)
        file = _core.SafeTensors(path)
        assert file.metadata == metadata
        theirs = safetensors.numpy.load_file(path)
        assert set(file.tensors) == set(theirs)
        for name, array in theirs.items():
            info = file.tensors[name]
            assert NUMPY[info.dtype] == array.dtype.str.lstrip("<|").replace("b1", "?")
            assert (info.name, info.shape, info.nbytes) == (name, array.shape, array.nbytes)
            ours = file.tensor(name)
            assert (ours.dtype, ours.shape) == (array.dtype, array.shape)
            assert ours.tobytes() == array.tobytes() == file.raw(name).tobytes()


class TestSafeTensors:
    @pytest.mark.parametrize("dtype", ["BF16", "F8_E4M3", "F8_E5M2"])
    def test_floats_that_numpy_lacks(self, tmp_path: Path, dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
        expected = np.arange(-6, 6).reshape(3, 4).astype(ML[dtype])
        path = tmp_path / "m.safetensors"
        write_safetensors(path, {"t": (dtype, [3, 4], expected.tobytes())})
        file = _core.SafeTensors(path)
        assert file.tensors["t"].dtype == dtype
        array = file.tensor("t")
        assert array.dtype == expected.dtype
        np.testing.assert_array_equal(array.astype(np.float32), np.arange(-6, 6).reshape(3, 4))
        monkeypatch.setitem(sys.modules, "ml_dtypes", None)  # makes importing it fail
        bits = file.tensor("t")
        assert bits.dtype == (np.uint16 if dtype == "BF16" else np.uint8)
        np.testing.assert_array_equal(bits, expected.view(bits.dtype))

    def test_elements_of_less_than_a_byte(self, tmp_path: Path) -> None:
        path = tmp_path / "m.safetensors"
        write_safetensors(path, {"t": ("F4", [2, 4], b"\x12\x34\x56\x78")})
        file = _core.SafeTensors(path)
        assert file.raw("t").tobytes() == b"\x12\x34\x56\x78"
        with pytest.raises(UnsupportedModelError, match=r"F4.*raw"):
            file.tensor("t")

    def test_a_directory(self, tmp_path: Path) -> None:
        with pytest.raises(ModelFormatError, match=r"no \*\.safetensors"):
            _core.SafeTensors(tmp_path)
        for i, name in enumerate("abc"):
            write_safetensors(tmp_path / f"{name}.safetensors", {name: ("U8", [1], bytes([i]))})
        assert list(_core.SafeTensors(tmp_path).tensors) == ["a", "b", "c"]
        index = {"metadata": {}, "weight_map": {"a": "a.safetensors", "c": "c.safetensors"}}
        (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
        file = _core.SafeTensors(tmp_path)
        assert {name: file.tensor(name).tolist() for name in file.tensors} == {"a": [0], "c": [2]}
        (tmp_path / "c.safetensors").unlink()
        with pytest.raises(ModelNotFoundError, match=r"c\.safetensors"):
            _core.SafeTensors(tmp_path)

    def test_a_checkpoint(self, tiny_model: str) -> None:
        file = _core.SafeTensors(tiny_model)
        theirs: dict[str, Any] = {}
        for path in Path(tiny_model).glob("*.safetensors"):
            theirs |= safetensors.numpy.load_file(path)
        assert set(file.tensors) == set(theirs)
        for name, array in theirs.items():
            np.testing.assert_array_equal(file.tensor(name), array)

    def test_what_is_not_there(self, tmp_path: Path) -> None:
        with pytest.raises(ModelNotFoundError, match="nothing"):
            _core.SafeTensors(tmp_path / "nothing.safetensors")
        path = tmp_path / "m.safetensors"
        write_safetensors(path, {})
        for read in (_core.SafeTensors(path).raw, _core.SafeTensors(path).tensor):
            with pytest.raises(KeyError, match="weight"):
                read("weight")

    @pytest.mark.skipif(sys.platform == "win32", reason="an open mapping cannot be shortened there")
    def test_a_shortened_file_is_an_error(self, tmp_path: Path) -> None:
        path = tmp_path / "m.safetensors"
        write_safetensors(path, {"t": ("U8", [2**20], bytes(2**20))})
        file = _core.SafeTensors(path)
        with path.open("r+b") as handle:
            handle.truncate(100)
        for read in (file.raw, file.tensor):
            with pytest.raises(ModelFormatError, match=r"m\.safetensors.*100"):
                read("t")


def write_safetensors(path: Path, named: dict[str, tuple[str, list[int], bytes]]) -> None:
    """A safetensors file byte by byte, for types that the package cannot write from numpy."""
    header, data = {}, b""
    for name, (dtype, shape, content) in named.items():
        offsets = [len(data), len(data) + len(content)]
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": offsets}
        data += content
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
