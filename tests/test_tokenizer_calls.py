"""Calls with transformers' options: its recorded answers, and those of the library tokenizers for drawn texts."""

from __future__ import annotations

import copy
import gzip
import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st

from nanovllm import LLM
from nanovllm.utils.tokenizer import Tokenizer

GOLDEN = Path(__file__).parent / "golden"
RECORDED = json.loads(gzip.decompress((GOLDEN / "tokenizers" / "calls.json.gz").read_bytes()))
TEXTS = st.text("Alice theRabbit's é😀\n", max_size=24) | st.text(max_size=8)
COPIES = {
    "pickle": lambda tokenizer: pickle.loads(pickle.dumps(tokenizer)),  # noqa: S301 - our own
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
}
CHAT = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yes "}]


def load(folder: Path, directory: Path) -> Tokenizer:
    """The tokenizer in `folder`, which brings no model: the tiny Llama's lends its own, without its special ids."""
    shutil.copytree(GOLDEN / "tiny_llama", directory, dirs_exist_ok=True)
    (directory / "generation_config.json").unlink()
    config = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    config = {name: value for name, value in config.items() if not name.endswith("_token_id")}
    (directory / "config.json").write_text(json.dumps(config), encoding="utf-8")
    shutil.copytree(folder, directory, dirs_exist_ok=True)
    return LLM(str(directory), num_kvcache_blocks=1).tokenizer


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Tokenizer]:
    folders = {name: GOLDEN / "tokenizers" / name for name in ("word_piece", "unigram")}
    tiny = {name: LLM(str(GOLDEN / name), num_kvcache_blocks=1).tokenizer for name in ("tiny_qwen3", "tiny_llama")}
    return tiny | {name: load(folder, tmp_path_factory.mktemp(name)) for name, folder in folders.items()}


@pytest.fixture(params=sorted(RECORDED))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def tokenizer(loaded: dict[str, Tokenizer], name: str) -> Tokenizer:
    return copy.copy(loaded[name])  # tests set attributes


@pytest.fixture
def word_piece(loaded: dict[str, Tokenizer]) -> Tokenizer:
    return copy.copy(loaded["word_piece"])


def plain(value: Any) -> Any:
    """A result as the golden file has it."""
    if isinstance(value, np.ndarray):
        return {"dtype": str(value.dtype), "array": [plain(item) for item in value] if value.ndim else value.item()}
    if isinstance(value, np.integer):
        return int(value)
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, list | tuple) else value


def call(tokenizer: Tokenizer, entry: dict[str, Any]) -> Any:
    try:
        answer = getattr(tokenizer, entry["name"])
        return plain(answer(*entry["args"], **entry["kwargs"]) if callable(answer) else answer)
    except (TypeError, ValueError):
        return "error"


@pytest.mark.filterwarnings("ignore:max_length changes nothing")
@pytest.mark.parametrize("how", ["itself", *COPIES])
def test_answers_are_those_of_transformers(tokenizer: Tokenizer, name: str, how: str) -> None:
    asked = tokenizer if how == "itself" else COPIES[how](tokenizer)
    for entry in RECORDED[name]:
        result = call(asked, entry)
        assert result == entry["result"], entry
        if isinstance(result, dict):
            assert list(result) == list(entry["result"])


def test_the_record_has_answers_and_errors(name: str) -> None:
    errors = [entry for entry in RECORDED[name] if entry["result"] == "error"]
    assert 0 < len(errors) < len(RECORDED[name]) / 2


