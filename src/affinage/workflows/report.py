"""`affinage report`: folders of earlier runs -> one report of structure, speed, scores and what was kept of them."""

import hashlib
import logging
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from affinage.errors import InputError
from affinage.evaluation.example_scores import NAME
from affinage.report.frontier import Variant
from affinage.report.html import report_html
from affinage.report.provenance import provenance
from affinage.report.report import Comparison, Cost, Latency, Report, Score, Source, Speedup
from affinage.report.tables import report_markdown
from affinage.training.run_folder import refuse_existing, written_aside
from affinage.workflows.compare import compare
from affinage.workflows.found import SCORED, TIMED, TRAINED, Found
from affinage.workflows.suite import suite_averages
from affinage.workflows.systems import Systems, gather

log = logging.getLogger(__name__)


def make_report(
    folders: Sequence[str | Path],
    *,
    out: str | Path,
    reference: str | None = None,
    overwrite: bool = False,
    command: str | None = None,
) -> Report:
    """Report on the models of `folders`, and write `report.json`, `report.md` and `report.html` to the folder `out`.

    `folders`: what `pretrain`, `distil`, `finetune`, `baseline` and `benchmark` wrote; a folder without a report of its
    own is searched one and two levels deep. `reference`: the system that the others are compared with (default: the
    teacher where a distilled folder says who taught whom, else the system named first).

    Raises: InputError for whatever cannot be used, or does not go together.
    """
    out = Path(out)
    refuse_existing(out, overwrite=overwrite)
    for folder in folders:
        if Path(folder).resolve().is_relative_to(out.resolve()):
            raise InputError(f"output folder '{out}' holds '{folder}', which is to be read; choose another --out")
    report = collect(folders, reference=reference, command=command or _command(folders, out, reference))
    with written_aside(out, overwrite=overwrite) as aside:
        write_report_files(report, aside)
    return report


def collect(folders: Sequence[str | Path], *, reference: str | None = None, command: str) -> Report:
    """The report on the models of `folders`, as `make_report` makes it; nothing is written."""
    began = time.perf_counter()
    systems = gather(folders, reference=reference)
    scores: list[Score] = []
    comparisons: list[Comparison] = []
    for task, of_task in systems.scored.items():
        baselines = systems.baselines.get(task, {})
        if not baselines:
            log.warning("%s has no baseline, so that what was kept above it is unknown; see: affinage baseline", task)
        log.info("%s: %s", task, ", ".join(f"{name} ({len(seeds)} seeds)" for name, seeds in of_task.items()))
        compared = compare(of_task, baselines, reference=systems.reference)
        scores += compared.scores
        comparisons += compared.comparisons
    averages, told = suite_averages(systems.scored, systems.baselines, reference=systems.reference)
    notes = dict.fromkeys(note for one, _ in systems.found for note in one.report.notes)
    timed = [one for one, _ in systems.found if one.command == TIMED]
    return Report(
        command="report",
        models=systems.models,
        scores=(*scores, *averages.scores),
        notes=(*told, *notes),
        latency=_latency(timed, systems),
        speedups=_speedups(timed, systems),
        variants=_variants(systems),
        costs=_costs(timed, systems),
        comparisons=(*comparisons, *averages.comparisons),
        sources=tuple(_source(one, name) for one, name in systems.found),
        provenance=provenance(
            command=command,
            seed=None,
            recipe_sha256=None,
            data={str(file): _sha256(file) for one, _ in systems.found for file in _read(one)},
            seconds=time.perf_counter() - began,
        ),
    )


def write_report_files(report: Report, folder: Path) -> None:
    """Write `report.json`, `report.md` and `report.html` into a folder."""
    (folder / "report.json").write_text(report.to_json(), encoding="utf-8")
    (folder / "report.md").write_text(report_markdown(report), encoding="utf-8")
    (folder / "report.html").write_text(report_html(report), encoding="utf-8")


def _command(folders: Iterable[str | Path], out: Path, reference: str | None) -> str:
    chosen = f" --reference {reference}" if reference else ""
    return f"affinage report {' '.join(map(str, folders))} --out {out}{chosen}"


def _latency(timed: Sequence[Found], systems: Systems) -> tuple[Latency, ...]:
    names = systems.timed
    rows = [row.model_copy(update={"model": names[row.model]}) for one in timed for row in one.report.latency]
    seen = set()
    for row in rows:
        cell = (row.model, row.engine, row.threads, row.batch, row.length)
        if cell in seen:
            files = " and ".join(f"'{one.path}'" for one in timed)
            raise InputError(f"{files} time '{row.model}' twice in the same way ({row.engine}); name one of them")
        seen.add(cell)
    return tuple(rows)


def _speedups(timed: Sequence[Found], systems: Systems) -> tuple[Speedup, ...]:
    """How much faster than the reference: turned round where a benchmark took another model for its own reference."""
    rows = []
    for one in timed:
        for row in one.report.speedups:
            model, reference = systems.timed[row.model], systems.timed[row.reference]
            changed: dict[str, object] = {"model": model, "reference": reference}
            if model == systems.reference != reference:
                ratios = {"ratio": 1 / row.ratio, "low": 1 / row.high, "high": 1 / row.low}
                changed = {"model": reference, "reference": model, **ratios}
            rows.append(row.model_copy(update=changed))
    return tuple(rows)


def _variants(systems: Systems) -> tuple[Variant, ...]:
    """What searches tried. A name that two of them have on a task is told apart by the folder."""
    found: dict[tuple[str, str], Variant] = {}
    for one, _ in systems.found:
        for variant in one.report.variants:
            key = (variant.task, variant.name)
            if key not in found:
                found[key] = variant
            elif not variant.reference and found[key] != variant:
                name = f"{variant.name} ({one.path.name})"
                found[variant.task, name] = variant.model_copy(update={"name": name})
    return tuple(found.values())


def _costs(timed: Sequence[Found], systems: Systems) -> tuple[Cost, ...]:
    return tuple(c.model_copy(update={"model": systems.timed[c.model]}) for one in timed for c in one.report.costs)


def _source(one: Found, name: str) -> Source:
    """Where figures come from. Curves are kept of what trained on raw text; fine-tuned folders keep their own."""
    tasks = {score.task for score in one.report.scores}
    return Source(
        path=str(one.path),
        command=one.command,
        model=name,
        task=next(iter(tasks), None),
        training=one.report.training if one.command in TRAINED else None,
        provenance=one.report.provenance,
    )


def _read(one: Found) -> list[Path]:
    """The files behind a report's figures."""
    return [one.file, one.path / NAME] if one.command in SCORED else [one.file]


def _sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()
