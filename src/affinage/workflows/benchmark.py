"""`affinage benchmark`: models -> latency, throughput, load time, memory, energy, and ratios to the first model."""

import logging
import os
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from affinage.errors import InputError
from affinage.report.provenance import provenance
from affinage.report.report import Cost, Latency, Report, Speedup
from affinage.runtime.benchmark import Timing, interleave
from affinage.runtime.energy import EnergyCounters, joules_per_1000_texts
from affinage.runtime.engines import ENGINES, engine_names
from affinage.runtime.forward import Forward
from affinage.runtime.fresh import FreshCost, fresh_cost
from affinage.runtime.inputs import check_count, check_threads
from affinage.runtime.workload import Padded, mixed_sha256
from affinage.training.run_folder import refuse_existing, written_aside
from affinage.workflows.benchmark_plan import SEED, Cell, plan

LENGTHS = (16, 64, 128, 384)
_WARMUP = 3
"""rounds of one text that are not counted; of the mixed list one is not"""

log = logging.getLogger(__name__)


def benchmark(
    models: Sequence[str | Path],
    *,
    engines: Sequence[str] = ("torch",),
    lengths: Sequence[int] = LENGTHS,
    batch_size: int = 16,
    threads: int | None = None,
    repeats: int = 30,
    seconds: float = 10.0,
    out: str | Path | None = None,
    overwrite: bool = False,
    quiet: bool = False,
    command: str | None = None,
) -> Report:
    """What the forward pass of each model (a folder or hub name, of any kind) costs on this machine's CPU.

    `engines`: of torch, onnx, onnx-int8, openvino, openvino-bf16; every model under each of them, and the first model
    under the first is what ratios are to. A masked language model is timed without its
    vocabulary head, which its fine-tuned models do not have.

    Timed, in rounds in which the models take turns: one text of each of `lengths` tokens, and the committed list of
    mixed lengths in batches of `batch_size`. Each is timed in `repeats` rounds, or as many (3 at least) as begin within
    `seconds`. `threads`: None takes the cores this process may use. `out`: a folder for `report.json` and `report.md`.

    Raises: InputError for whatever cannot be used, before anything is timed.
    """
    began = time.perf_counter()
    threads = _cores() if threads is None else check_threads(threads)
    check_count(batch_size, "batch_size")
    check_count(repeats, "repeats")
    if not seconds > 0:
        raise InputError(f"seconds: expected more than 0, got {seconds!r}")
    if isinstance(models, str | Path) or not models:
        raise InputError("models: expected a list of at least one folder or hub name")
    if out is not None:
        refuse_existing(out, overwrite=overwrite)
    if isinstance(engines, str):
        raise InputError("engines: expected a list of names")
    ways = engine_names(list(engines))
    planned = plan(models, lengths, batch_size=batch_size)
    cells = [*planned.cells, planned.mixed]
    log.info("%s on the CPU, %d thread%s", ", ".join(ways), threads, "s" * (threads > 1))
    pairs = [(i, way) for i in range(len(models)) for way in ways]
    names = [(planned.names[i], way) for i, way in pairs]
    which = [i for i, _ in pairs]

    with ExitStack() as stack:
        folder = None if out is None else stack.enter_context(written_aside(out, overwrite=overwrite))
        loaded = [stack.enter_context(ENGINES[way].load(models[i], threads=threads)) for i, way in pairs]
        bar = stack.enter_context(_Bar(len(pairs) + len(cells) + 1, quiet=quiet))
        fresh = []
        for i, way in pairs:
            bar.begin(f"loading {planned.names[i]}, {way}")
            fresh.append(fresh_cost(models[i], planned.mixed.batches[i], engine=way, threads=threads))
        latency: list[Latency] = []
        speedups: list[Speedup] = []
        for cell in cells:
            bar.begin("mixed lengths" if cell.length is None else f"{cell.length} tokens")
            timing = _time(
                cell, loaded, which, repeats=repeats, seconds=seconds, on_round=partial(bar.advance, 1 / repeats)
            )
            latency += _latency(cell, timing, names, threads=threads)
            speedups += _speedups(cell, timing, names)
        bar.begin("energy")
        passes = [partial(_compute, model, planned.mixed.batches[i]) for model, i in zip(loaded, which, strict=True)]
        joules = joules_per_1000_texts(passes, texts=planned.texts, counters=EnergyCounters.find())
        report = Report(
            command="benchmark",
            models=planned.entries,
            latency=tuple(latency),
            speedups=tuple(speedups),
            costs=tuple(map(_cost, names, fresh, joules)),
            provenance=provenance(
                command=command or f"affinage benchmark {' '.join(map(str, models))}",
                seed=SEED,
                recipe_sha256=None,
                data={planned.mixed_name: mixed_sha256()},
                seconds=time.perf_counter() - began,
            ),
        )
        if folder is not None:
            _write(report, folder)
    return report