class TestTheLibrary:
    """Padding, truncation and pairs of the library tokenizers, on the same files."""

    @given(data=st.data())
    def test_gives_the_same(self, loaded: dict[str, Tokenizer], data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(loaded)))
        tokenizer = loaded[name]
        folder = GOLDEN / name if name.startswith("tiny") else GOLDEN / "tokenizers" / name
        library = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
        pairs = data.draw(st.booleans())
        texts = data.draw(st.lists(st.tuples(TEXTS, TEXTS) if pairs else TEXTS, min_size=1, max_size=4))
        special = data.draw(st.booleans())
        added = library.num_special_tokens_to_add(pairs)
        options: dict[str, Any] = {"add_special_tokens": special, "truncation": False}
        length = data.draw(st.none() | st.integers(added, 30))
        sides = st.sampled_from(["left", "right"])
        asked = copy.copy(tokenizer)
        if length is not None:
            strategies = ["longest_first", "only_first", *(["only_second"] if pairs else [])]
            options |= {"truncation": data.draw(st.sampled_from(strategies)), "max_length": length}
            asked.truncation_side = data.draw(sides)
            library.enable_truncation(length, strategy=options["truncation"], direction=asked.truncation_side)
        if data.draw(st.booleans()):
            asked.pad_token = data.draw(st.sampled_from(asked.all_special_tokens))
            multiple = data.draw(st.none() | st.integers(1, 5))
            if length is not None and multiple is not None and length % multiple:
                multiple = None  # refused
            options |= {"padding": True, "padding_side": data.draw(sides), "pad_to_multiple_of": multiple}
            library.enable_padding(
                direction=options["padding_side"],
                pad_id=asked.pad_token_id,
                pad_token=asked.pad_token,
                pad_to_multiple_of=multiple,
            )
        try:
            expected = library.encode_batch(texts, add_special_tokens=special)
        except Exception:  # the library raises no other type
            with pytest.raises(ValueError, match="max_length"):
                asked(texts, **options)
            return
        result = asked(texts, **options, return_token_type_ids=True, return_attention_mask=True)
        assert result.input_ids == [encoding.ids for encoding in expected]
        assert result.token_type_ids == [encoding.type_ids for encoding in expected]
        assert result.attention_mask == [encoding.attention_mask for encoding in expected]

    @given(text=TEXTS, pair=st.none() | TEXTS, special=st.booleans())
    def test_gives_the_same_tokens(
        self, loaded: dict[str, Tokenizer], text: str, pair: str | None, special: bool
    ) -> None:
        for tokenizer in loaded.values():
            library = tokenizer.backend_tokenizer
            expected = library.encode(text, pair or None, add_special_tokens=special)
            assert tokenizer.tokenize(text, pair, add_special_tokens=special) == expected.tokens
            decoded = library.decoder.decode(expected.tokens)
            assert tokenizer.convert_tokens_to_string(expected.tokens) == decoded


class TestWhatACallReturns:
    def test_is_a_dict_with_attributes(self, tokenizer: Tokenizer) -> None:
        result = tokenizer("Alice")
        assert result == dict(result) == {**result}
        assert result.input_ids is result["input_ids"]
        assert "attention_mask" in result
        for copied in (pickle.loads(pickle.dumps(result)), copy.deepcopy(result)):  # noqa: S301 - our own
            assert copied == result
            assert copied.input_ids == result.input_ids
        with pytest.raises(AttributeError, match="no 'labels'; it has input_ids, "):
            _ = result.labels

    def test_of_nothing_is_nothing(self, word_piece: Tokenizer) -> None:
        assert word_piece([]) == {"input_ids": [], "token_type_ids": [], "attention_mask": []}
        assert word_piece([], padding=True, return_tensors="np").input_ids.shape == (0,)

    def test_of_rows_of_different_length_is_an_array_of_arrays(self, tokenizer: Tokenizer) -> None:
        ids = tokenizer(["a", "Alice was"], return_tensors="np").input_ids
        assert ids.dtype == object
        assert [row.dtype for row in ids] == [np.int64, np.int64]


class TestDecoding:
    def test_takes_numpy(self, tokenizer: Tokenizer) -> None:
        ids = tokenizer.encode("Alice was", add_special_tokens=False)
        text = tokenizer.decode(ids)
        for same in (np.array(ids), np.array(ids, np.uint16), tuple(ids), [np.int64(token_id) for token_id in ids]):
            assert tokenizer.decode(same) == text
        assert tokenizer.batch_decode(np.array([ids, ids])) == [text, text]
        first = tokenizer.decode(ids[0])
        for one in (np.int32(ids[0]), np.array(ids[0]), [ids[0]]):
            assert tokenizer.decode(one) == first
        assert tokenizer.batch_decode(ids[:2]) == [first, tokenizer.decode(ids[1])]
        assert tokenizer.convert_ids_to_tokens(np.array(ids)) == tokenizer.convert_ids_to_tokens(ids)
        assert tokenizer.convert_ids_to_tokens(np.int64(ids[0])) == tokenizer.convert_ids_to_tokens(ids[0])

    def test_cleans_up_where_it_is_asked(self, loaded: dict[str, Tokenizer]) -> None:
        spaced = "no , don 't !"
        bpe = copy.copy(loaded["tiny_llama"])
        ids = bpe.encode(spaced)
        assert bpe.decode(ids) == bpe.decode(ids, clean_up_tokenization_spaces=False) == spaced
        assert bpe.decode(ids, clean_up_tokenization_spaces=True) == "no, don 't!"
        bpe.clean_up_tokenization_spaces = True
        assert bpe.decode(ids) == spaced, "the spaces of byte-pair encoding are the text's own"
        word_piece = copy.copy(loaded["word_piece"])
        ids = word_piece.encode("no, stop!", add_special_tokens=False)
        assert word_piece.decode(ids) == "no, stop!"
        word_piece.clean_up_tokenization_spaces = False
        assert word_piece.decode(ids) == "no, stop!".replace(",", " ,").replace("!", " !")

    @pytest.mark.parametrize("bad", ["text", b"bytes", {1: 2}, {1}, None, 1.5, ["a"], [[1]], [None]])
    def test_refuses_what_are_no_ids(self, word_piece: Tokenizer, bad: Any) -> None:
        with pytest.raises(TypeError, match=r"token_ids|sequences"):
            word_piece.decode(bad)
        if not isinstance(bad, list):
            with pytest.raises(TypeError, match=r"token_ids|sequences"):
                word_piece.batch_decode(bad)


