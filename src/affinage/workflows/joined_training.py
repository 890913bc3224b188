"""What the stages of a run cost and reached, as one."""

from collections.abc import Sequence

from affinage.report.report import TrainingRun
from affinage.training.curves import Curve


def joined(stages: Sequence[tuple[str, TrainingRun]]) -> TrainingRun:
    """The training of all stages, each with its name; of several, figures are named `stage: figure`.

    Steps of the curves count on from stage to stage.
    """
    if len(stages) == 1:
        return stages[0][1]
    curves: dict[str, Curve] = {}
    before = 0
    for name, run in stages:
        for key, curve in run.curves.items():
            curves[f"{name}: {key}"] = tuple((before + step, value) for step, value in curve)
        before += run.steps
    return TrainingRun(
        steps=before,
        tokens=sum(run.tokens for _, run in stages),
        seconds=sum(run.seconds for _, run in stages),
        overhead_share=_mean_overhead([run for _, run in stages]),
        losses={f"{name}: {key}": value for name, run in stages for key, value in run.losses.items()},
        held_out={f"{name}: {key}": value for name, run in stages for key, value in run.held_out.items()},
        curves=curves,
        findings=tuple(finding for _, run in stages for finding in run.findings),
    )


def _mean_overhead(runs: Sequence[TrainingRun]) -> float | None:
    """Weighted by their seconds; None where one of them does not know its own."""
    total = sum(run.seconds for run in runs)
    known = [run.overhead_share * run.seconds for run in runs if run.overhead_share is not None]
    return sum(known) / total if total and len(known) == len(runs) else None
