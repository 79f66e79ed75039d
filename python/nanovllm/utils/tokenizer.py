"""The tokenizer with transformers' interface, as nano-vLLM's users call it; Rust does the work."""

from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Any

import tokenizers

from nanovllm import _core
from nanovllm.exceptions import ChatTemplateError
from nanovllm.utils.conversation import Message, checked, dumps, is_conversation_list

# transformers' options that would change what is returned: refused, never passed to the template as variables.
_UNSUPPORTED = (
    "continue_final_message",
    "max_length",
    "padding",
    "return_assistant_tokens_mask",
    "return_dict",
    "return_tensors",
    "tokenizer_kwargs",
    "truncation",
)


class Tokenizer:
    """A model's tokenizer, made by the engine that loaded it."""

    def __init__(self, core: _core.Tokenizer) -> None:
        self._core = core

    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
        """Token ids of `text`. Raises ValueError for text with surrogates, which is not Unicode."""
        return self._core.encode(text, add_special_tokens)

    def decode(self, token_ids: int | Iterable[int], skip_special_tokens: bool = False) -> str:
        """Text of one token id or of several. An id without a token adds nothing."""
        return self._core.decode([token_ids] if isinstance(token_ids, int) else token_ids, skip_special_tokens)

    def batch_decode(self, sequences: Iterable[Iterable[int]], skip_special_tokens: bool = False) -> list[str]:
        """Texts of several lists of token ids."""
        return [self.decode(token_ids, skip_special_tokens) for token_ids in sequences]

    def __call__(self, text: str | Sequence[str], add_special_tokens: bool = True) -> dict[str, Any]:
        """`{"input_ids": ..., "attention_mask": ...}`: a list of integers for one text, a list of lists for several."""
        if isinstance(text, str):
            input_ids = self.encode(text, add_special_tokens)
            return {"input_ids": input_ids, "attention_mask": [1] * len(input_ids)}
        rows = [self.encode(item, add_special_tokens) for item in text]
        return {"input_ids": rows, "attention_mask": [[1] * len(row) for row in rows]}

    def apply_chat_template(
        self,
        conversation: Sequence[Message] | Sequence[Sequence[Message]],
        tools: Sequence[dict[str, Any]] | None = None,
        documents: Sequence[dict[str, Any]] | None = None,
        chat_template: str | None = None,
        add_generation_prompt: bool = False,
        *,
        tokenize: bool = True,
        **kwargs: Any,
    ) -> Any:
        """The prompt of a conversation: token ids, or text with `tokenize=False`; a list of them for several.

        Args:
            conversation: Messages in order, or a list of conversations. Content in OpenAI's form, a list of parts, may
                have parts of text only, which are joined.
            tools: Functions the model may call, as JSON schemas.
            documents: Documents for retrieval-augmented generation.
            chat_template: A Jinja template to use instead of the model's, or the name of one of the model's.
            add_generation_prompt: End the prompt with what starts an answer.
            tokenize: Return token ids rather than text.
            **kwargs: Variables for the template, such as `enable_thinking`.

        Raises:
            ChatTemplateError: The model has no template, or the template failed or reached a limit on its size, depth,
                time or memory: templates come with models, and models from anywhere.
            ValueError: A conversation is empty, a message has no role, a part of its content is not text, a text is not
                Unicode, or an option of transformers is not supported.
            TypeError: What should be a list of messages, a message or its content is not, or a value is not JSON.
        """
        for name in _UNSUPPORTED:
            if kwargs.pop(name, None):
                raise ValueError(f"apply_chat_template does not support {name}")

        several = is_conversation_list(conversation)
        names = [f"conversation {index}: " for index in range(len(conversation))] if several else [""]
        rows = list(conversation) if several else [conversation]
        options = (
            add_generation_prompt,
            None if tools is None else dumps(tools, "tools"),
            None if documents is None else dumps(documents, "documents"),
            chat_template,
            dumps(kwargs, "the template's variables"),
        )

        def render(messages: Any, name: str) -> str | list[int]:
            content = dumps(checked(messages, name), f"{name}messages")
            try:
                text = self._core.apply_chat_template(content, *options)
            except ChatTemplateError as error:
                raise ChatTemplateError(f"{name}{error}") from None
            return self.encode(text, add_special_tokens=False) if tokenize else text

        prompts = [render(messages, name) for messages, name in zip(rows, names, strict=True)]
        return prompts if several else prompts[0]

    def chat_template_variables(self, chat_template: str | None = None, *, has_tools: bool = False) -> set[str]:
        """The names that a chat template reads and does not set itself, functions among them.

        The template is the one that `apply_chat_template` would use. Raises ChatTemplateError as it does.
        """
        return self._core.chat_template_variables(chat_template, has_tools)

    @property
    def chat_template(self) -> str | None:
        """The model's Jinja chat template; None if it has none."""
        return self._core.chat_template

    @property
    def eos_token_id(self) -> int | None:
        """Id of the token that ends a sequence: the first, where a model has several, and None, where it has none."""
        ids = self._core.eos_token_ids
        return ids[0] if ids else None

    @property
    def eos_token(self) -> str | None:
        """The token that ends a sequence, or None."""
        return self._token(self.eos_token_id)

    @property
    def bos_token_id(self) -> int | None:
        """Id of the token that starts a sequence, or None."""
        return self._core.bos_token_id

    @property
    def bos_token(self) -> str | None:
        """The token that starts a sequence, or None."""
        return self._token(self.bos_token_id)

    @property
    def pad_token_id(self) -> int | None:
        """Id of the padding token, or None."""
        return self._core.pad_token_id

    @property
    def pad_token(self) -> str | None:
        """The padding token, or None."""
        return self._token(self.pad_token_id)

    def convert_tokens_to_ids(self, tokens: str | Iterable[str]) -> Any:
        """Id of a token, or of each of several; None for one that is not in the vocabulary."""
        if isinstance(tokens, str):
            return self._core.token_to_id(tokens)
        return [self._core.token_to_id(token) for token in tokens]

    def convert_ids_to_tokens(self, ids: int | Iterable[int]) -> Any:
        """Token of an id, or of each of several; None for one not in the vocabulary. ValueError for one below 0."""
        if isinstance(ids, int):
            return self._core.id_to_token(ids)
        return [self._core.id_to_token(token_id) for token_id in ids]

    def get_vocab(self) -> dict[str, int]:
        """Every token with its id, added tokens included."""
        return self.backend_tokenizer.get_vocab()

    @property
    def vocab_size(self) -> int:
        """Tokens in the vocabulary without the added ones, as transformers counts."""
        return self.backend_tokenizer.get_vocab_size(with_added_tokens=False)

    def __len__(self) -> int:
        return self._core.vocab_size

    @cached_property
    def backend_tokenizer(self) -> tokenizers.Tokenizer:
        """The same tokenizer as a `tokenizers.Tokenizer`, made when first asked for."""
        return tokenizers.Tokenizer.from_str(self._core.to_json())

    def _token(self, token_id: int | None) -> str | None:
        return None if token_id is None else self._core.id_to_token(token_id)