class TestPaddingToken:
    def test_can_be_chosen(self, loaded: dict[str, Tokenizer]) -> None:
        tokenizer = copy.copy(loaded["unigram"])
        with pytest.raises(ValueError, match=r"no padding token; .*tokenizer\.pad_token = tokenizer\.eos_token"):
            tokenizer(["a"], padding=True)
        tokenizer.pad_token = tokenizer.eos_token
        assert tokenizer.special_tokens_map["pad_token"] == "</s>"
        short, long = tokenizer(["a", "Alice was beginning"], padding=True).input_ids
        assert len(short) == len(long)
        assert short[0] == tokenizer.eos_token_id, "this model's padding is on the left"
        tokenizer.pad_token_id = None
        assert tokenizer.pad_token is None
        assert tokenizer.pad_token_id is None
        assert loaded["unigram"].pad_token is None, "copies are copies"

    def test_must_be_one_of_the_vocabulary(self, word_piece: Tokenizer) -> None:
        with pytest.raises(ValueError, match=r"pad_token is '\[NONE\]', which is no token"):
            word_piece.pad_token = "[NONE]"
        with pytest.raises(ValueError, match="pad_token_id is 100000, which is no token"):
            word_piece.pad_token_id = 100_000
        with pytest.raises(TypeError, match="pad_token must be a str or None, not int"):
            word_piece.pad_token = 5  # type: ignore[assignment]
        with pytest.raises(AttributeError, match="eos_token cannot be set"):
            word_piece.eos_token = "[PAD]"

    def test_copies_keep_what_was_set(self, tokenizer: Tokenizer) -> None:
        tokenizer.pad_token = tokenizer.all_special_tokens[-1]
        tokenizer.padding_side = "left"
        tokenizer.model_max_length = 7
        for make in COPIES.values():
            copied = make(tokenizer)
            assert (copied.pad_token, copied.padding_side, copied.model_max_length) == (tokenizer.pad_token, "left", 7)
            assert copied.name_or_path == tokenizer.name_or_path != ""
            assert copied.chat_template == tokenizer.chat_template
            assert copied.eos_token_id == tokenizer.eos_token_id
            assert len(copied) == len(tokenizer)


def test_special_tokens_without_a_role(loaded: dict[str, Tokenizer]) -> None:
    """As transformers 4 has them; 5 calls the list otherwise."""
    tokenizer = loaded["unigram"]
    assert tokenizer.additional_special_tokens == ["<tool>", "<img>"]
    assert tokenizer.additional_special_tokens_ids == tokenizer.convert_tokens_to_ids(["<tool>", "<img>"])
    roles = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    assert tokenizer.special_tokens_map == roles | {"additional_special_tokens": ["<tool>", "<img>"]}
    assert loaded["tiny_qwen3"].special_tokens_map == {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}


def test_added_tokens(tokenizer: Tokenizer) -> None:
    assert {i: str(token) for i, token in tokenizer.added_tokens_decoder.items()} == {
        i: token for token, i in tokenizer.get_added_vocab().items()
    }
    assert all(isinstance(token, tokenizers.AddedToken) for token in tokenizer.added_tokens_decoder.values())


