"""The table of recipe and family in the docs is what the pairs do."""

from pathlib import Path

import pytest

from pairs import FAMILIES, YES, in_page, outcome, recipes, table

RECIPES = recipes()


def committed() -> dict[tuple[str, str], str]:
    """(recipe, family) -> yes, or the reason, as the page has it."""
    text = in_page()
    reasons = {line[2:5]: line[6:] for line in text.splitlines() if line.startswith("- (")}
    rows = [
        [cell.strip() for cell in line.strip("|").split(" | ")] for line in text.splitlines() if line.startswith("|")
    ]
    columns = [name.strip("` ") for name in rows[0][1:]]
    return {
        (recipe, row[0]): reasons.get(cell, cell)
        for row in rows[2:]
        for recipe, cell in zip(columns, row[1:], strict=True)
    }


@pytest.mark.parametrize("label", FAMILIES)
@pytest.mark.parametrize("recipe", RECIPES)
def test_the_page_says_what_a_pair_does(recipe: str, label: str, tmp_path: Path) -> None:
    """Where it says yes: the student is built, learns, and stock transformers loads it."""
    found = outcome(recipe, label, tmp_path)
    assert committed().get((recipe, label)) == found, "out of date: run `python tests/pairs.py`"


def test_the_page_has_every_recipe_and_is_written_as_the_script_writes_it() -> None:
    cells = committed()
    assert {recipe for recipe, _ in cells} == set(RECIPES), "out of date: run `python tests/pairs.py`"
    assert in_page() == table(cells)
    assert all(any(cells[recipe, label] == YES for label in FAMILIES) for recipe in RECIPES)
