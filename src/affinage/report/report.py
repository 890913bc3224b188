"""The report of a run: figures with unit, n, interval, seeds and where they come from. Written as `report.json`."""

from collections.abc import Sequence
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from affinage.errors import InputError


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ModelEntry(_Part):
    """A model that the figures are about."""

    name: str
    path: str
    parameters: int
    """counted in the stock model, tied ones once"""
    layers: int
    size_bytes: int
    """of the weights as stored, or 4 bytes a parameter where they are not on disk"""


class Score(_Part):
    """One metric of one model on one part of a task; values are fractions in [0, 1]."""

    model: str
    task: str
    metric: str
    value: float
    low: float | None = None
    high: float | None = None
    """bounds of the 95 % bootstrap interval over examples"""
    n: int
    """examples scored"""
    seeds: tuple[int, ...] = ()
    """seeds of the fine-tuning runs behind the value"""
    baseline: float | None = None
    """score of always answering the commonest label"""
    split: str | None = None


class TrainingRun(_Part):
    """What training cost and reached."""

    steps: int
    """optimizer steps"""
    tokens: int
    """real tokens seen, padding not counted"""
    seconds: float
    losses: dict[str, float] = {}
    """means over the last logged steps"""
    held_out: dict[str, float] = {}
    """figures on text or rows that were not trained on"""

    def facts(self) -> list[tuple[str, str]]:
        """What a person is shown of it: names and figures."""
        cost = [("steps", f"{self.steps:,}"), ("tokens", f"{self.tokens:,}"), ("minutes", f"{self.seconds / 60:.1f}")]
        losses = [(f"training {name}", f"{value:.4f}") for name, value in self.losses.items()]
        return cost + losses + [(f"held-out {name}", f"{value:.4f}") for name, value in self.held_out.items()]


class Hardware(_Part):
    """The machine that made the figures."""

    cpu: str
    cores: int
    memory_gib: float
    accelerator: str | None = None


class Provenance(_Part):
    """How to make the figures again."""

    affinage: str
    python: str
    torch: str | None
    transformers: str | None
    hardware: Hardware
    command: str
    date: str
    """UTC, ISO 8601"""
    seed: int | None
    recipe_sha256: str | None
    data: dict[str, str]
    """file -> sha256 of its bytes; a hub name stands for itself"""
    seconds: float


class Report(_Part):
    """A run's figures and their conditions."""

    schema_version: Literal[1] = 1
    command: str
    """the verb that wrote it"""
    models: tuple[ModelEntry, ...] = ()
    scores: tuple[Score, ...] = ()
    training: TrainingRun | None = None
    provenance: Provenance

    def to_json(self) -> str:
        """The report as JSON that `from_json` reads back to an equal report."""
        return self.model_dump_json(indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Raises: InputError where the text is no report of this version."""
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            first = error.errors()[0]
            raise InputError(f"not a report: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None

    def to_markdown(self) -> str:
        """Tables of models, scores and training, then the provenance."""
        blocks = []
        if self.models:
            rows = [(m.name, str(m.layers), f"{m.parameters:,}", f"{m.size_bytes / 1e6:.1f}") for m in self.models]
            blocks.append(_table(("model", "layers", "parameters", "MB"), rows))
        if self.scores:
            columns = ("model", "task", "part", "metric", "score %", "95 % interval", "baseline %", "n", "seeds")
            blocks.append(_table(columns, [_score_row(score) for score in self.scores]))
        if self.training:
            blocks.append(_table(("training", ""), self.training.facts()))
        hardware = self.provenance.hardware
        machine = f"{hardware.cpu}, {hardware.cores} cores, {hardware.memory_gib:.0f} GiB"
        if hardware.accelerator:
            machine += f", {hardware.accelerator}"
        blocks.append(f"Made by `{self.provenance.command}` on {machine}; {self.provenance.date[:10]}.")
        return "\n\n".join(blocks) + "\n"


def _score_row(score: Score) -> tuple[str, ...]:
    interval = "" if score.low is None or score.high is None else f"{100 * score.low:.1f} to {100 * score.high:.1f}"
    return (
        score.model,
        score.task,
        score.split or "",
        score.metric,
        f"{100 * score.value:.1f}",
        interval,
        "" if score.baseline is None else f"{100 * score.baseline:.1f}",
        f"{score.n:,}",
        ", ".join(map(str, score.seeds)),
    )


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    cells = [[" ".join(cell.replace("|", r"\|").split()) for cell in row] for row in (header, *rows)]
    cells.insert(1, ["---"] * len(header))
    return "\n".join("| " + " | ".join(row) + " |" for row in cells)
