"""`affinage pretrain`: raw text -> vocabulary and masked language model, from scratch or from another model."""

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerFast, set_seed

from affinage.data.corpus import corpus_files, fingerprints, in_order
from affinage.data.pieces import parts_in
from affinage.data.streams import Stream, as_stream
from affinage.data.token_cache import token_folder
from affinage.data.vocabulary import train_unigram, train_vocabulary, with_token_types
from affinage.distillation.kernels import check_kernels
from affinage.distillation.objective import Objective, build_losses
from affinage.errors import InputError
from affinage.evaluation.footprint import model_entry
from affinage.models.build import check_shape, fresh_masked_lm
from affinage.models.checkpoint import check_fit, load_masked_lm, load_tokenizer, max_length, weights_fingerprint
from affinage.models.layout import depth_of, layout_of, widths_of
from affinage.models.next_sentence import check_next_sentence, with_next_sentence_head
from affinage.models.transfer import layer_map, transfer_
from affinage.recipe import Recipe, Stage, StudentSpec
from affinage.report.provenance import provenance
from affinage.report.report import Report
from affinage.training.arguments import computes_in_bf16
from affinage.training.model_folder import write_model_folder
from affinage.training.processes import processes
from affinage.training.run_folder import RunFolder, refuse_existing
from affinage.workflows.corpus_stage import check_row_length, corpus_rows, in_pairs, train_stage

log = logging.getLogger(__name__)


def pretrain(
    corpus: Sequence[str | Path],
    *,
    out: str | Path,
    recipe: str | Path = "mini-camembert",
    init_from: str | Path | None = None,
    overrides: Mapping[str, str] | None = None,
    overwrite: bool = False,
    quiet: bool = False,
    command: str | None = None,
) -> Report:
    """Train a masked language model on raw text and write it to the folder `out`.

    `init_from` starts from an existing model: with its vocabulary where the recipe's `student.tokenizer` is null, else
    with a new one whose embeddings are built from the old (shared pieces copied, others averaged from their parts). A
    recipe that names no shape takes that model's.

    Raises: InputError before any long work for whatever cannot be used.
    """
    began = time.perf_counter()
    refuse_existing(out, overwrite=overwrite)
    given = read_given(corpus, recipe=recipe, init_from=init_from, overrides=overrides)
    plan, stage, files, stream, source = given.plan, given.stage, given.files, given.stream, given.source
    data = fingerprints(files) if stream is None else stream.fingerprints()
    identity = {
        "verb": "pretrain",
        "recipe": plan.sha256,
        "from": str(init_from),
        "from_weights": None if init_from is None else weights_fingerprint(init_from),
        "corpus": in_order(files, data),
    }
    with processes().main_process_first():
        folder = RunFolder.open(Path(out), identity=identity, overwrite=overwrite)
        with folder.preparing():
            tokenizer = tokenizer_of(plan.student, stream or files, folder, source)
    set_seed(stage.training.seed)
    if source is not None and not source[2]:
        log.info("model '%s' has no vocabulary head: it starts at random", init_from)
    frozen, pairs = stage.freeze == "encoder", in_pairs(stage)
    with folder.preparing():
        model = initial_model(plan.student, tokenizer, source, frozen=frozen, pairs=pairs)
        check_fit(tokenizer, model.config, where=out)
        shared = (
            None
            if stream is not None
            else token_folder(files, data, tokenizer, held_out=stage.held_out, pairs=in_pairs(stage))
        )
        rows = corpus_rows(files, tokenizer, stage, folder=shared or folder.partial / "tokens", stream=stream)
    objective = Objective(model, stage.losses)
    run = train_stage(objective, rows, stage, tokenizer=tokenizer, folder=folder, label="pre-training", quiet=quiet)
    report = Report(
        command="pretrain",
        models=(model_entry(model, name=Path(out).name, path=out),),
        training=run,
        provenance=provenance(
            command=command or f"affinage pretrain … --recipe {recipe} --out {out}",
            seed=stage.training.seed,
            recipe_sha256=plan.sha256,
            data=data,
            seconds=time.perf_counter() - began,
        ),
    )
    if processes().is_main_process:
        folder.finish(
            lambda aside: write_model_folder(
                aside,
                model=model,
                tokenizer=tokenizer,
                recipe=plan,
                report=report,
                base=None if init_from is None else str(init_from),
            )
        )
    return report


Source = tuple[PreTrainedModel, PreTrainedTokenizerFast, bool]
"""A model to start from, its tokenizer, and whether it has a vocabulary head of its own."""


@dataclass(frozen=True)
class Given:
    """What a pre-training is asked for: read, and found to fit together."""

    plan: Recipe
    files: list[Path | str]
    stream: Stream | None
    source: Source | None
    """the model to start from"""

    @property
    def stage(self) -> Stage:
        """Its only one."""
        return self.plan.stages[0]


