"""With what a plan is run: the rows of a task, raw text, or the model alone; and where each step's result is kept."""

import copy
import hashlib
import json
import logging
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path

from transformers import PreTrainedModel, TrainerCallback, set_seed

from affinage.compression.base import Resources, TrainedCompressor
from affinage.compression.plan import Plan
from affinage.compression.run import Measured, State
from affinage.compression.vocabulary.trimming import keep_rows_, rows_of
from affinage.data.checksums import make_durable
from affinage.data.corpus import corpus_lines
from affinage.data.features import encode, stride_for, texts_of
from affinage.data.taught import TaughtRows
from affinage.distillation.cache import TeacherCache
from affinage.distillation.objective import Objective, fit_stage
from affinage.errors import InputError
from affinage.evaluation.footprint import footprint, tensor_bytes
from affinage.models.checkpoint import load_model, load_tokenizer
from affinage.models.storage import save_model
from affinage.recipe import Stage
from affinage.report.ledger import LedgerEntry
from affinage.report.report import TrainingRun
from affinage.runtime.latency import one_text_ms, share_of_time
from affinage.training.compression import DriveMethod, HoldZeros
from affinage.training.run_folder import RunFolder
from affinage.workflows.compress_data import calibration_batches, found_words, masked_loss, task_loss
from affinage.workflows.corpus_stage import CorpusRows, corpus_rows, train_stage
from affinage.workflows.task_cache import Identity, logits_cache
from affinage.workflows.task_run import TaskRun
from affinage.workflows.task_stage import StageRun, stage_rows

log = logging.getLogger(__name__)

_LINES = 1_000_000
"""of a corpus that methods read as texts"""
_TRAINING = "training.json"
_DONE = "done"
"""the folder, in a step's, of what the step made; there once it is whole"""


@dataclass
class ModelAlone:
    """A plan whose steps need no data, or raw texts alone."""

    plan: Plan
    start: State
    folder: RunFolder
    files: Sequence[Path | str] = ()
    """raw text"""
    quiet: bool = False
    recovers_from: State | None = None
    """the model that recovery distils from, which reads the same vocabulary; None: the one that is compressed"""
    start_bytes: int = 0
    """of the model as it lies on disk, maybe in half the precision that it is computed in; 0: as its tensors are"""

    recovers = False

    @property
    def given(self) -> frozenset[str]:
        """What `resources` fills."""
        return frozenset({"latency", *(["texts"] if self.files else [])})

    def resources(self, state: State) -> Resources:
        """For the state's vocabulary."""
        return Resources(latency=share_of_time, texts=self.texts() or None, seed=self.plan.seed)

    def texts(self) -> list[str]:
        """Lines of the raw text."""
        found = list(islice(corpus_lines(self.files), _LINES)) if self.files else []
        if len(found) == _LINES:
            log.warning("methods that read raw text read its first %s lines", f"{_LINES:,}")
        return found

    def check_recovery(self, state: State) -> None:
        """There is nothing to train on."""
        raise NotImplementedError

    def recovered(self, state: State, number: int, steps: int, trained: TrainedCompressor | None) -> State:
        """There is nothing to train on."""
        raise NotImplementedError

    def score(self, state: State) -> float | None:
        """None: there is nothing to score on."""
        return None

    def measured(self, state: State) -> Measured:
        """Counted and timed, scored where there is data."""
        return Measured(
            parameters=footprint(state.model).parameters,
            size_bytes=self.size_of(state),
            latency_ms=one_text_ms(state.model),
            score=self.score(state),
        )

    def size_of(self, state: State) -> int:
        """Bytes of the state's weights."""
        own = self.start_bytes if state.model is self.start.model else 0
        return own or tensor_bytes(state.model)

    def keep(self, number: int, state: State, entry: LedgerEntry) -> None:
        """Write what a step made, whole or not at all."""
        place = self.place(number)
        aside = place.partial / f"{_DONE}.tmp"
        shutil.rmtree(aside, ignore_errors=True)
        save_model(state.model, aside)
        state.tokenizer.save_pretrained(aside)
        (aside / "entry.json").write_text(entry.model_dump_json(indent=1), encoding="utf-8")
        make_durable(aside)
        aside.rename(place.partial / _DONE)
        shutil.rmtree(place.checkpoints, ignore_errors=True)

    def kept(self, number: int) -> tuple[State, LedgerEntry] | None:
        """What a step made, in this run or in one that was interrupted."""
        done = self.place(number).partial / _DONE
        if not done.is_dir():
            return None
        entry = LedgerEntry.model_validate_json((done / "entry.json").read_text(encoding="utf-8"))
        return State(load_model(done), load_tokenizer(done)), entry

    def told(self, number: int, run: TrainingRun) -> None:
        """Note what the recovery training of a step reached."""
        (self.place(number).partial / _TRAINING).write_text(run.model_dump_json(), encoding="utf-8")

    def trained(self) -> list[tuple[str, TrainingRun]]:
        """The steps with recovery training, and what it reached."""
        found = []
        for number in range(1, len(self.plan.steps) + 1):
            path = self.place(number).partial / _TRAINING
            if path.is_file():
                found.append((f"step {number}", TrainingRun.model_validate_json(path.read_text(encoding="utf-8"))))
        return found

    def place(self, number: int) -> RunFolder:
        """Where a step works, within the run's own folder."""
        place = RunFolder(self.folder.out, self.folder.partial / f"step-{number}", overwrite=False)
        for path in (place.checkpoints, place.logs):
            path.mkdir(parents=True, exist_ok=True)
        return place

    def teacher(self, state: State) -> PreTrainedModel:
        """The model that recovery distils from, with the state's vocabulary."""
        ours, theirs = self.start.tokenizer, state.tokenizer
        if ours.get_vocab() == theirs.get_vocab():
            return self.whole_teacher
        teacher = copy.deepcopy(self.whole_teacher)
        keep_rows_(teacher, rows_of(ours, theirs, int(state.model.config.vocab_size)))
        return teacher

    @property
    def whole_teacher(self) -> PreTrainedModel:
        """The same with its own vocabulary."""
        return (self.recovers_from or self.start).model

    def callbacks(self, student: PreTrainedModel, trained: TrainedCompressor | None) -> list[TrainerCallback]:
        """What recovery does besides training."""
        return [*([] if trained is None else [DriveMethod(trained, student)]), HoldZeros(student)]


