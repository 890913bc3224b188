"""One training stage on raw text: tokenise, pack, train with resume, measure what was held out."""

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from filelock import FileLock
from torch.utils.tensorboard import SummaryWriter
from transformers import PreTrainedModel, PreTrainedTokenizerFast, TrainerCallback
from transformers.integrations.integration_utils import TensorBoardCallback

from affinage.data.corpus import corpus_lines, is_held_out
from affinage.data.documents import document_lines
from affinage.data.masking import Masker, rarity
from affinage.data.pair_rows import PairRows
from affinage.data.pieces import starts_word
from affinage.data.rows import PackedRows
from affinage.data.streamed import Rows
from affinage.data.streams import Stream
from affinage.data.tokens import TokenStore
from affinage.distillation.kernels import use_kernels_
from affinage.distillation.objective import Objective
from affinage.errors import InputError
from affinage.evaluation.pseudo_perplexity import pseudo_perplexity
from affinage.models.freezing import frozen_below
from affinage.models.quickening import quicken_
from affinage.recipe import Stage
from affinage.report.report import TrainingRun
from affinage.training.allocator import keep_big_buffers
from affinage.training.arguments import total_steps, training_arguments
from affinage.training.clock import Clock
from affinage.training.curves import curves
from affinage.training.guards import Guard
from affinage.training.interruption import StopOnInterrupt
from affinage.training.overhead import Overhead
from affinage.training.processes import processes
from affinage.training.progress import RichProgress
from affinage.training.resume import train
from affinage.training.run_folder import RunFolder
from affinage.training.sharding import make_whole_
from affinage.training.threads import settle_threads
from affinage.training.trainer import SumTrainer
from affinage.training.writing import writing
from affinage.workflows.streamed_rows import counted_text, streamed_rows

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class CorpusRows:
    """The two parts of a corpus, packed and masked."""

    train: Rows
    held_out: PackedRows


def corpus_rows(
    files: Sequence[Path | str],
    tokenizer: PreTrainedTokenizerFast,
    stage: Stage,
    *,
    folder: Path,
    stream: Stream | None = None,
) -> CorpusRows:
    """Tokenise the corpus into `folder` (or map what is there) and pack it, in pairs of texts where a loss asks for
    them; of a stream, its first block.

    `folder` may be shared by runs with the same text, vocabulary and share held out.

    Raises: InputError where the corpus is too small to hold anything out, or the tokenizer lacks a special token.
    """
    for role in ("cls", "sep", "mask"):
        if getattr(tokenizer, f"{role}_token_id") is None:
            raise InputError(f"the model's tokenizer has no {role} token, which masked language modelling needs")

    def store(part: str, keep: Callable[[bool], bool]) -> TokenStore:
        if in_pairs(stage):
            lines = document_lines(files, share=stage.held_out, held_out=keep(True))
        else:
            lines = (line for line in corpus_lines(files) if keep(is_held_out(line, stage.held_out)))
        return TokenStore.build(lines, tokenizer, folder / part)

    if stream is not None:
        counted = None if stage.masking.smoothing is None else counted_text(stream, tokenizer, folder)
        packed = _packing(tokenizer, stage, counted)
        return CorpusRows(*streamed_rows(stream, tokenizer, stage, packed=packed, folder=folder))
    if not (folder / "held_out" / "done.json").is_file():
        log.info("tokenising %d corpus file%s", len(files), "" if len(files) == 1 else "s")
    with processes().main_process_first(), writing("the tokenised corpus", folder):
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / "lock"):  # another run over the same text may be at it
            stores = store("train", lambda held: not held), store("held_out", bool)
    train, held_out = map(_packing(tokenizer, stage, stores[0]), stores)
    for name, part in (("training", train), ("held-out", held_out)):
        if not part.store.tokens:
            raise InputError(
                f"the corpus has no {name} text ({len(train.store)} lines to train on, "
                f"{len(held_out.store)} held out); give more text, or another share with --set held_out=…"
            )
        if isinstance(part, PairRows):
            part.check(name)
    full = train.tokens / (len(train) * stage.training.row_length)
    log.info(
        "%s tokens to train on, packed into %s rows of %d that are %.0f %% full; %s tokens held out",
        f"{train.tokens:,}",
        f"{len(train):,}",
        stage.training.row_length,
        100 * full,
        f"{held_out.tokens:,}",
    )
    return CorpusRows(train, held_out)


def check_row_length(stage: Stage) -> None:
    """Raises: InputError where rows are too short for any text between their special tokens."""
    least = 5 if in_pairs(stage) else 3
    if stage.training.row_length < least:
        raise InputError(
            f"training.row_length {stage.training.row_length}: a row holds its special tokens and at least one token "
            f"of {'each of two texts' if in_pairs(stage) else 'text'}; take {least} or more, such as 128"
        )


