"""`--dry-run`: everything read and checked as for the real run, a few steps trained, nothing left behind."""

import logging
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from transformers import set_seed

from affinage.data.sample import is_small, sample
from affinage.data.streams import Stream
from affinage.distillation.objective import Objective
from affinage.errors import InputError
from affinage.models.checkpoint import check_fit
from affinage.training.processes import agreed
from affinage.training.run_folder import refuse_existing
from affinage.workflows import distil, pretrain
from affinage.workflows.corpus_stage import in_pairs
from affinage.workflows.trial_run import DryRun, Text, trial_run

log = logging.getLogger(__name__)

SAMPLE_BYTES = 8_000_000
"""Of a corpus that is too big to be read whole."""


def distil_dry_run(
    teacher: str | Path,
    *,
    corpus: Sequence[str | Path],
    out: str | Path,
    recipe: str | Path = "distilcamembert",
    init_from: str | Path | None = None,
    overrides: Mapping[str, str] | None = None,
    overwrite: bool = False,
    quiet: bool = False,
) -> DryRun:
    """What `distil` with these arguments would cost here.

    Raises: as `distil` before it trains; CheckFailed where a guard of the recipe would stop it within the trial.
    """
    refuse_existing(out, overwrite=overwrite)
    given = distil.read_given(teacher, corpus=corpus, recipe=recipe, init_from=init_from, overrides=overrides)
    with _text_of(given.files, given.stream) as text:
        objective = Objective(given.student, given.stage.losses, teacher=given.teacher)
        return trial_run(objective, text, given.plan, teacher=given.teacher, tokenizer=given.tokenizer, quiet=quiet)


def pretrain_dry_run(
    corpus: Sequence[str | Path],
    *,
    out: str | Path,
    recipe: str | Path = "mini-camembert",
    init_from: str | Path | None = None,
    overrides: Mapping[str, str] | None = None,
    overwrite: bool = False,
    quiet: bool = False,
) -> DryRun:
    """What `pretrain` with these arguments would cost here. A new vocabulary is trained, of a big corpus on a sample.

    Raises: as `pretrain` before it trains; CheckFailed where a guard of the recipe would stop it within the trial.
    """
    refuse_existing(out, overwrite=overwrite)
    given = pretrain.read_given(corpus, recipe=recipe, init_from=init_from, overrides=overrides)
    spec = given.plan.student
    with _text_of(given.files, given.stream, at_least=spec.tokenizer.training_bytes if spec.tokenizer else 0) as text:
        tokenizer = agreed(lambda: pretrain.tokenizer_of(spec, text.files, text.run_folder, given.source))
        set_seed(given.stage.training.seed)
        stage = given.stage
        model = pretrain.initial_model(
            spec, tokenizer, given.source, frozen=stage.freeze == "encoder", pairs=in_pairs(stage)
        )
        check_fit(tokenizer, model.config, where=out)
        objective = Objective(model, given.stage.losses)
        return trial_run(objective, text, given.plan, teacher=None, tokenizer=tokenizer, quiet=quiet)


@contextmanager
def _text_of(files: Sequence[Path | str], stream: Stream | None, *, at_least: int = 0) -> Iterator[Text]:
    """The corpus where it is small, else a sample, of `at_least` bytes; whatever is written is gone afterwards.

    Raises: DataError for what is no text, InputError where there is none.
    """
    with tempfile.TemporaryDirectory(prefix="affinage-dry-run-") as name:
        folder = Path(name)
        if stream is None and is_small(files):
            yield Text(files, folder)
            return
        taken = sample(files, budget=max(SAMPLE_BYTES, at_least), stream=stream)
        if not taken.lines:
            raise InputError("the corpus has no text")
        log.info("reading a sample of %s lines of the corpus", f"{len(taken.lines):,}")
        path = folder / "sample.txt"
        path.write_text("\n".join(taken.lines), encoding="utf-8")
        yield Text([path], folder, taken, stream)