def _time(
    cell: Cell,
    models: Sequence[Forward],
    which: Sequence[int],
    *,
    repeats: int,
    seconds: float,
    on_round: Callable[[], object],
) -> Timing:
    """`which`: the model of the plan that each of `models` is."""
    steps = len(cell.batches[0])
    several = len(models) > len(cell.batches)
    return interleave(
        lambda model, step: models[model].run(*cell.batches[which[model]][step]),
        before=1 if several and steps == 1 else 0,
        models=len(models),
        steps=steps,
        warmup=_WARMUP if steps == 1 else 1,
        repeats=repeats,
        seconds=seconds,
        on_round=on_round,
    )


def _compute(model: Forward, rows: Sequence[Padded]) -> None:
    for batch in rows:
        model.run(*batch)


def _latency(cell: Cell, timing: Timing, names: Sequence[tuple[str, str]], *, threads: int) -> list[Latency]:
    return [
        Latency(
            model=name,
            engine=engine,
            threads=threads,
            batch=cell.batch,
            length=cell.length,
            p50_ms=timing.quantile_ms(i, 0.5),
            p95_ms=timing.quantile_ms(i, 0.95),
            p99_ms=timing.quantile_ms(i, 0.99),
            tokens_per_second=cell.tokens / timing.median_round(i),
            runs=timing.runs,
        )
        for i, (name, engine) in enumerate(names)
    ]


def _speedups(cell: Cell, timing: Timing, names: Sequence[tuple[str, str]]) -> list[Speedup]:
    """Of every model and engine but the first, to the first."""
    found = []
    (reference, its_engine), *others = names
    for i, (name, engine) in enumerate(others, 1):
        ratio, low, high = timing.ratio(i)
        found.append(
            Speedup(
                model=name,
                reference=reference,
                engine=engine,
                reference_engine=None if engine == its_engine else its_engine,
                batch=cell.batch,
                length=cell.length,
                ratio=ratio,
                low=low,
                high=high,
            )
        )
    return found


def _cost(name: tuple[str, str], fresh: FreshCost, joules: float | None) -> Cost:
    return Cost(model=name[0], engine=name[1], joules_per_1000_texts=joules, **fresh._asdict())


def _write(report: Report, folder: Path) -> None:
    (folder / "report.json").write_text(report.to_json(), encoding="utf-8")
    (folder / "report.md").write_text(report.to_markdown(), encoding="utf-8")


def _cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class _Bar:
    """Progress on standard error, drawn between rounds only: a thread that draws would slow what is timed."""

    def __init__(self, parts: int, *, quiet: bool) -> None:
        console = Console(stderr=True)
        columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
        disable = quiet or not console.is_terminal
        self._progress = Progress(*columns, console=console, auto_refresh=False, disable=disable)
        self._task = self._progress.add_task("", total=parts)
        self._begun = 0

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def begin(self, label: str) -> None:
        """Say which part begins."""
        self._progress.update(self._task, description=label, completed=self._begun, refresh=True)
        self._begun += 1

    def advance(self, share: float) -> None:
        """So much of the part is done."""
        self._progress.update(self._task, advance=share, refresh=True)
