"""The mutations of `make mutants` have their places in the sources, which move between the rare runs of it."""

from __future__ import annotations

from pathlib import Path

from tools.mutations import MUTATIONS

ROOT = Path(__file__).parents[1]


def test_every_mutation_has_its_place_and_its_suite() -> None:
    for mutation in MUTATIONS:
        assert mutation.place(ROOT).is_file()
        assert (ROOT / "tests" / "parity" / f"test_{mutation.suite}.py").is_file()
