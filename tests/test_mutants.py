"""The mutants fit the SQL as it is; `make mutants` shows that each is killed."""

import pytest

from databases import CHECKOUT
from mutants import MUTANTS, Mutant


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_mutant_changes_one_place_and_names_its_killer(mutant: Mutant) -> None:
    text = (CHECKOUT / "db" / mutant.file).read_text()
    assert text.count(mutant.was) == 1
    path, _, test = mutant.killer.partition("::")
    is_there = test == "UTC" or f"def {test}(" in (CHECKOUT / path).read_text()
    assert is_there, mutant.killer
