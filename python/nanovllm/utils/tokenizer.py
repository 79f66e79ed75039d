"""The tokenizer with transformers' interface, as nano-vLLM's users call it; Rust does the work."""

import inspect
from collections.abc import Iterable, Mapping, Sequence, Set
from numbers import Integral
from typing import Any, SupportsIndex

import numpy as np

from nanovllm import _core
from nanovllm.exceptions import ChatTemplateError
from nanovllm.utils.conversation import FinalMessage, Message, Parts, checked, dumps, is_conversation_list
from nanovllm.utils.encoder import Encoder
from nanovllm.utils.encoding import flag
from nanovllm.utils.names import nearest

# transformers' options that would change what is returned: refused, never passed to the template as variables.
_UNSUPPORTED = ("return_assistant_tokens_mask", "sanitize_control_tokens")
# How much like one of our own arguments a variable must be that the template does not read, to be taken for a slip.
_LIKENESS = 0.75
# What is replaced by its last part where text is cleaned up.
_SPACED = (" .", " ?", " !", " ,", " ' ", " n't", " 'm", " 's", " 've", " 're")


class Tokenizer(Encoder):
    """A model's tokenizer, made by the engine that loaded it.

    It can be pickled and copied.

    Attributes:
        clean_up_tokenization_spaces: Whether decoding removes spaces before punctuation unless it is told, as the
            model's files say. Never for byte-pair encoding, whose tokens hold the spaces that the text had.
    """

    def __init__(self, core: _core.Tokenizer, name_or_path: str = "") -> None:
        super().__init__(core, name_or_path)
        self.clean_up_tokenization_spaces = core.clean_up_tokenization_spaces

    def decode(
        self,
        token_ids: SupportsIndex | Iterable[SupportsIndex],
        skip_special_tokens: bool = False,
        clean_up_tokenization_spaces: bool | None = None,
    ) -> str:
        """Text of one token id or of several, numpy's included. An id without a token adds nothing.

        Args:
            token_ids: An id, or ids in order.
            skip_special_tokens: Leave special tokens out.
            clean_up_tokenization_spaces: Remove spaces before punctuation and English contractions; None is the
                model's.
        """
        single = isinstance(token_ids, Integral) or (isinstance(token_ids, np.ndarray) and token_ids.ndim == 0)
        ids: Any = [token_ids] if single else token_ids
        text = self._core.decode(ids, flag(skip_special_tokens, "skip_special_tokens"))
        if clean_up_tokenization_spaces is None:
            cleans = self.clean_up_tokenization_spaces and not self._core.is_bpe
        else:
            cleans = flag(clean_up_tokenization_spaces, "clean_up_tokenization_spaces")
        if cleans:
            for spaced in _SPACED:
                text = text.replace(spaced, spaced.strip())
        return text

    def batch_decode(
        self,
        sequences: Iterable[SupportsIndex | Iterable[SupportsIndex]],
        skip_special_tokens: bool = False,
        clean_up_tokenization_spaces: bool | None = None,
    ) -> list[str]:
        """Texts of several lists of token ids, or of the rows of an array; of integers, the text of each."""
        if isinstance(sequences, str | bytes | Mapping | Set) or not isinstance(sequences, Iterable):
            raise TypeError(f"sequences must be a list of lists of token ids, not {type(sequences).__name__}")
        return [self.decode(ids, skip_special_tokens, clean_up_tokenization_spaces) for ids in sequences]

    def apply_chat_template(
        self,
        conversation: Sequence[Message] | Sequence[Sequence[Message]],
        tools: Sequence[dict[str, Any]] | None = None,
        documents: Sequence[dict[str, Any]] | None = None,
        chat_template: str | None = None,
        add_generation_prompt: bool = False,
        continue_final_message: bool | str = False,
        tokenize: bool = True,
        padding: bool | str = False,
        truncation: bool | str = False,
        max_length: SupportsIndex | None = None,
        return_tensors: str | None = None,
        return_dict: bool = False,
        tokenizer_kwargs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> Any:
        """The prompt of a conversation: token ids, or text with `tokenize=False`; a list of them for several.

        Args:
            conversation: Messages in order, or a list of conversations. Content in OpenAI's form, a list of parts, may
                have parts of text only, which are joined for a template that does not read parts itself.
            tools: Functions the model may call, as JSON schemas.
            documents: Documents for retrieval-augmented generation.
            chat_template: A Jinja template to use instead of the model's, or the name of one of the model's.
            add_generation_prompt: End the prompt with what starts an answer.
            continue_final_message: End the prompt with the text of the last message, for the model to go on with it; a
                text names the key of the message to go on with instead of `content`.
            tokenize: Return token ids rather than text. Without it, all that follows changes nothing.
            padding: As in a call of the tokenizer, like all that follows.
            truncation: Cut what is longer than `max_length`.
            max_length: A number of tokens.
            return_tensors: `"np"` gives arrays, also for one conversation.
            return_dict: Return a dict as a call of the tokenizer does, not the ids alone.
            tokenizer_kwargs: Further options of a call of the tokenizer.
            **kwargs: Variables for the template, such as `enable_thinking`.

        Raises:
            ChatTemplateError: The model has no template, or the template failed or reached a limit on its size, depth,
                time or memory: templates come with models, and models from anywhere.
            ValueError: A conversation is empty, a message has no role, a part of its content is not text, a text is not
                Unicode, options contradict each other, or an option of transformers is not supported.
            TypeError: What should be a list of messages, a message or its content is not, a value is not JSON, or a
                variable that the template does not read is almost the name of one of these arguments.
        """
        self._check_variables(kwargs, chat_template, has_tools=tools is not None)
        if flag(return_dict, "return_dict") and not flag(tokenize, "tokenize"):
            raise ValueError("return_dict needs tokenize=True: text alone is no dict")
        if continue_final_message and add_generation_prompt:
            raise ValueError("continue_final_message and add_generation_prompt exclude each other")
        named = isinstance(continue_final_message, str)
        key = str(continue_final_message) if named else "content"
        goes_on = named or flag(continue_final_message, "continue_final_message")

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

        def render(messages: list[Message], name: str) -> str:
            return self._core.apply_chat_template(dumps(messages, f"{name}messages"), *options)

        def prompt(given: Any, name: str) -> str:
            messages = checked(given, name)
            if parts := Parts(messages):
                try:
                    probed = render(parts.probe(), name)
                except ChatTemplateError:
                    probed = None
                messages = parts.read(probed)
            final = FinalMessage(messages, key, name) if goes_on else None
            try:
                text = render(final.marked() if final else messages, name)
            except ChatTemplateError as error:
                raise ChatTemplateError(f"{name}{error}") from None
            return final.cut(text) if final else text

        prompts = [prompt(messages, name) for messages, name in zip(rows, names, strict=True)]
        if not tokenize:
            return prompts if several else prompts[0]
        encoded = self(
            prompts if several else prompts[0],
            add_special_tokens=False,
            padding=padding,
            truncation=truncation,
            max_length=max_length,
            return_tensors=return_tensors,
            **(tokenizer_kwargs or {}),
        )
        return encoded if return_dict else encoded["input_ids"]

    def chat_template_variables(self, chat_template: str | None = None, *, has_tools: bool = False) -> set[str]:
        """The names that a chat template reads and does not set itself, functions among them.

        The template is the one that `apply_chat_template` would use. Raises ChatTemplateError as it does.
        """
        return self._core.chat_template_variables(chat_template, has_tools)

    @property
    def chat_template(self) -> str | None:
        """The model's Jinja chat template; None if it has none."""
        return self._core.chat_template

    def convert_tokens_to_ids(self, tokens: str | Iterable[str]) -> Any:
        """Id of a token, or of each of several; that of `unk_token`, or None, for one that is not in the vocabulary."""
        if not isinstance(tokens, str):
            return [self.convert_tokens_to_ids(token) for token in tokens]
        token_id = self._core.token_to_id(tokens)
        return self.unk_token_id if token_id is None else token_id

    def convert_ids_to_tokens(
        self, ids: SupportsIndex | Iterable[SupportsIndex], skip_special_tokens: bool = False
    ) -> Any:
        """Token of an id, or of each of several; None for one not in the vocabulary. ValueError for one below 0.

        With `skip_special_tokens` those of `all_special_ids` are left out, but for a single id.
        """
        if isinstance(ids, Integral):
            return self._core.id_to_token(ids)
        skipped = set(self.all_special_ids) if flag(skip_special_tokens, "skip_special_tokens") else set()
        items: Any = ids
        return [self._core.id_to_token(token_id) for token_id in items if token_id not in skipped]

    def convert_tokens_to_string(self, tokens: Sequence[str]) -> str:
        """The text of tokens as the vocabulary writes them."""
        if isinstance(tokens, str):
            raise TypeError("tokens must be a list of tokens, not a str")
        return self._core.convert_tokens_to_string(list(tokens))

    def get_vocab(self) -> dict[str, int]:
        """Every token with its id, added tokens included."""
        return self.backend_tokenizer.get_vocab()

    @property
    def vocab_size(self) -> int:
        """Tokens in the vocabulary without the added ones, as transformers counts."""
        return self.backend_tokenizer.get_vocab_size(with_added_tokens=False)

    def __len__(self) -> int:
        return self._core.vocab_size

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "backend_tokenizer"}

    def _check_variables(self, variables: dict[str, Any], chat_template: str | None, *, has_tools: bool) -> None:
        """Raises for an option of transformers that is not supported, and for a mistyped argument."""
        for name in _UNSUPPORTED:
            if variables.pop(name, None):
                raise ValueError(f"apply_chat_template does not support {name}")
        own = inspect.signature(Tokenizer.apply_chat_template).parameters.keys() - {"self", "kwargs"}
        for name in variables:
            near = nearest(name, own, _LIKENESS)
            if near and name not in self.chat_template_variables(chat_template, has_tools=has_tools):
                raise TypeError(
                    f"apply_chat_template got {name!r}, which the chat template does not read; did you mean {near!r}?"
                )
