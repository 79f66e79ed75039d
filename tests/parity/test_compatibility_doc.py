"""`docs/compatibility.md`: it has every public name of nano-vLLM, says which are missing, and names what exists."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from typing import Any

import pytest

from parity.api import entries

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "compatibility.md").read_text(encoding="utf-8")
SECTION = re.compile(r"^### `nanovllm\.([\w.]+)`$(.*?)(?=^##)", re.MULTILINE | re.DOTALL)
ROW = re.compile(r"^\| (`.*?) \| (.*?) \| (.*?) \|$", re.MULTILINE)
FIELDS = ("Config", "SamplingParams", "Context")
"""Classes whose parameters are attributes, which the tables list too."""
MODULES = list(dict.fromkeys(module for module, _, _ in entries()))


def listed(section: str) -> dict[str, str]:
    """Dotted names in the first column, and where the second says they are; a leading dot follows its class."""
    places, owner = {}, ""
    for names, place, difference in ROW.findall(section):
        assert place.strip("`")
        assert difference
        for name in re.findall(r"`([^`]+)`", names):
            if not name.startswith("."):
                owner = name
            places[owner + name if name.startswith(".") else name] = place
    return places


SECTIONS = {module: listed(section) for module, section in SECTION.findall(TEXT)}


def test_there_is_a_table_for_each_module() -> None:
    assert list(SECTIONS) == MODULES


@pytest.mark.parametrize("module", MODULES)
def test_every_name_has_its_place(module: str) -> None:
    places, wrong = SECTIONS[module], []
    for name, parameters in (entry[1:] for entry in entries() if entry[0] == module):
        fields = [f"{name}.{field}" for field in parameters or () if name in FIELDS]
        wrong += [f"{each} is not listed" for each in (name, *fields) if each not in places]
        thing: Any = importlib.import_module(f"nanovllm.{module}")
        for part in name.split("."):
            thing = getattr(thing, part, None)
        if (thing is None) != (places.get(name) == "none"):
            wrong.append(f"{name} is {'missing' if thing is None else 'here'}, the table says {places.get(name)}")
    assert not wrong


def test_what_it_names_exists() -> None:
    files = set(re.findall(r"`((?:rust|tests)/[^`:\s]+\.(?:rs|py))", TEXT))
    assert len(files) > 40
    assert not [file for file in sorted(files) if not (ROOT / file).is_file()]
    cited = re.findall(r"`((?:rust|tests)/[^`:\s]+)::(\w+)`", TEXT)
    assert len(cited) > 15
    missing = [
        f"{file}::{name}"
        for file, name in cited
        if not re.search(rf"^ *(?:def|fn) {name}\(", (ROOT / file).read_text(encoding="utf-8"), re.MULTILINE)
    ]
    assert not missing