@dataclass
class WithTask(ModelAlone):
    """A plan for a task model, measured and trained on the task's rows."""

    run: TaskRun = field(kw_only=True)
    answers: Path | None = None
    """where the teacher's logits on the training rows are kept, for other plans too; None: nowhere"""
    made_of: Identity = field(default_factory=dict)
    """what these logits depend on"""
    recovers = True
    _trained: tuple[PreTrainedModel, float] | None = field(default=None, init=False)
    """the model that was trained last, and what training found it to score"""

    @property
    def given(self) -> frozenset[str]:
        return frozenset({"calibration", "gradients", "score", "latency", "texts"})

    def resources(self, state: State) -> Resources:
        run = self.run_of(state)
        rows = stage_rows(run, self.stage(1), state.model, ())
        seen = [text for example in (*run.data.train, *run.data.valid) for text in texts_of(example)]
        return Resources(
            calibration=calibration_batches(rows, self.plan.calibration, seed=self.plan.seed),
            loss=task_loss,
            score=lambda model: self.score(State(model, state.tokenizer)),
            latency=share_of_time,
            texts=[*seen, *self.texts()],
            seed=self.plan.seed,
        )

    def score(self, state: State) -> float:
        """The task's first metric on the valid part; right after recovery as training found it."""
        known, self._trained = self._trained, None
        if known is not None and known[0] is state.model:
            return known[1]
        run = self.run_of(state)
        return float(run.scorer()(state.model)[run.task.metrics[0]])

    def check_recovery(self, state: State) -> None:
        fit_stage(self.run.recipe.stages[0], state.model, self.teacher(state), on="task")

    def recovered(self, state: State, number: int, steps: int, trained: TrainedCompressor | None) -> State:
        """Distillation from the teacher, on the training rows."""
        run, stage, student = self.run_of(state), self.stage(steps), state.model
        set_seed(stage.training.seed)
        rows, valid = (stage_rows(run, stage, student, (), part=part) for part in ("train", "valid"))
        place, teacher = self.place(number), self.teacher(state)
        cache = self._cache(stage, rows, teacher)
        free = trained is None  # from a method that happens during training, whose last weights are wanted
        stage_run = StageRun(run, stage, [teacher], rows, valid, place, cache, keep_last=not free, may_stay=free)
        told = stage_run.train(student, callbacks=self.callbacks(student, trained), quiet=self.quiet)
        self.told(number, told)
        made = State(student.to("cpu").eval(), state.tokenizer)  # type: ignore[arg-type]
        if (score := told.held_out.get(run.task.metrics[0])) is not None:
            self._trained = (made.model, score)
        return made

    def _cache(self, stage: Stage, rows: TaughtRows, teacher: PreTrainedModel) -> TeacherCache | None:
        """Of what the teacher says; not where it reads another vocabulary, or the disk has no room."""
        if self.answers is None or teacher is not self.whole_teacher:
            return None
        try:
            return logits_cache(stage, rows, [teacher], shared=self.answers, own=self.answers, made_of=self.made_of)
        except InputError as error:
            log.warning("%s; the model's answers are computed in each recovery", str(error).partition(";")[0])
            return None

    def stage(self, steps: int) -> Stage:
        """How recovery trains for so many steps."""
        return _for_steps(self.run.recipe.stages[0], steps)

    def run_of(self, state: State) -> TaskRun:
        """The task's rows in the state's vocabulary."""
        if state.tokenizer.get_vocab() == self.run.tokenizer.get_vocab():
            return replace(self.run, tokenizer=state.tokenizer)
        backend, length = state.tokenizer.backend_tokenizer, self.run.length
        rows = encode(backend, self.run.data.train, max_length=length, stride=stride_for(length))
        return replace(self.run, tokenizer=state.tokenizer, rows=rows)