def read_given(
    corpus: Sequence[str | Path],
    *,
    recipe: str | Path,
    init_from: str | Path | None,
    overrides: Mapping[str, str] | None,
) -> Given:
    """Raises: InputError for whatever cannot be used."""
    plan = Recipe.load(recipe, overrides)
    stage = plan.only_stage("pretrain")
    build_losses(stage.losses, teacher=False)
    computes_in_bf16(stage.training.precision)
    check_kernels(stage.training.kernels)
    files = corpus_files(corpus)
    if in_pairs(stage):
        check_next_sentence(plan.student.architecture or "")
    stream = as_stream(files, stage)
    if stream is not None and in_pairs(stage):
        raise InputError(
            "loss 'nsp' needs whole documents, and this corpus is streamed: --set streaming=false, or leave it out"
        )
    if isinstance(stage.freeze, int):
        raise InputError("stages.0.freeze: a number of layers is for distillation; pre-training freezes the 'encoder'")
    if plan.student.tokenizer is None and init_from is None:
        raise InputError("student.tokenizer is null: without --from there is no vocabulary to use")
    source = None if init_from is None else read_source(init_from)
    if source is not None:
        plan = plan.model_copy(update={"student": with_shape_of(plan.student, source[0].config)})
    elif stage.freeze:
        raise InputError("stages.0.freeze: an encoder that stays as it is must come from somewhere; add --from MODEL")
    check_row_length(stage)
    _check_shape(plan.student, stage.training.row_length, source)
    return Given(plan, files, stream, source)


def read_source(name: str | Path) -> Source:
    """A model folder or hub name to start from. Raises: InputError where it cannot be used."""
    model, has_head = load_masked_lm(name, allow_fresh_head=True)
    tokenizer = load_tokenizer(name)
    check_fit(tokenizer, model.config, where=name)
    return model, tokenizer, has_head


def initial_model(
    spec: StudentSpec,
    tokenizer: PreTrainedTokenizerFast,
    source: Source | None,
    *,
    frozen: bool = False,
    pairs: bool = False,
) -> PreTrainedModel:
    """The model that training begins with: random, or of the layers and embeddings of `source`.

    With a `spec.tokenizer` the vocabulary is a new one, whose embeddings are built from the source's; else it is the
    source's. What the source lacks (a vocabulary head) stays random, as does the next-sentence head that `pairs` need.
    `frozen`: only the heads are to be trained.
    """
    if source is None:
        model = fresh_masked_lm(spec, tokenizer)
        return with_next_sentence_head(model) if pairs else model
    old, old_tokenizer, has_head = source
    model = fresh_masked_lm(spec, tokenizer, like=old.config)
    transfer_(
        old,
        model,
        layers=layer_map(spec.layers, depth_of(old.config), depth_of(model.config)),
        pieces=None if spec.tokenizer is None else parts_in(old_tokenizer, tokenizer),
        head=has_head,
    )
    if pairs:
        model = with_next_sentence_head(model)
    if frozen:
        model.get_submodule(layout_of(model.config).base).requires_grad_(False)  # the tied projection with it
    return model


def with_shape_of(spec: StudentSpec, config: PretrainedConfig) -> StudentSpec:
    """`spec` where it names anything of a shape, else with that of the model `config` describes.

    Raises: InputError where that model's architecture is none that can be made.
    """
    name = layout_of(config).model_type
    shape = {
        "architecture": name,
        "num_hidden_layers": depth_of(config),
        "max_length": max_length(config),
        **widths_of(config),
    }
    if any(getattr(spec, key) is not None for key in shape):
        return spec
    known = get_args(get_args(StudentSpec.model_fields["architecture"].annotation)[0])
    if name not in known:
        raise InputError(f"architecture '{name}' cannot be made from a recipe; name another: student.architecture=…")
    return spec.model_copy(update=shape)


def _check_shape(spec: StudentSpec, row_length: int, source: Source | None) -> None:
    """Raises: InputError where the shape has gaps, rows do not fit it, or it does not fit the model to start from."""
    check_shape(spec)
    if spec.max_length is not None and row_length > spec.max_length:
        raise InputError(f"training.row_length {row_length} exceeds student.max_length {spec.max_length}")
    if source is None:
        return
    config = source[0].config
    layer_map(spec.layers, depth_of(config), spec.num_hidden_layers or 0)
    differing = {key: theirs for key, theirs in widths_of(config).items() if getattr(spec, key) != theirs}
    if differing:
        said = "; ".join(f"student.{key} {getattr(spec, key)} differs from its {n}" for key, n in differing.items())
        cure = " ".join(f"--set student.{key}={theirs}" for key, theirs in differing.items())
        raise InputError(f"the model to start from has other widths: {said}; add {cure}")
    if spec.max_length and spec.max_length > max_length(config) and row_length > max_length(config):
        raise InputError(f"training.row_length {row_length} exceeds the {max_length(config)} positions to start from")


def tokenizer_of(
    spec: StudentSpec, text: Stream | Sequence[Path | str], folder: RunFolder, source: Source | None
) -> PreTrainedTokenizerFast:
    """The tokenizer of this run: the source's, the one an interrupted run trained, or a new one."""
    if spec.tokenizer is None:
        assert source is not None
        return source[1]
    kept = folder.partial / "tokenizer"
    if not kept.is_dir():
        length = spec.max_length or 512
        if isinstance(text, Stream):
            tokenizer = train_unigram(text.sample(spec.tokenizer.training_bytes), spec.tokenizer, max_length=length)
        else:
            tokenizer = train_vocabulary(text, spec.tokenizer, max_length=length)
        if spec.architecture == "bert":
            tokenizer = with_token_types(tokenizer)
        aside = folder.partial / "tokenizer.tmp"
        tokenizer.save_pretrained(aside)
        aside.rename(kept)
    return load_tokenizer(kept)
