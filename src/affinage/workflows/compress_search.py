"""`affinage compress --budget`: a model and what it may cost -> the best plan found, its model, the frontier."""

import hashlib
import json
import logging
import shutil
import sqlite3
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from affinage.compression.base import Resources
from affinage.compression.budget import Budget
from affinage.compression.estimates import Glance
from affinage.compression.forms import forms_of
from affinage.compression.plan import Plan
from affinage.compression.rehearsal import without_training
from affinage.compression.run import State, check_plan, run_plan
from affinage.compression.search import Effort, Found, Means, Search, best_within
from affinage.compression.space import slots_for
from affinage.compression.studies import check_extra
from affinage.errors import CheckFailed, InputError
from affinage.evaluation.footprint import footprint, tensor_bytes
from affinage.models.modules.base import Compressed
from affinage.report.frontier import Variant
from affinage.report.ledger import LedgerEntry
from affinage.report.report import Report
from affinage.runtime.side_by_side import in_one_engine, timed
from affinage.training.run_folder import RunFolder, refuse_existing
from affinage.workflows.compress import write_compressed
from affinage.workflows.compress_given import Given, read_given
from affinage.workflows.compress_ways import ModelAlone, WithTask

log = logging.getLogger(__name__)

DATABASE = "search.sqlite"
INTEGER_WORK = 0.45
"""time of an int8 model's operations as a share of the same in float32 (ONNX Runtime; research: 0.35 to 0.5)"""
_ROWS = 64
"""calibration rows that a glance reads, at most"""


def compress_to_budget(
    model: str | Path,
    *,
    budget: Budget | str,
    base: Plan,
    out: str | Path,
    task: str | None = None,
    data: str | Path | None = None,
    corpus: Sequence[str | Path] = (),
    columns: Mapping[str, str] | None = None,
    effort: Effort | None = None,
    storage: str | None = None,
    teacher: str | Path | None = None,
    overwrite: bool = False,
    quiet: bool = False,
    command: str | None = None,
) -> Report:
    """Search the plan that meets `budget` at the best score on the valid part, and write its model to the folder `out`.

    `base`: how every plan is recovered (once, after its last step that can be), calibrated and seeded; its own steps do
    not matter. Task, data, corpus and teacher as for `compress`; rows or text are needed. `storage`: an Optuna database
    URL on which any number of workers, each with an `out` of its own, share one search; None: a file in the working
    folder.
    What was interrupted goes on where it was; a run with another budget or effort uses what the unfinished one tried.

    Raises: InputError before any long work for whatever cannot be used, and after looking at plans where none comes
    near the budget; CheckFailed where none that was tried meets it: the nearest is named and what was tried is kept.
    """
    began = time.perf_counter()
    check_extra()
    refuse_existing(out, overwrite=overwrite)
    limits = budget if isinstance(budget, Budget) else Budget.parse(budget)
    if teacher is not None and not base.recover:
        raise InputError(f"teacher '{teacher}': of recovery, and plans are not recovered; give --recover N")
    given = read_given(model, plan=base, task=task, data=data, corpus=corpus, columns=columns, teacher=teacher)
    if given.recipe is None:
        raise InputError(
            "a budget is searched on what the model does: name a task and its rows with --task and --data, or, for a "
            "masked language model, text with --corpus"
        )
    identity = given.identity(base) | {"verb": "compress --budget"}
    folder = RunFolder.open(Path(out), identity=identity, overwrite=overwrite)
    begun = (folder.partial / DATABASE).exists()
    means = _Means(given, base, folder, limits, quiet=quiet)
    url = storage or f"sqlite:///{(folder.partial / DATABASE).absolute()}"
    name = _name(identity)
    slots = slots_for(
        layers=footprint(given.start.model).layers,
        given=means.shared.given,
        texts=bool(given.files),
        forms=forms_of(given.start.model),
    )
    try:
        search = Search(url, name, budget=limits, slots=slots, base=base, means=means.callables, alone=storage is None)
        uncompressed = means.uncompressed
        theirs = _figures(uncompressed, uncompressed)
        found = search.run(effort or Effort(), uncompressed=theirs, seed=base.seed)
    except InputError:
        if not (begun or means.looked):  # nothing to lose
            shutil.rmtree(folder.partial, ignore_errors=True)
        raise
    judged = _judged(found, limits, uncompressed)
    best = best_within(judged)
    if best is None:
        raise CheckFailed(_nearest(judged, limits, uncompressed, folder, looked_at=found.looked_at))
    plan, winner = best
    state, ledger, ways = means.run(plan)
    variants = (
        uncompressed,
        *(one.model_copy(update={"chosen": one.name == winner.name}) for _, one in judged),
    )

    def beside(aside: Path) -> None:
        if storage is None:
            with (
                closing(sqlite3.connect(folder.partial / DATABASE)) as ours,
                closing(sqlite3.connect(aside / DATABASE)) as theirs,
            ):
                ours.backup(theirs)

    told = command or f"affinage compress {model} --budget '{limits}' --out {out}"
    return write_compressed(given, plan, folder, ways, state, ledger, began=began, command=told, variants=variants,
                            beside=beside)  # fmt: skip