def in_pairs(stage: Stage) -> bool:
    """Whether rows hold two texts each, for next-sentence prediction."""
    return any(component.name == "nsp" for component in stage.losses)


def _packing(
    tokenizer: PreTrainedTokenizerFast, stage: Stage, counted: TokenStore | None
) -> Callable[[TokenStore], PackedRows]:
    """What makes packed and masked rows of a store; where rare tokens are masked more often, `counted` says which."""
    size = max(tokenizer.get_vocab().values()) + 1
    special = np.zeros(size, dtype=bool)
    special[tokenizer.all_special_ids] = True
    smoothing = stage.masking.smoothing
    weights = None if smoothing is None or counted is None else rarity(counted.counts(size), smoothing)
    if stage.masking.whole_words and getattr(tokenizer.backend_tokenizer.model, "end_of_word_suffix", None):
        raise InputError(
            "masking.whole_words: this tokenizer marks where words end, not where they begin, and whole words are not "
            "found by it; set it to false"
        )
    masker = Masker(stage.masking, tokenizer.mask_token_id, special, np.asarray(starts_word(tokenizer)), weights)
    return partial(
        PairRows if in_pairs(stage) else PackedRows,
        masker=masker,
        cls_id=tokenizer.cls_token_id,
        sep_id=tokenizer.sep_token_id,
        pad_id=tokenizer.pad_token_id,
        row_length=stage.training.row_length,
        seed=stage.training.seed,
    )


def train_stage(
    objective: Objective,
    rows: CorpusRows,
    stage: Stage,
    *,
    tokenizer: PreTrainedTokenizerFast,
    folder: RunFolder,
    label: str,
    teacher: PreTrainedModel | None = None,
    callbacks: Sequence[TrainerCallback] = (),
    quiet: bool = False,
) -> TrainingRun:
    """Train the objective's student in place, from the last whole checkpoint if there is one.

    Raises: KeyboardInterrupt after Ctrl-C, with a checkpoint written; CheckFailed where a guard of the recipe stops it,
    InputError where that is because of the `teacher`.
    """
    keep_big_buffers()
    settle_threads()
    quicken_(objective.student)
    settings = stage.training
    steps = total_steps(settings, len(rows.train), processes=processes().num_processes)
    a_step = settings.batch_size * settings.gradient_accumulation_steps * settings.row_length
    use_kernels_(objective, settings, tokens=steps * a_step, vocabulary=len(tokenizer))
    stop, clock, overhead = StopOnInterrupt(), Clock(folder.partial / "seconds"), Overhead()
    trainer = SumTrainer(
        objective,
        training_arguments(settings, folder=folder, steps=steps),
        rows=rows.train,
        held_out=rows.held_out,
        tokenizer=tokenizer,
        callbacks=[
            overhead,
            stop,
            clock,
            RichProgress(label, quiet=quiet),
            TensorBoardCallback(SummaryWriter(str(folder.logs))),
            *callbacks,
        ],
        scores=lambda: {"pseudo_perplexity": pseudo_perplexity(objective.student, tokenizer, rows.held_out.store)},
    )
    checkpoint = folder.last_checkpoint()
    guard = Guard(stage.guards)
    if teacher is not None and checkpoint is None:
        with folder.preparing():
            guard.judge_teacher(teacher, rows.held_out, rows.train.store.ids)
    guard.watch(trainer, checkpoint)
    log.info("%d steps of %d rows%s", steps, settings.batch_size, f", from {checkpoint.name}" if checkpoint else "")
    with frozen_below(objective.student, stage.freeze):
        train(trainer, checkpoint, stop=stop)
    make_whole_(objective)
    held_out = next(entry for entry in reversed(trainer.state.log_history) if "eval_loss" in entry)
    seen = settings.batch_size * settings.gradient_accumulation_steps * processes().num_processes * steps
    return TrainingRun(
        steps=steps,
        tokens=rows.train.tokens_in(seen),
        seconds=clock.seconds,
        overhead_share=overhead.share,
        losses=_last(trainer.state.log_history, objective.names),
        held_out={key[5:]: v for key, v in held_out.items() if key.startswith("eval_")},
        curves=curves(trainer.state.log_history, {name: name for name in ("loss", *objective.names)}),
        findings=guard.findings,
    )


def _last(history: Sequence[dict[str, float]], names: Sequence[str]) -> dict[str, float]:
    """The last logged training losses."""
    entry = next((e for e in reversed(history) if names[0] in e), {})
    return {name: entry[name] for name in ("loss", *names) if math.isfinite(entry.get(name, math.nan))}