@pytest.mark.parametrize(
    ("arguments", "options", "error", "words"),
    [
        ((5,), {}, TypeError, "text must be a str or a list of texts, not int"),
        ((b"a",), {}, TypeError, "text must be .* not bytes"),
        (({"a": 1},), {}, TypeError, "text must be .* not dict"),
        ((["a", 5],), {}, TypeError, r"text\[1\] must be a str or a pair of them, not int"),
        (([("a", "b", "c")],), {}, TypeError, r"text\[0\] must be a str or a pair"),
        (("a", ["b"]), {}, TypeError, "text_pair must be a str, as text is one, not list"),
        ((["a"], "b"), {}, TypeError, "text_pair must be a list of texts, as text is one, not str"),
        ((["a"], ["b", "c"]), {}, ValueError, "text has 1 texts, but text_pair has 2"),
        ((["a"], [1]), {}, TypeError, r"text_pair\[0\] must be a str, not int"),
        ((["a", "\ud800"],), {}, ValueError, r"surrogates not allowed \(text\[1\]\)"),
        (("\ud800",), {}, ValueError, "surrogates not allowed"),
        (("a",), {"padding": "longer"}, ValueError, "padding must be True, False or one of 'longest', .* got 'longer'"),
        (("a",), {"padding": None}, TypeError, "padding must be"),
        (("a",), {"truncation": "first"}, ValueError, "truncation must be True, False or one of .* got 'first'"),
        (("a",), {"truncation": 1}, TypeError, "truncation must be"),
        (("a",), {"max_length": -1}, ValueError, "max_length is -1; it must be at least 0"),
        (("a",), {"max_length": 2.0}, TypeError, r"max_length must be an integer, not 2\.0"),
        (("a",), {"max_length": True}, TypeError, "max_length must be an integer, not True"),
        (("a",), {"max_length": 2**70}, ValueError, "max_length is 1180591620717411303424; .* at most"),
        (("a",), {"max_length": 1}, ValueError, "max_length is 1, .*the special tokens of a sequence alone are 2"),
        (("a b", "c"), {"max_length": 4, "truncation": "only_first"}, ValueError, "the text that may be cut"),
        (("a b c",), {"max_length": 4, "truncation": "only_second"}, ValueError, "there is no second text"),
        (("a",), {"pad_to_multiple_of": 0}, ValueError, "pad_to_multiple_of is 0; it must be at least 1"),
        (("a",), {"padding_side": "up"}, ValueError, "padding_side must be 'left' or 'right', got 'up'"),
        (("a",), {"return_attention_mask": 1}, TypeError, "return_attention_mask must be True or False"),
        (("a",), {"add_special_tokens": None}, TypeError, "add_special_tokens must be True or False"),
        (("a",), {"return_tensors": "pt"}, ValueError, "return_tensors is 'pt'; this package has no torch.*\"np\""),
        (("a",), {"stride": 2}, ValueError, "stride is not supported, got 2"),
        (("a",), {"return_offsets_mapping": True}, ValueError, "return_offsets_mapping is not supported"),
        (("a",), {"text_target": "b"}, ValueError, "text_target is not supported"),
        (("a",), {"padding_sid": "left"}, TypeError, "unexpected argument 'padding_sid'; did you mean 'padding_side'"),
        (
            ("a",),
            {"padding": True, "truncation": True, "max_length": 7, "pad_to_multiple_of": 4},
            ValueError,
            "max_length is 7, which is no multiple of pad_to_multiple_of, 4",
        ),
    ],
)
def test_bad_options_are_named(
    word_piece: Tokenizer, arguments: Any, options: dict[str, Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        word_piece(*arguments, **options)
    if isinstance(arguments[0], str):
        with pytest.raises(error, match=words):
            word_piece.encode(*arguments, **options)


def test_bad_attributes_are_named(word_piece: Tokenizer) -> None:
    word_piece.padding_side = "up"
    with pytest.raises(ValueError, match="padding_side must be 'left' or 'right', got 'up'"):
        word_piece("a", padding=True)
    word_piece.padding_side = "left"
    word_piece.truncation_side = 5  # type: ignore[assignment]
    with pytest.raises(ValueError, match="truncation_side must be"):
        word_piece("a", truncation=True)


def test_options_that_change_nothing_may_be_written(word_piece: Tokenizer) -> None:
    default = word_piece("a")
    assert word_piece("a", stride=0, return_overflowing_tokens=False, is_split_into_words=False) == default
    with pytest.warns(UserWarning, match="max_length changes nothing"):
        assert word_piece("a", padding=True, max_length=9) == default
    assert word_piece("a", padding=True, max_length=9, verbose=False) == default


def test_other_bad_arguments_are_named(word_piece: Tokenizer) -> None:
    with pytest.raises(TypeError, match="text must be a str, not list"):
        word_piece.encode(["a"])  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="text_pair must be a str"):
        word_piece.encode("a", False)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="pair must be a str, not int"):
        word_piece.tokenize("a", 5)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="tokens must be a list of tokens"):
        word_piece.convert_tokens_to_string("a")


