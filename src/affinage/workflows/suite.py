"""A suite's macro average: the mean over its tasks of each task's first metric, as GLUE defines it."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from affinage.data.task import load_task, task_names
from affinage.evaluation.metrics import metric
from affinage.evaluation.significance import Estimate, estimates
from affinage.report.report import Comparison, Score
from affinage.workflows.compare import Compared, compared_with
from affinage.workflows.systems import Seeds

MACRO = "macro average"
"""how the metric is called"""


def suite_averages(
    scored: Mapping[str, Mapping[str, Seeds]], baselines: Mapping[str, Mapping[str, Seeds]], *, reference: str
) -> tuple[Compared, tuple[str, ...]]:
    """The average of every suite of which its systems were scored on two tasks or more, and which tasks these are.

    Task -> system (of baselines: embeddings) -> seeds. A suite's systems are those that were scored on a task of it; a
    task that one of them lacks, or that was scored on another part than most, is left out for all. Examples and seeds
    are resampled task by task; an average of baselines takes the higher of each task.
    """
    scores: list[Score] = []
    comparisons: list[Comparison] = []
    notes: list[str] = []
    for suite, tasks in _suites(scored).items():
        systems = list(dict.fromkeys(name for task in tasks for name in scored[task]))
        shared = [task for task in tasks if all(system in scored[task] for system in systems)]
        parts = [scored[task][systems[0]][0].part for task in shared]
        shared = [task for task, part in zip(shared, parts, strict=True) if part == max(parts, key=parts.count)]
        if len(shared) < 2:
            continue
        means, floor = _means(shared, systems, scored, baselines)
        seeds = {name: [seed for task in shared for seed in scored[task][name]] for name in systems}
        n = sum(len(next(iter(scored[task][systems[0]][0].examples.rows.values()))) for task in shared)
        for name, mean in means.items():
            low, high = (min(1.0, max(-1.0, bound)) for bound in mean.interval)
            used = tuple(sorted({seed.seed for seed in seeds[name] if seed.seed is not None}))
            scores.append(
                Score(
                    model=name,
                    task=suite,
                    metric=MACRO,
                    value=mean.value,
                    low=low,
                    high=high,
                    n=n,
                    seeds=used,
                    baseline=None if floor is None else floor.value,
                    split=seeds[name][0].part,
                )
            )
        if reference in means:
            base = means[reference]
            informative = floor is not None and (base - floor).interval[0] > 0
            comparisons += [
                compared_with(
                    (name, mean), (reference, base), task=suite, metric_name=MACRO, n=n, floor=floor,
                    informative=informative,
                )
                for name, mean in means.items()
                if name != reference
            ]  # fmt: skip
        notes.append(_told(suite, shared))
    return Compared(tuple(scores), tuple(comparisons)), tuple(notes)


def _suites(scored: Mapping[str, object]) -> dict[str, list[str]]:
    """Suite -> those of its tasks that were scored."""
    known = set(task_names())
    found: dict[str, list[str]] = {}
    for task in scored:
        if task in known and (suite := load_task(task).suite):
            found.setdefault(suite, []).append(task)
    return found


def _means(
    tasks: Sequence[str],
    systems: Sequence[str],
    scored: Mapping[str, Mapping[str, Seeds]],
    baselines: Mapping[str, Mapping[str, Seeds]],
) -> tuple[dict[str, Estimate], Estimate | None]:
    """The average of every system and, where every task has a baseline, that of these."""
    of_systems: dict[str, list[Estimate]] = {name: [] for name in systems}
    floors: list[Estimate] = []
    for place, task in enumerate(tasks):
        name = load_task(task).metrics[0]
        groups = [*(scored[task][system] for system in systems), *baselines.get(task, {}).values()]
        found = estimates(metric(name), [[seed.examples.rows[name] for seed in seeds] for seeds in groups])
        # Draws of two tasks with the same number of examples would go together: each task's are put in its own order.
        order = np.random.default_rng(place).permutation(len(found[0].draws))
        found = [replace(one, draws=one.draws[order]) for one in found]
        for system, one in zip(systems, found, strict=False):
            of_systems[system].append(one)
        floors += sorted(found[len(systems) :], key=lambda one: -one.value)[:1]
    floor = _mean(floors) if len(floors) == len(tasks) else None
    return {name: _mean(each) for name, each in of_systems.items()}, floor


def _mean(each: Sequence[Estimate]) -> Estimate:
    return Estimate(float(np.mean([one.value for one in each])), np.mean([one.draws for one in each], axis=0))


def _told(suite: str, tasks: Sequence[str]) -> str:
    """Which tasks the average is over, by which metrics."""
    each = ", ".join(f"{task} ({load_task(task).metrics[0]})" for task in tasks)
    others = [name for name in task_names() if name not in tasks and load_task(name).suite == suite]
    left = f"; left out: {', '.join(others)}" if others else ""
    return f"{suite}: the {MACRO} is the mean over {each}{left}"
