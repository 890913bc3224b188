"""The report of a run: figures with unit, n, interval, seeds and where they come from. Written as `report.json`."""

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from affinage.errors import InputError
from affinage.report.frontier import Variant
from affinage.report.ledger import LedgerEntry, ledger_table
from affinage.report.speed import markdown, speed_tables


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ModelEntry(_Part):
    """A model that the figures are about."""

    name: str
    path: str
    parameters: int
    """counted in the stock model, tied ones once"""
    layers: int
    hidden_size: int | None = None
    size_bytes: int
    """of the weights as stored, or 4 bytes a parameter where they are not on disk"""
    stored_as: str | None = None
    """precision of the stored weights: fp32, fp16, bf16, or several joined by `and`; None where it is not known"""
    base: str | None = None
    """the model it was fine-tuned or distilled from"""

    def stored(self) -> tuple[str, str]:
        """What a person is shown of its weights: MB, which say nothing without the precision, and that."""
        return f"{self.size_bytes / 1e6:,.1f}", self.stored_as or "unknown"


class Score(_Part):
    """One metric of one model on one part of a task; values are fractions in [0, 1], correlations in [-1, 1]."""

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
    """score that takes no encoder; without `baseline_kind`, of always answering the commonest label"""
    baseline_kind: Literal["majority", "frozen embeddings"] | None = None
    """which of the two was the higher"""
    split: str | None = None


class Latency(_Part):
    """How fast one model answers under one engine, at one batch and length."""

    model: str
    engine: str
    """such as `torch fp32`"""
    threads: int
    batch: int
    length: int | None
    """tokens of every row; None: the committed list of mixed lengths"""
    p50_ms: float
    p95_ms: float
    """of one batch"""
    p99_ms: float | None = None
    tokens_per_second: float
    """real tokens, padding not counted"""
    runs: int
    """batches timed"""


class Speedup(_Part):
    """How many times faster than the reference, both timed in one interleaved run."""

    model: str
    reference: str
    engine: str
    batch: int
    length: int | None
    ratio: float
    """reference's time / model's time: median over the paired rounds"""
    low: float
    high: float
    """2.5th and 97.5th percentile of the bootstrapped median"""
    reference_engine: str | None = None
    """None: the same"""


class Cost(_Part):
    """What a model needs of the machine before and while it answers."""

    model: str
    engine: str
    load_seconds: float
    """from a fresh process with its libraries imported to a model that can answer"""
    peak_memory_bytes: int
    """largest resident set of a process that loads the model and answers the mixed list"""
    joules_per_1000_texts: float | None = None
    """None where the machine does not let its energy be read"""


class Comparison(_Part):
    """A model beside the reference on the same examples and metric."""

    model: str
    reference: str
    task: str
    metric: str
    difference: float
    """model's score - reference's"""
    low: float
    high: float
    """bounds of the 95 % interval of the difference, over seeds and examples, examples paired"""
    p_value: float
    test: Literal["paired bootstrap", "McNemar"]
    n: int
    plain: float | None
    """model's score / reference's, as the article counts; None where the reference scored 0"""
    plain_low: float | None = None
    plain_high: float | None = None
    """bounds of its 95 % interval, from the same resamples as the difference"""
    baseline: float | None = None
    """None where no baseline was given: then nothing is known to be informative"""
    retention: float | None
    """(model - baseline) / (reference - baseline); None where the task is not informative"""
    retention_low: float | None = None
    retention_high: float | None = None
    """bounds of its 95 % interval"""
    informative: bool
    """whether the reference is significantly above the baseline"""


class Finding(_Part):
    """What a guard of the recipe noticed during training, and what it did."""

    guard: Literal["non_finite", "exploding_gradient", "no_progress", "bad_teacher"]
    action: Literal["skipped", "warned", "stopped"]
    times: int = 1
    first_step: int
    last_step: int
    """0: before training"""
    message: str
    """of the first time: value, what it means, what to do"""


