"""The table of methods in docs/compress.md is what the methods do."""

from compressors_table import in_page, rows, table


def test_the_table_of_methods_is_what_they_do() -> None:
    assert in_page() == table(rows()), "out of date: run `PYTHONPATH=src:tests python tests/compressors_table.py`"
