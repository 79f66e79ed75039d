"""Finds a model's files on this machine by what a user calls it, and downloads them if need be."""

import os
import re
from pathlib import Path

from nanovllm.exceptions import ModelNotFoundError, UnsupportedModelError

_REPO_ID = re.compile(r"(?P<repo>[\w-][\w.-]*/[\w-][\w.-]*)(:(?P<file>[^:]+\.gguf))?", re.ASCII)
_SHARD = re.compile(r"(?P<stem>.+)-\d{5}-of-(?P<count>\d{5})\.gguf")
_PATTERNS = ["*.safetensors", "*.json", "*.jinja"]
_TEMPLATES = "additional_chat_templates"


def resolve_model(model: str | os.PathLike[str]) -> str:
    """The path of a model: a directory, a .gguf file, or a Hugging Face repository, downloaded or from its cache.

    A repository is named `owner/name` for its safetensors checkpoint, or `owner/name:file.gguf` for one GGUF file; any
    shard of a split one brings the others.

    Raises:
        ModelNotFoundError: Nothing of that name here, and it could not be downloaded; says what was tried.
        UnsupportedModelError: The repository holds no safetensors files.
    """
    if not isinstance(model, (str, os.PathLike)):
        raise TypeError(f"model must be a path or the id of a Hugging Face repository, not {type(model).__name__}")
    name = os.fspath(model)
    if not name:
        raise ModelNotFoundError("model is empty: it must be a path or the id of a Hugging Face repository")
    try:
        path = Path(name).expanduser()
    except RuntimeError:  # "~somebody" for whom the system knows no home
        raise ModelNotFoundError(f"there is no model at {name}: the system knows no home for its ~") from None
    if path.exists():
        return str(path)
    match = _REPO_ID.fullmatch(name)
    # A file name, even of a file that is not there, is not a repository.
    if match is None or (match["file"] is None and name.endswith((".gguf", ".safetensors"))):
        raise ModelNotFoundError(
            f"there is no model at {name}: neither a directory nor a .gguf file, and not the id of a Hugging Face "
            f"repository (owner/name or owner/name:file.gguf)"
        )
    return _download(name, match["repo"], match["file"])


def _other_shards(filename: str) -> list[str]:
    """The other files of the split model that `filename` is a shard of; none for a model in one file."""
    match = _SHARD.fullmatch(filename)
    if match is None:
        return []
    count = int(match["count"])
    names = (f"{match['stem']}-{number:05}-of-{count:05}.gguf" for number in range(1, count + 1))
    return [name for name in names if name != filename]


def _outside(folder: str) -> list[str]:
    """Patterns of the files in any folder but this one, and in folders within it.

    A pattern cannot say "not this name", only "not this character": each matches the names that part from the folder's
    at one place.
    """
    part = [f"{folder[:at]}[!{folder[at]}]*/*" for at in range(len(folder))]
    end = [f"{folder[:at]}/*" for at in range(len(folder))]
    return [*part, *end, f"{folder}[!/]*/*", f"{folder}/*/*"]


def _download(name: str, repo_id: str, filename: str | None) -> str:
    # Imported when needed: a model on this machine needs neither the hub client nor its start-up time.
    from huggingface_hub import hf_hub_download, snapshot_download

    try:
        if filename is not None:
            for shard in _other_shards(filename):
                hf_hub_download(repo_id, shard)
            return str(hf_hub_download(repo_id, filename))
        # Checkpoints sit at the top; other folders than that of templates hold exports for other programs.
        elsewhere = [*_outside(_TEMPLATES), f"{_TEMPLATES}/*.json", f"{_TEMPLATES}/*.safetensors"]
        path = str(snapshot_download(repo_id, allow_patterns=_PATTERNS, ignore_patterns=elsewhere))
    except Exception as error:  # the client's errors differ by version and transport
        raise ModelNotFoundError(
            f"cannot find the model {name!r}: there is no such path under {Path.cwd()}, and fetching the Hugging Face "
            f"repository {repo_id!r} failed, neither cached nor downloadable ({type(error).__name__}: {error})"
        ) from None  # the message says it all, and the client's traceback has a hundred lines
    if not any(Path(path).glob("*.safetensors")):
        raise UnsupportedModelError(
            f"the Hugging Face repository {repo_id!r} has no .safetensors files; to load one of its GGUF files, "
            f'name it as "{repo_id}:FILE.gguf"'
        )
    return path
