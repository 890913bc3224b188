"""`affinage plan`: what a recipe costs on given hardware, on paper; no weights are read and nothing is computed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from transformers import PretrainedConfig

from affinage.distillation.objective import build_losses
from affinage.distillation.student import student_depth, student_layers, student_widths
from affinage.errors import InputError
from affinage.losses.vocabulary import CHUNK_ENTRIES
from affinage.models.build import check_shape
from affinage.models.checkpoint import read_config
from affinage.models.layout import LAYOUTS, depth_of, layout_of, widths_of
from affinage.recipe import Recipe, Stage, StudentSpec
from affinage.signals import IGNORED, Batch
from affinage.training.hardware import machine
from affinage.training.plan import UTILISATION, Estimate, Shape, Workload, estimate
from affinage.training.shapes import SHAPES, shape

HARDWARE = ("cpu-2-cores", "a100", "8xa100", "8xh100")
"""What is planned for where nobody says"""


@dataclass(frozen=True)
class Plan:
    """A recipe's cost on several machines."""

    recipe: str
    student: Shape
    teacher: Shape | None
    head_share: float
    """of real tokens: those that vocabulary logits are computed for"""
    tokens: float
    """real tokens that the student is trained on, all passes together"""
    estimates: tuple[Estimate, ...]


def plan(
    model: str | Path | None = None,
    *,
    tokens: float,
    shape_of_model: str | None = None,
    recipe: str | Path = "distilcamembert",
    hardware: Sequence[str] = HARDWARE,
    utilisation: float = UTILISATION,
    overrides: Mapping[str, str] | None = None,
) -> Plan:
    """Plan the distillation of a teacher: `model` (a folder, hub name or known shape) or `shape_of_model`.

    Under a recipe for pre-training these are the model that is trained; None: the recipe's own.

    Raises: InputError for what is unknown, missing or does not fit together.
    """
    if model is not None and shape_of_model is not None:
        raise InputError("give TEACHER or --shape, not both")
    if not 0 < utilisation <= 1:
        raise InputError(f"--utilisation {utilisation:g}: expected a share above 0, at most 1")
    for key in overrides or ():
        if key.endswith(("training.max_steps", "training.epochs")):
            raise InputError(f"--set {key}: a plan is of as many tokens as --tokens says; leave it out")
    chosen = Recipe.load(recipe, overrides)
    if chosen.kind == "finetune":
        raise InputError(f"recipe '{chosen.name}' is for finetune; a plan is made for distil and pretrain")
    if chosen.kind == "distil":
        chosen = chosen.with_stages_on("text")
    stage = chosen.only_stage(chosen.kind)
    machines = [machine(name) for name in hardware]
    given = _given(model, shape_of_model)
    if chosen.kind == "distil":
        if given is None:
            raise InputError("a distillation needs its teacher: name it, or give --shape, as --shape camembert-base")
        teacher, student = given, student_shape(given, chosen.student)
    else:
        teacher, student = None, given or fresh_shape(chosen.student)
    if stage.training.row_length > student.positions:
        raise InputError(f"training.row_length {stage.training.row_length} exceeds the {student.positions} positions")
    precision = stage.training.precision
    dropout = chosen.student.dropout != 0
    work = workload(stage, student, teacher, bf16=False, dropout=dropout)
    return Plan(
        recipe=chosen.name,
        student=student,
        teacher=teacher,
        head_share=work.head_share,
        tokens=tokens,
        estimates=tuple(
            estimate(replace(work, bf16=m.bf16(precision)), m, tokens=tokens, utilisation=utilisation) for m in machines
        ),
    )


def workload(stage: Stage, student: Shape, teacher: Shape | None, *, bf16: bool, dropout: bool) -> Workload:
    """What a device computes in a step of `stage`. Raises: InputError where its losses are not what they should be."""
    losses = build_losses(stage.losses, teacher=teacher is not None)
    head = [loss for loss in losses if "head" in loss.needs]
    wanted = torch.zeros(1, 1000, dtype=torch.bool)
    masked = torch.arange(1000)[None] < round(1000 * stage.masking.probability)
    labels = torch.where(masked, 0, IGNORED)
    probe = Batch(input_ids=torch.zeros_like(labels), mask=torch.ones_like(masked), labels=labels)
    for loss in head:
        wanted |= loss.positions(probe)
    compares = any(loss.teacher_needs for loss in losses)
    return Workload(
        student=student,
        teacher=teacher if compares else None,
        head_share=float(wanted.double().mean()),
        teacher_head=any("head" in loss.teacher_needs for loss in losses),
        row_length=stage.training.row_length,
        rows=stage.training.batch_size,
        accumulation=stage.training.gradient_accumulation_steps,
        bf16=bf16,
        dropout=dropout,
        chunk_entries=CHUNK_ENTRIES,
    )


def shape_of(config: PretrainedConfig) -> Shape:
    """The shape of a model from its config. Raises: InputError for an unknown architecture."""
    layout = layout_of(config)
    widths = widths_of(config)
    return Shape(
        layers=depth_of(config),
        hidden_size=widths["hidden_size"],
        heads=widths["num_attention_heads"],
        intermediate_size=widths["intermediate_size"],
        vocab_size=int(config.vocab_size),
        positions=int(config.max_position_embeddings),
        token_types=0 if layout.token_type_embeddings is None else int(config.type_vocab_size),
    )


def student_shape(teacher: Shape, spec: StudentSpec) -> Shape:
    """The student that a recipe makes of a teacher. Raises: InputError where it cannot be made."""
    theirs = {
        "hidden_size": teacher.hidden_size,
        "num_attention_heads": teacher.heads,
        "intermediate_size": teacher.intermediate_size,
    }
    widths = student_widths(spec, theirs)
    student_layers(spec, teacher.layers)  # the map must fit
    return replace(
        teacher,
        layers=student_depth(spec, teacher.layers),
        hidden_size=widths["hidden_size"],
        heads=widths["num_attention_heads"],
        intermediate_size=widths["intermediate_size"],
        token_types=0 if spec.architecture == "distilbert" else teacher.token_types,
    )


def fresh_shape(spec: StudentSpec) -> Shape:
    """The model that a recipe for pre-training makes. Raises: InputError where a size is missing."""
    check_shape(spec)
    if spec.tokenizer is None:
        raise InputError("student.tokenizer is null: the vocabulary is that of the model to start from; give --shape")
    assert spec.architecture and spec.num_hidden_layers and spec.hidden_size and spec.num_attention_heads
    assert spec.intermediate_size and spec.max_length
    layout = LAYOUTS[spec.architecture]
    return Shape(
        layers=spec.num_hidden_layers,
        hidden_size=spec.hidden_size,
        heads=spec.num_attention_heads,
        intermediate_size=spec.intermediate_size,
        vocab_size=spec.tokenizer.vocab_size,
        positions=spec.max_length + (2 if layout.positions_after_pad else 0),  # the pad token of our vocabularies is 1
        token_types={"bert": 2, "distilbert": 0}.get(spec.architecture, 1),
    )


def _given(model: str | Path | None, sizes: str | None) -> Shape | None:
    if sizes is not None:
        return shape(sizes)
    if model is None:
        return None
    if str(model) in SHAPES and not Path(model).exists():
        return SHAPES[str(model)]
    config = read_config(model)
    if not layout_of(config).whole:
        raise InputError(
            f"the cost of a '{config.model_type}' is not known by arithmetic; measure it with affinage distil … "
            "--dry-run, or give --shape for an encoder like BERT"
        )
    return shape_of(config)
