"""Text to token ids, as transformers' tokenizers are called."""

from collections.abc import Iterable
from functools import cached_property
from typing import Any, SupportsIndex

import tokenizers

from nanovllm import _core
from nanovllm.utils import encoding
from nanovllm.utils.encoding import BatchEncoding
from nanovllm.utils.names import did_you_mean
from nanovllm.utils.special_tokens import SpecialTokens

# transformers' options that would change what is returned.
_UNSUPPORTED = (
    "is_split_into_words",
    "return_length",
    "return_offsets_mapping",
    "return_overflowing_tokens",
    "return_special_tokens_mask",
    "split_special_tokens",
    "stride",
    "text_pair_target",
    "text_target",
)
_OPTIONS = (
    "add_special_tokens",
    "max_length",
    "pad_to_multiple_of",
    "padding",
    "padding_side",
    "return_attention_mask",
    "return_tensors",
    "return_token_type_ids",
    "text",
    "text_pair",
    "truncation",
    "verbose",
)


class Encoder(SpecialTokens):
    """Encodes texts and pairs of texts, padded and truncated.

    Attributes:
        name_or_path: The model that the tokenizer belongs to.
        model_max_length: The length meant by `padding="max_length"` and `truncation=True` without `max_length`.
        padding_side: `"left"` or `"right"`, where shorter sequences are filled up.
        truncation_side: `"left"` or `"right"`, where longer sequences are cut.
        model_input_names: What a call returns unless it is told; may hold `token_type_ids`.
    """

    is_fast = True
    pad_token_type_id = 0

    def __init__(self, core: _core.Tokenizer, name_or_path: str = "") -> None:
        super().__init__(core)
        limit = core.model_max_length
        self.name_or_path = name_or_path
        self.model_max_length = encoding.NO_LIMIT if limit is None else limit
        self.padding_side = core.padding_side
        self.truncation_side = core.truncation_side
        self.model_input_names = core.model_input_names

    def encode(
        self,
        text: str,
        text_pair: str | None = None,
        add_special_tokens: bool = True,
        padding: bool | str = False,
        truncation: bool | str | None = None,
        max_length: SupportsIndex | None = None,
        stride: int = 0,
        padding_side: str | None = None,
        return_tensors: str | None = None,
        **kwargs: Any,
    ) -> Any:
        """Token ids of a text or a pair of texts: a list, or an array `[1, length]` for `return_tensors="np"`.

        The options, and what it raises, are those of a call of the tokenizer.
        """
        if not isinstance(text, str):
            raise TypeError(f"text must be a str, not {type(text).__name__}")
        options = (text_pair, padding, truncation, max_length, stride, padding_side, return_tensors)
        if options == (None, False, None, None, 0, None, None) and not kwargs:
            return self._core.encode(text, encoding.flag(add_special_tokens, "add_special_tokens"))
        encoded = self(
            text,
            text_pair,
            add_special_tokens=add_special_tokens,
            padding=padding,
            truncation=truncation,
            max_length=max_length,
            stride=stride,
            padding_side=padding_side,
            return_tensors=return_tensors,
            **kwargs,
        )
        return encoded["input_ids"]

    def __call__(
        self,
        text: str | Iterable[Any],
        text_pair: str | Iterable[str] | None = None,
        *,
        add_special_tokens: bool = True,
        padding: bool | str = False,
        truncation: bool | str | None = None,
        max_length: SupportsIndex | None = None,
        pad_to_multiple_of: SupportsIndex | None = None,
        padding_side: str | None = None,
        return_tensors: str | None = None,
        return_token_type_ids: bool | None = None,
        return_attention_mask: bool | None = None,
        verbose: bool = True,
        **kwargs: Any,
    ) -> BatchEncoding:
        """`{"input_ids": ..., "attention_mask": ...}`: a list of integers for one text, a list of lists for several.

        Args:
            text: A text, or several; each of several may be a pair.
            text_pair: A second text for each.
            add_special_tokens: Put the tokens around and between texts that the model asks for.
            padding: True or `"longest"` fills sequences up to the longest, `"max_length"` to `max_length`.
            truncation: True or `"longest_first"` cuts sequences to `max_length`, of pairs the longer text first;
                `"only_first"` and `"only_second"` cut that text alone. `max_length` by itself truncates, too.
            max_length: A number of tokens, special ones included; `model_max_length` unless given.
            pad_to_multiple_of: Fill sequences up to a multiple of this.
            padding_side: `"left"` or `"right"` instead of the tokenizer's.
            return_tensors: `"np"` gives arrays of int64, `[rows, length]`; without padding, rows of different length
                are an array of arrays.
            return_token_type_ids: Return which text of a pair each token belongs to; None asks `model_input_names`.
            return_attention_mask: Return 1 for each token and 0 for each that fills up; None likewise.
            verbose: Warn of a `max_length` that changes nothing.
            **kwargs: None. What transformers has besides is refused by name.

        Raises:
            ValueError: An option has no such value, is one of transformers that is not supported, or cannot be met;
                there is no padding token; a text has surrogates, which are not Unicode.
            TypeError: An argument is of another type, or there is none of that name.
        """
        _refuse(kwargs)
        texts, several = encoding.batch(text, text_pair)
        as_arrays = encoding.tensors(return_tensors)
        defaults = encoding.Defaults(self.model_max_length, self.padding_side, self.truncation_side, self.pad_token_id)
        plan = encoding.plan(defaults, padding, truncation, max_length, pad_to_multiple_of, padding_side, verbose)
        special = encoding.flag(add_special_tokens, "add_special_tokens")
        wanted = {
            "token_type_ids": self._wanted(return_token_type_ids, "token_type_ids"),
            "attention_mask": self._wanted(return_attention_mask, "attention_mask"),
        }
        rows = plan.padded(self._encoded(texts, special, plan, several))
        columns = {
            name: [row[at] for row in rows] for at, name in enumerate(("input_ids", *wanted)) if wanted.get(name, True)
        }
        if as_arrays:
            return BatchEncoding({name: encoding.arrays(column) for name, column in columns.items()})
        return BatchEncoding(columns if several else {name: column[0] for name, column in columns.items()})

    def tokenize(self, text: str, pair: str | None = None, add_special_tokens: bool = False) -> list[str]:
        """The tokens of a text, or of a pair of texts, as the vocabulary writes them."""
        for name, value in (("text", text), ("pair", pair or "")):
            if not isinstance(value, str):
                raise TypeError(f"{name} must be a str, not {type(value).__name__}")
        return self._core.tokenize(text, pair or None, encoding.flag(add_special_tokens, "add_special_tokens"))

    def num_special_tokens_to_add(self, pair: bool = False) -> int:
        """How many tokens a call puts around a text, or around and between a pair of texts."""
        return self._core.num_special_tokens_to_add(encoding.flag(pair, "pair"))

    @property
    def added_tokens_decoder(self) -> dict[int, tokenizers.AddedToken]:
        """The tokens that are matched before the text is cut into words, by id, with how they are matched."""
        return self.backend_tokenizer.get_added_tokens_decoder()

    def get_added_vocab(self) -> dict[str, int]:
        """The same tokens with their ids, in order of these."""
        return {token.content: token_id for token_id, token in sorted(self.added_tokens_decoder.items())}

    @cached_property
    def backend_tokenizer(self) -> tokenizers.Tokenizer:
        """The same tokenizer as a `tokenizers.Tokenizer`, made when first asked for."""
        return tokenizers.Tokenizer.from_str(self._core.to_json())

    def _wanted(self, answer: bool | None, name: str) -> bool:
        return name in self.model_input_names if answer is None else encoding.flag(answer, f"return_{name}")

    def _encoded(
        self, texts: list[tuple[str, str | None]], special: bool, plan: encoding.Plan, several: bool
    ) -> list[encoding.Row]:
        try:
            return self._core.encode_batch(texts, special, plan.truncation)
        except UnicodeEncodeError as error:
            if several:
                at = next(at for at, pair in enumerate(texts) if error.object in pair)
                error.reason += f" (text[{at}])"
            raise


def _refuse(kwargs: dict[str, Any]) -> None:
    """Raises for arguments that are none here; those of transformers may have the value that changes nothing."""
    for name, value in kwargs.items():
        if name not in _UNSUPPORTED:
            known = (*_OPTIONS, *_UNSUPPORTED)
            raise TypeError(f"the tokenizer got an unexpected argument {name!r}{did_you_mean(name, known)}")
        if value is not None and value is not False and value != 0:
            raise ValueError(f"{name} is not supported, got {value!r}")
