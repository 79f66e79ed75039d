"""Prints how far the logits of each family's tiny model are from transformers', as a table in Markdown.

    PYTHONPATH=tests python tests/tools/family_errors.py [OPTION=VALUE ...]

A row is a model of `tests/golden/families/`, a column what it is read from; a cell has the largest error of a logit
over all prompts, whole, in chunks and token by token. Options are fields of `Config`, such as `device=candle-f32`.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from family_models import CASES, FORMATS, LENGTHS, FamilyModel, make


def main() -> None:
    """Print the table."""
    options = dict(argument.split("=", 1) for argument in sys.argv[1:])
    print(f"| model | {' | '.join(FORMATS)} |")
    print("|---|" + "---:|" * len(FORMATS))
    with tempfile.TemporaryDirectory() as folder:
        for name in CASES:
            paths = make(name, Path(folder))
            cells = [f"{worst(name, kind, paths[kind], options):.1e}" if kind in paths else "" for kind in FORMATS]
            print(f"| {name} | {' | '.join(cells)} |")


def worst(name: str, kind: str, path: Path, options: dict[str, str]) -> float:
    """Return the largest error over every prompt and every way to run it."""
    model = FamilyModel(name, kind, path, **options)
    longest = max(LENGTHS)
    chunks = [[64] * (longest // 64) + [longest % 64], [1] * longest]
    return max(*(model.error(length) for length in LENGTHS), *(model.error(longest, sizes) for sizes in chunks))


if __name__ == "__main__":
    main()
