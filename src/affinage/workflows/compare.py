"""One task: the score of every system with its interval, and each system beside the reference and the baseline."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from statistics import mode

from affinage.evaluation.metrics import metric
from affinage.evaluation.significance import Estimate, estimates, mcnemar
from affinage.report.report import Comparison, Score
from affinage.workflows.found import Scored
from affinage.workflows.systems import Seeds


@dataclass(frozen=True)
class Compared:
    """The figures of one task: systems in their order, then the baselines, metric by metric."""

    scores: tuple[Score, ...]
    comparisons: tuple[Comparison, ...]


def compare(systems: Mapping[str, Seeds], baselines: Mapping[str, Seeds], *, reference: str) -> Compared:
    """Compare the systems of one task with the reference; all seeds of all of them have the same examples.

    The baseline of a metric is the highest of those given. Without one nothing is informative, and there is no
    retention; without the reference there are scores alone.
    """
    scores: list[Score] = []
    comparisons: list[Comparison] = []
    first = next(iter(systems.values()))[0]
    for name in first.examples.rows:
        groups = [*systems.values(), *baselines.values()]
        found = estimates(metric(name), [[seed.examples.rows[name] for seed in seeds] for seeds in groups])
        by_system = dict(zip(systems, found[: len(systems)], strict=True))
        floors = sorted(zip(found[len(systems) :], baselines.values(), strict=True), key=lambda pair: -pair[0].value)
        floor, its_seeds = floors[0] if floors else (None, ())
        kind = mode(seed.kind for seed in its_seeds) if floor else None
        for system, estimate in by_system.items():
            seeds = systems[system]
            baseline = seeds[0].majority.get(name) if floor is None else floor.value
            told = {"baseline": baseline, "baseline_kind": kind}
            scores.append(_score(system, name, estimate, seeds).model_copy(update=told))
        if floor is not None and kind is not None:
            what = kind if kind == "majority" else f"{kind} of {its_seeds[0].system}"
            scores.append(_score(what, name, floor, its_seeds))
        if reference in by_system:
            base = by_system[reference]
            informative = floor is not None and (base - floor).interval[0] > 0
            comparisons += [
                _comparison(
                    (system, systems[system], estimate),
                    (reference, systems[reference], base),
                    metric_name=name,
                    floor=floor,
                    informative=informative,
                )
                for system, estimate in by_system.items()
                if system != reference
            ]
    return Compared(tuple(scores), tuple(comparisons))


def _score(model: str, metric_name: str, estimate: Estimate, seeds: Sequence[Scored]) -> Score:
    low, high = (min(1.0, max(metric(metric_name).lowest, bound)) for bound in estimate.interval)
    first = seeds[0]
    return Score(
        model=model,
        task=first.task,
        metric=metric_name,
        value=estimate.value,
        low=low,
        high=high,
        n=len(first.examples.rows[metric_name]),
        seeds=tuple(seed.seed for seed in seeds if seed.seed is not None) if first.kind != "majority" else (),
        split=first.part,
    )


def _comparison(
    model: tuple[str, Seeds, Estimate],
    reference: tuple[str, Seeds, Estimate],
    *,
    metric_name: str,
    floor: Estimate | None,
    informative: bool,
) -> Comparison:
    name, seeds, estimate = model
    other, its_seeds, base = reference
    n = len(seeds[0].examples.rows[metric_name])
    found = compared_with(
        (name, estimate),
        (other, base),
        task=seeds[0].task,
        metric_name=metric_name,
        n=n,
        floor=floor,
        informative=informative,
    )
    if metric_name == "accuracy" and len(seeds) == len(its_seeds) == 1:
        exact = {"p_value": mcnemar(_right(seeds[0]), _right(its_seeds[0])), "test": "McNemar"}
        return found.model_copy(update=exact)
    return found


def compared_with(
    model: tuple[str, Estimate],
    reference: tuple[str, Estimate],
    *,
    task: str,
    metric_name: str,
    n: int,
    floor: Estimate | None,
    informative: bool,
) -> Comparison:
    """A named figure beside the reference's, from the same resamples; `n` examples are behind them."""
    name, estimate = model
    other, base = reference
    difference = estimate - base
    low, high = difference.interval
    plain = estimate.over(base)
    kept = (estimate - floor).over(base - floor) if floor is not None and informative else None
    return Comparison(
        model=name,
        reference=other,
        task=task,
        metric=metric_name,
        difference=difference.value,
        low=low,
        high=high,
        p_value=difference.p_value,
        test="paired bootstrap",
        n=n,
        plain=None if plain is None else plain.value,
        **_bounds("plain", plain),
        baseline=None if floor is None else floor.value,
        retention=None if kept is None else kept.value,
        **_bounds("retention", kept),
        informative=informative,
    )


def _bounds(name: str, ratio: Estimate | None) -> dict[str, float | None]:
    """Bounds of an interval, None where they are not finite: JSON has no infinity."""
    bounds = (None, None) if ratio is None else ratio.interval
    return {
        f"{name}_{side}": bound if bound is not None and isfinite(bound) else None
        for side, bound in zip(("low", "high"), bounds, strict=True)
    }


def _right(seed: Scored) -> list[bool]:
    """Which examples a classifier got right."""
    return [bool(value > 0.5) for value in seed.examples.rows["accuracy"][:, 0]]