class TrainingRun(_Part):
    """What training cost and reached."""

    steps: int
    """optimizer steps"""
    tokens: int
    """real tokens seen, padding not counted"""
    seconds: float
    overhead_share: float | None = None
    """of training time, for anything but forward, backward and update: data, masks, logs; since it was last taken up"""
    losses: dict[str, float] = {}
    """means over the last logged steps"""
    held_out: dict[str, float] = {}
    """figures on text or rows that were not trained on"""
    curves: dict[str, tuple[tuple[int, float], ...]] = {}
    """name -> (step, value) as logged, for plots; thinned to some hundred points"""
    findings: tuple[Finding, ...] = ()
    """what the recipe's guards noticed"""

    def facts(self) -> list[tuple[str, str]]:
        """What a person is shown of it: names and figures."""
        cost = [("steps", f"{self.steps:,}"), ("tokens", f"{self.tokens:,}"), ("minutes", f"{self.seconds / 60:.1f}")]
        losses = [(f"training {name}", f"{value:.4f}") for name, value in self.losses.items()]
        held_out = [(f"held-out {name}", f"{value:.4f}") for name, value in self.held_out.items()]
        return cost + losses + held_out + [(f"{f.guard}, {f.action}", f"{f.times:,} times") for f in self.findings]


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
    tokenizers: str | None = None
    numpy: str | None = None
    """which draws the masks"""
    hardware: Hardware
    command: str
    date: str
    """UTC, ISO 8601"""
    seed: int | None
    threads: int | None = None
    """that torch computes with in each process: another number adds up in another order; None: without torch"""
    processes: int | None = None
    """that trained together"""
    recipe_sha256: str | None
    data: dict[str, str]
    """file -> sha256 of its bytes; a hub name stands for itself"""
    seconds: float


class Source(_Part):
    """A report whose figures stand in this one, with its own conditions."""

    path: str
    command: str
    """the verb that wrote it"""
    model: str
    """the system it is about"""
    task: str | None = None
    training: TrainingRun | None = None
    """of pre-training and distillation"""
    provenance: Provenance


class Report(_Part):
    """A run's figures and their conditions."""

    schema_version: Literal[1] = 1
    command: str
    """the verb that wrote it"""
    models: tuple[ModelEntry, ...] = ()
    scores: tuple[Score, ...] = ()
    latency: tuple[Latency, ...] = ()
    speedups: tuple[Speedup, ...] = ()
    costs: tuple[Cost, ...] = ()
    comparisons: tuple[Comparison, ...] = ()
    training: TrainingRun | None = None
    ledger: tuple[LedgerEntry, ...] = ()
    """of a compression: the model as it was, then every step"""
    variants: tuple[Variant, ...] = ()
    """of a search, or an experiment: what was tried, the model as it was included"""
    notes: tuple[str, ...] = ()
    """what a reader of the scores must know of the data, in sentences"""
    sources: tuple[Source, ...] = ()
    """of `affinage report`: what it was made from, and where and how each was measured"""
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
        """Tables of models, scores, speed, costs and training, then the provenance; of several systems, their page."""
        if self.sources:
            from affinage.report.tables import report_markdown  # which reads reports

            return report_markdown(self)
        blocks = []
        if self.models:
            rows = [(m.name, str(m.layers), f"{m.parameters:,}", *m.stored()) for m in self.models]
            blocks.append(markdown(("model", "layers", "parameters", "MB stored", "stored as"), rows))
        if self.ledger:
            blocks.append(markdown(*ledger_table(self.ledger)))
        if self.scores:
            columns = ("model", "task", "part", "metric", "score %", "95 % interval", "baseline %", "n", "seeds")
            blocks.append(markdown(columns, [_score_row(score) for score in self.scores]))
        if self.comparisons:
            from affinage.report.tables import kept_table

            kept = kept_table(self)
            blocks.append(markdown(kept.columns, kept.rows))
        blocks += [f"{note}." for note in self.notes]
        blocks += [markdown(*table) for table in speed_tables(self)]
        if self.training:
            blocks.append(markdown(("training", ""), self.training.facts()))
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