class TestChat:
    def test_options_of_a_call(self, word_piece: Tokenizer) -> None:
        template = "{% for m in messages %}{{ m.content }} {% endfor %}"

        def chat(**options: Any) -> Any:
            return word_piece.apply_chat_template([CHAT, CHAT[:1]], chat_template=template, **options)

        long, short = chat()
        assert len(long) > len(short)
        padded = chat(padding=True, return_tensors="np", return_dict=True)
        assert padded.input_ids.shape == padded.attention_mask.shape == (2, len(long))
        assert padded.input_ids[1].tolist() == short + [word_piece.pad_token_id] * (len(long) - len(short))
        assert chat(truncation=True, max_length=1) == [long[:1], short[:1]]
        assert chat(padding=True, tokenizer_kwargs={"padding_side": "left"})[1][-1] == short[-1]
        assert chat(tokenize=False, padding=True, max_length=1) == chat(tokenize=False)
        single = word_piece.apply_chat_template(CHAT, chat_template=template, return_tensors="np")
        assert single.tolist() == [long]

    @pytest.mark.parametrize(
        ("options", "error", "words"),
        [
            ({"return_dict": True, "tokenize": False}, ValueError, "return_dict needs tokenize=True"),
            ({"continue_final_message": True, "add_generation_prompt": True}, ValueError, "exclude each other"),
            ({"continue_final_message": "thoughts"}, ValueError, r"messages\[1\] has no text 'thoughts'"),
            ({"continue_final_message": 3}, TypeError, "continue_final_message must be True or False, not 3"),
            ({"return_assistant_tokens_mask": True}, ValueError, "return_assistant_tokens_mask"),
            ({"return_tensors": "pt"}, ValueError, "return_tensors is 'pt'"),
            ({"add_generation_promt": True}, TypeError, "did you mean 'add_generation_prompt'"),
            ({"tool": []}, TypeError, "'tool', which the chat template does not read; did you mean 'tools'"),
            ({"paddding": True}, TypeError, "did you mean 'padding'"),
        ],
    )
    def test_bad_options_are_named(
        self, loaded: dict[str, Tokenizer], options: dict[str, Any], error: type[Exception], words: str
    ) -> None:
        with pytest.raises(error, match=words):
            loaded["tiny_qwen3"].apply_chat_template(CHAT, **options)

    def test_variables_that_the_template_reads_may_look_like_options(self, loaded: dict[str, Tokenizer]) -> None:
        template = "{{ messages[0].content }} {{ tool }}"
        tokenizer = loaded["tiny_qwen3"]
        assert tokenizer.apply_chat_template(CHAT, chat_template=template, tokenize=False, tool="x") == "hi x"
        assert tokenizer.apply_chat_template(CHAT, chat_template="t", tokenize=False, enable_thinking=False) == "t"

    def test_named_templates_of_a_directory(self, tmp_path: Path) -> None:
        shutil.copytree(GOLDEN / "tiny_qwen3", tmp_path, dirs_exist_ok=True)
        folder = tmp_path / "additional_chat_templates"
        folder.mkdir()
        (tmp_path / "chat_template.jinja").write_text("default", encoding="utf-8")
        (folder / "rag.jinja").write_text("rag of {{ messages[0].content }}", encoding="utf-8")
        (folder / "tool_use.jinja").write_text("tools", encoding="utf-8")
        llm = LLM(str(tmp_path), num_kvcache_blocks=4)
        for tokenizer in (llm.tokenizer, pickle.loads(pickle.dumps(llm.tokenizer))):  # noqa: S301 - our own
            assert tokenizer.apply_chat_template(CHAT, tokenize=False) == tokenizer.chat_template == "default"
            assert tokenizer.apply_chat_template(CHAT, chat_template="rag", tokenize=False) == "rag of hi"
            assert tokenizer.apply_chat_template(CHAT, tools=[], tokenize=False) == "tools"
        assert llm.chat(CHAT, chat_template="rag", use_tqdm=False)[0]["num_prompt_tokens"] > 1


def test_a_tokenizer_of_a_gguf_file_can_be_copied(demo_model: str) -> None:
    tokenizer = LLM(demo_model, num_kvcache_blocks=1).tokenizer
    texts = ["Alice was beginning", "naïve 😀", "<|im_end|>"]
    for make in COPIES.values():
        copied = make(tokenizer)
        assert copied(texts, padding=True) == tokenizer(texts, padding=True)
        assert copied.apply_chat_template(CHAT) == tokenizer.apply_chat_template(CHAT)
        assert copied.special_tokens_map == tokenizer.special_tokens_map