def _name(identity: Mapping[str, Any]) -> str:
    """Of the search, the same for every worker: what files hold counts, not where they lie."""
    held = {key: sorted(value.values()) if key in ("data", "corpus") and value else value
            for key, value in identity.items() if key != "model"}  # fmt: skip
    return hashlib.sha256(json.dumps(held, sort_keys=True).encode()).hexdigest()[:16]


@dataclass
class _Means:
    """How plans are looked at and tried."""

    given: Given
    base: Plan
    folder: RunFolder
    limits: Budget
    quiet: bool
    _resources: dict[str, Resources] = field(default_factory=dict)
    _first: Variant | None = None
    _entry: LedgerEntry | None = None
    looked: bool = False
    """whether any plan was looked at in this run"""

    def __post_init__(self) -> None:
        rows = min(self.base.calibration, _ROWS)
        self.shared = self.given.ways(self.base.model_copy(update={"calibration": rows}), self.folder, quiet=True)

    @property
    def callables(self) -> Means:
        """For the search."""
        return Means(self.glance, self.tried)

    @property
    def start(self) -> State:
        """The model as it was."""
        return self.given.start

    @property
    def uncompressed(self) -> Variant:
        """The model as it was, measured beside itself, once."""
        if self._first is None:
            noted = self.folder.partial / "uncompressed.json"
            if noted.is_file():
                self._first = Variant.model_validate_json(noted.read_text(encoding="utf-8"))
            else:
                found = self._variant(self.start, "", self.shared).model_copy(update={"reference": True})
                self._first = found.model_copy(update={"name": "uncompressed", "speedup": 1.0})
                noted.write_text(self._first.model_dump_json(), encoding="utf-8")
        return self._first

    def glance(self, plan: Plan) -> Glance:
        """The plan's steps without training: counted, the loss on calibration rows, memory where that is limited."""
        state = without_training(plan, plan.checked(), self.start, self.resources)
        counted, whole = footprint(state.model), footprint(self.start.model)
        found = self.resources(state)
        assert found.loss is not None and found.calibration
        with torch.no_grad():
            losses = [float(found.loss(state.model.eval(), batch)) for batch in found.calibration]
        self.looked = True
        return Glance(
            size_bytes=tensor_bytes(state.model),
            parameters=counted.parameters,
            work=counted.flops / whole.flops * (INTEGER_WORK if _integer(state) else 1.0),
            loss=sum(losses) / len(losses),
            memory_bytes=self._peak_of(state) if self.limits.asks_for("memory") else None,
        )

    def _peak_of(self, state: State) -> int:
        (alone,) = in_one_engine([state.model], [state.tokenizer])
        return alone.peak_memory_bytes()

    def tried(self, plan: Plan) -> Variant:
        """The plan run in full; what it made lies in a folder of its own until the search has ended."""
        state, _, ways = self.run(plan)
        return self._variant(state, plan.title, ways)

    def run(self, plan: Plan) -> tuple[State, tuple[LedgerEntry, ...], ModelAlone]:
        """Run it, or take up what it made before."""
        place = self.folder.partial / "tried" / plan.sha256[:16]
        place.mkdir(parents=True, exist_ok=True)
        folder, answers = RunFolder(self.folder.out, place, overwrite=False), self.folder.partial / "answers"
        ways = self.given.ways(plan, folder, quiet=self.quiet, answers=answers)
        if ways.kept(0) is None and self._entry is not None:  # scored and timed once is enough
            ways.keep(0, self.start, self._entry)
        state, ledger = run_plan(plan, check_plan(plan, ways), self.start, ways)
        self._entry = ledger[0]
        return state, ledger, ways

    def resources(self, state: State) -> Resources:
        """Those of a vocabulary, read once."""
        key = hashlib.sha256(json.dumps(state.tokenizer.get_vocab(), sort_keys=True).encode()).hexdigest()
        if key not in self._resources:
            self._resources[key] = self.shared.resources(state)
        return self._resources[key]

    def _variant(self, state: State, title: str, ways: ModelAlone) -> Variant:
        both = (self.start, state) if state is not self.start else (state,)
        models = in_one_engine([one.model for one in both], [one.tokenizer for one in both])
        timing, ours = timed(models), models[-1]
        ratio, low, high = timing.ratio(len(models) - 1)
        shown: dict[str, Any] = {"speedup": ratio, "speedup_low": low, "speedup_high": high} if len(models) > 1 else {}
        return Variant(
            name=title or "uncompressed",
            plan=title,
            parameters=footprint(state.model).parameters,
            size_bytes=ways.size_of(state),
            latency_ms=timing.quantile_ms(len(models) - 1, 0.5),
            engine=ours.engine,
            memory_bytes=ours.peak_memory_bytes(),
            **shown,
            **self._scored(state, ways),
        )

    def _scored(self, state: State, ways: ModelAlone) -> dict[str, Any]:
        """The first metric on the valid part, with its interval where there are examples."""
        if isinstance(ways, WithTask):
            run = ways.run_of(state)
            found = run.evaluate(state.model, run.data.valid, name="", split=run.data.valid_split).scores[0]
            return {"task": run.task.name, "metric": found.metric, "split": found.split, "score": found.value,
                    "low": found.low, "high": found.high, "n": found.n}  # fmt: skip
        score = ways.score(state)
        assert score is not None
        return {"task": "fill-mask", "metric": "found words", "split": "held out", "score": score, "n": 1}


