"""The ledger of a compression: what the model was after each step of its plan."""

from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict


class LedgerEntry(BaseModel):
    """One step of a plan, or the model before the first."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    step: int
    """from 1; 0: the model as it was"""
    title: str
    """the method and its parameters"""
    parameters: int
    """tied and shared ones once, packed integers each"""
    size_bytes: int
    """of the tensors as they are stored"""
    latency_ms: float | None
    """of one text of 128 tokens, or as many as the model takes, in PyTorch; median"""
    score: float | None
    """the task's first metric on the valid part, or the share of hidden words of held-out text that are found"""
    undone: bool = False
    """lost more than the plan allows: the steps after it start from the model before it"""
    recovery_steps: int = 0
    """optimizer steps of recovery training"""
    seconds: float
    """that the step took, its measuring included"""


def ledger_table(ledger: Sequence[LedgerEntry]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Columns and rows as people read them."""
    columns: tuple[str, ...] = ("step", "what", "parameters", "MB", "smaller", "ms", "score %", "trained", "")
    first = ledger[0].size_bytes if ledger else 0
    rows: list[tuple[str, ...]] = [
        (
            str(entry.step),
            entry.title,
            f"{entry.parameters:,}",
            f"{entry.size_bytes / 1e6:,.2f}",
            f"{first / entry.size_bytes:.2f}×" if entry.size_bytes else "",
            "" if entry.latency_ms is None else f"{entry.latency_ms:.2f}",
            "" if entry.score is None else f"{100 * entry.score:.1f}",
            f"{entry.recovery_steps:,} steps" if entry.recovery_steps else "",
            "undone" if entry.undone else "",
        )
        for entry in ledger
    ]
    return columns, rows