@dataclass
class WithText(ModelAlone):
    """A plan for a masked language model, measured and trained on raw text."""

    on_text: Stage = field(kw_only=True)
    recovers = True

    @property
    def given(self) -> frozenset[str]:
        return frozenset({"calibration", "gradients", "score", "latency", "texts"})

    def resources(self, state: State) -> Resources:
        rows = self.rows(state).train
        return Resources(
            calibration=calibration_batches(rows, self.plan.calibration, seed=self.plan.seed),  # type: ignore[arg-type]
            loss=masked_loss,
            score=lambda model: self.score(State(model, state.tokenizer)),
            latency=share_of_time,
            texts=self.texts(),
            seed=self.plan.seed,
        )

    def score(self, state: State) -> float:
        """Share of the hidden words of held-out text that are found."""
        return found_words(state.model, self.rows(state).held_out)

    def rows(self, state: State) -> CorpusRows:
        """The text in the state's vocabulary."""
        pieces = hashlib.sha256(json.dumps(state.tokenizer.get_vocab(), sort_keys=True).encode()).hexdigest()[:12]
        return corpus_rows(self.files, state.tokenizer, self.on_text, folder=self.folder.partial / f"tokens-{pieces}")

    def check_recovery(self, state: State) -> None:
        fit_stage(self.on_text, state.model, self.teacher(state), on="text")

    def recovered(self, state: State, number: int, steps: int, trained: TrainedCompressor | None) -> State:
        """Distillation from the teacher, on the training text."""
        stage, student = _for_steps(self.on_text, steps), state.model
        set_seed(stage.training.seed)
        student.train()
        told = train_stage(
            Objective(student, stage.losses, teacher=self.teacher(state)),
            self.rows(state),
            stage,
            tokenizer=state.tokenizer,
            folder=self.place(number),
            label=f"recovery, step {number}",
            callbacks=self.callbacks(student, trained),
            quiet=self.quiet,
        )
        self.told(number, told)
        return State(student.to("cpu").eval(), state.tokenizer)  # type: ignore[arg-type]


def _for_steps(stage: Stage, steps: int) -> Stage:
    training = stage.training.model_copy(update={"max_steps": steps})
    return stage.model_copy(update={"training": training, "name": "recovery"})
