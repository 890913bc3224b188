"""What each compressor gives on a tiny model, as the docs say it; `python tests/compressors_table.py` writes it."""

from pathlib import Path
from typing import Any

from affinage.compression.base import compressors
from affinage.errors import InputError
from affinage.evaluation.footprint import footprint
from affinage.models.structure import structure_of
from affinage.runtime.onnx.build import onnx_graph
from applied import once

PAGE = Path(__file__).parents[1] / "docs" / "compress.md"
BEGIN, END = "<!-- made by `python tests/compressors_table.py` -->", "<!-- end of what is made -->"
INTEGER_PRODUCTS = {"MatMulInteger", "MatMulIntegerToFloat", "DynamicQuantizeMatMul", "QLinearMatMul"}
"""operators of the exported graph that multiply integers, for which ONNX Runtime has quick kernels"""
COLUMNS = ("method", "what it does", "loads in", "smaller", "faster", "needs")


def rows() -> list[tuple[str, ...]]:
    """A row a method, by paradigm and name."""
    entries = compressors.entries()
    entries.sort(key=lambda entry: (str(_class(entry).traits.paradigm), entry.name))
    return [_row(entry.name) for entry in entries]


def table(found: list[tuple[str, ...]]) -> str:
    """Markdown."""
    lines = [COLUMNS, ("---",) * len(COLUMNS), *found]
    cells = [[cell.replace("|", "\\|") for cell in line] for line in lines]
    return "\n".join(f"| {' | '.join(line)} |" for line in cells).replace("| ---", "|---").replace("--- |", "---|")


def in_page() -> str:
    """The table as the docs have it."""
    return PAGE.read_text(encoding="utf-8").partition(BEGIN)[2].partition(END)[0].strip()


def _class(entry: Any) -> Any:
    return entry.component


def _row(name: str) -> tuple[str, ...]:
    entry = compressors.entry(name)
    method = _class(entry)
    try:
        model, made, _ = once(name, "bert", "sequence")
    except InputError as error:
        return (f"`{name}`", entry.summary, f"not BERT: {error}", "", "", "")
    before, after = footprint(model), footprint(made)
    faster = []
    if after.flops < before.flops:
        faster.append("fewer operations")
    if {node.op_type for node in onnx_graph(made).graph.node} & INTEGER_PRODUCTS:
        faster.append("int8")
    needs = [*sorted(method.needs), *(["training"] if hasattr(method, "on_step") else [])]
    return (
        f"`{name}`",
        entry.summary,
        "transformers" if structure_of(made).empty else "affinage",
        "yes" if after.size_bytes < before.size_bytes else "no",
        ", ".join(faster) or "no",
        ", ".join(needs),
    )


def main() -> None:
    text = PAGE.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    PAGE.write_text(f"{before}{BEGIN}\n{table(rows())}\n{END}{rest.partition(END)[2]}", encoding="utf-8")


if __name__ == "__main__":
    main()
