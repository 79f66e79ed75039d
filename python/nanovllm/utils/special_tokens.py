"""The special tokens of a tokenizer, under transformers' names."""

from typing import Any, overload

from nanovllm import _core

_ROLES = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")


class _Attribute:
    """An attribute that belongs to a role, with a documentation of its own."""

    def __init__(self, meaning: str) -> None:
        self.__doc__ = meaning

    def __set_name__(self, owner: type, name: str) -> None:
        self._name, self._role = name, name.removesuffix("_id")


class _Token(_Attribute):
    """A token with a role, or None. That of padding can be set."""

    @overload
    def __get__(self, tokens: None, owner: type) -> Any: ...
    @overload
    def __get__(self, tokens: "SpecialTokens", owner: type) -> str | None: ...
    def __get__(self, tokens: "SpecialTokens | None", owner: type) -> Any:
        return self if tokens is None else tokens._roles.get(self._role)

    def __set__(self, tokens: "SpecialTokens", token: str | None) -> None:
        tokens._set(self._role, token)


class _TokenId(_Attribute):
    """The id of a token with a role, or None."""

    @overload
    def __get__(self, tokens: None, owner: type) -> Any: ...
    @overload
    def __get__(self, tokens: "SpecialTokens", owner: type) -> int | None: ...
    def __get__(self, tokens: "SpecialTokens | None", owner: type) -> Any:
        if tokens is None:
            return self
        token = tokens._roles.get(self._role)
        return None if token is None else tokens._core.token_to_id(token)

    def __set__(self, tokens: "SpecialTokens", token_id: Any) -> None:
        token = None if token_id is None else tokens._core.id_to_token(token_id)
        if token is None and token_id is not None:
            raise ValueError(f"{self._name} is {token_id}, which is no token of the vocabulary")
        tokens._set(self._role, token)


class SpecialTokens:
    """The tokens that have a role, and those that the model's files list besides.

    A token that the files name and the vocabulary lacks is none, for the model knows no such id.
    """

    bos_token = _Token("The token that starts a sequence, or None.")
    unk_token = _Token("The token for what the vocabulary lacks, or None.")
    sep_token = _Token("The token between two texts, or None.")
    pad_token = _Token("The padding token, or None. Any token of the vocabulary can be set, or None.")
    cls_token = _Token("The token whose output stands for all of a sequence, or None.")
    mask_token = _Token("The token for what is to be guessed, or None.")
    eos_token = _Token("The token that ends a sequence: the first, where a model has several, or None.")
    bos_token_id = _TokenId("Id of the token that starts a sequence, or None.")
    unk_token_id = _TokenId("Id of the token for what the vocabulary lacks, or None.")
    sep_token_id = _TokenId("Id of the token between two texts, or None.")
    pad_token_id = _TokenId("Id of the padding token, or None. Any id of the vocabulary can be set, or None.")
    cls_token_id = _TokenId("Id of the token whose output stands for all of a sequence, or None.")
    mask_token_id = _TokenId("Id of the token for what is to be guessed, or None.")

    def __init__(self, core: _core.Tokenizer) -> None:
        self._core = core
        roles = dict(core.special_tokens)
        eos = self.eos_token_id
        token = None if eos is None else core.id_to_token(eos)
        if token is not None:
            roles["eos_token"] = token
        self._roles = {role: roles[role] for role in _ROLES if role in roles}

    @property
    def eos_token_id(self) -> int | None:
        """Id of the token that ends a sequence: the first, where a model has several, and None, where it has none."""
        return next(iter(self._core.eos_token_ids), None)

    @property
    def additional_special_tokens(self) -> list[str]:
        """Special tokens without a role that the model's files list; transformers 5 calls them extra ones."""
        return self._core.additional_special_tokens

    @property
    def additional_special_tokens_ids(self) -> list[int]:
        """Their ids."""
        return self._ids(self.additional_special_tokens)

    @property
    def special_tokens_map(self) -> dict[str, Any]:
        """The tokens by role, and the list `additional_special_tokens` where there are any, as in transformers 4."""
        additional = self.additional_special_tokens
        return self._roles | ({"additional_special_tokens": additional} if additional else {})

    @property
    def all_special_tokens(self) -> list[str]:
        """Every special token once: those with a role, then the others."""
        return list(dict.fromkeys([*self._roles.values(), *self.additional_special_tokens]))

    @property
    def all_special_ids(self) -> list[int]:
        """Their ids."""
        return self._ids(self.all_special_tokens)

    def _ids(self, tokens: list[str]) -> list[int]:
        ids = map(self._core.token_to_id, tokens)
        return [token_id for token_id in ids if token_id is not None]

    def _set(self, role: str, token: str | None) -> None:
        if role != "pad_token":
            raise AttributeError(f"{role} cannot be set: it is the model's; only pad_token can be")
        if not isinstance(token, str | None):
            raise TypeError(f"{role} must be a str or None, not {type(token).__name__}")
        if token is not None and self._core.token_to_id(token) is None:
            raise ValueError(f"{role} is {token!r}, which is no token of the vocabulary")
        roles = {name: value for name, value in self._roles.items() if name != role}
        if token is not None:
            roles[role] = token
        self._roles = {name: roles[name] for name in _ROLES if name in roles}