def _integer(state: State) -> bool:
    """Whether its graph multiplies integers."""
    parts = (module for module in state.model.modules() if isinstance(module, Compressed))
    return any(part.inputs != "float" for part in parts)


def _figures(one: Variant, uncompressed: Variant) -> dict[str, float]:
    """As the budget counts. Latency: the ratio of the interleaved run, on the uncompressed model's milliseconds."""
    assert one.latency_ms is not None and uncompressed.latency_ms is not None and one.memory_bytes is not None
    relative = uncompressed.latency_ms / one.speedup if one.speedup else one.latency_ms
    return {"latency": relative, "size": one.size_bytes, "memory": one.memory_bytes, "drop": one.score}


def _shares(one: Variant, limits: Budget, uncompressed: Variant) -> dict[str, float]:
    ours, theirs = _figures(one, uncompressed), _figures(uncompressed, uncompressed)
    latency = next((limit for limit in limits.costs if limit.name == "latency"), None)
    if latency is not None and not latency.relative:  # in ms: as it was measured
        assert one.latency_ms is not None
        ours["latency"] = one.latency_ms
    return limits.shares(ours, theirs)


def _judged(found: Found, limits: Budget, uncompressed: Variant) -> list[tuple[Plan, Variant]]:
    """With what meets the budget marked."""
    marked = []
    for plan, one in found.tried:
        within = max(_shares(one, limits, uncompressed).values()) <= 1
        marked.append((plan, one.model_copy(update={"within": within})))
    return marked


def _nearest(
    judged: Sequence[tuple[Plan, Variant]], limits: Budget, uncompressed: Variant, folder: RunFolder, *, looked_at: int
) -> str:
    """What to say where nothing meets the budget."""
    if not judged:
        return f"budget '{limits}' was not reached: no plan of {looked_at} could be tried to its end"
    plan, one = min(judged, key=lambda pair: (max(_shares(pair[1], limits, uncompressed).values()), pair[0].sha256))
    (folder.partial / "nearest.yaml").write_text(plan.to_yaml(), encoding="utf-8")
    lost = 100 * (uncompressed.score - one.score)
    assert one.memory_bytes is not None and uncompressed.memory_bytes is not None
    figures = {
        "latency": f"latency {1 / one.speedup if one.speedup else 1:.2f}x ({one.latency_ms or 0:.2f} ms)",
        "size": f"size {one.size_bytes / uncompressed.size_bytes:.3f}x ({one.size_bytes / 1e6:,.2f} MB)",
        "memory": f"memory {one.memory_bytes / uncompressed.memory_bytes:.2f}x ({one.memory_bytes / 1e6:,.0f} MB)",
        "drop": f"drop {lost:.2f}pt",
    }
    reached = ", ".join(figures[limit.name] for limit in limits.limits)
    return (
        f"budget '{limits}' was not reached by any of {len(judged)} plans tried in full ({looked_at} looked at). "
        f"Nearest: {plan.title}: {reached}; its plan: '{folder.partial / 'nearest.yaml'}'. What was tried is kept: "
        "the same command with another --budget, more --tries or more --finalists goes on from it"
    )
