"""What docs/compress.md says of the methods is what they do, and what the search of a plan draws."""

import re

from affinage.compression.base import NEEDS
from affinage.compression.plan import step_of
from affinage.compression.space import NONE, slots_for
from applied import NAMES
from compressors_table import PAGE, in_page, rows, table


def test_the_table_of_methods_is_what_they_do() -> None:
    assert in_page() == table(rows()), "out of date: run `PYTHONPATH=src:tests python tests/compressors_table.py`"


def test_what_the_search_leaves_out_is_said() -> None:
    text = PAGE.read_text(encoding="utf-8")
    drawn = slots_for(layers=12, given=NEEDS, texts=True).values()
    used = {step_of(choice).method for choices in drawn for choice in choices if choice != NONE}
    begins, ends = "**What the search leaves out.**", "<!-- end of what is left out -->"
    parts = text.partition(begins)[2].partition(ends)[0].split("<!-- left out -->")
    said, left = (set(re.findall(r"`([a-z0-9-]+)`", part)) for part in parts)
    assert said == used and left == set(NAMES) - used
