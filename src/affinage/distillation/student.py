"""The student of a teacher: fewer layers, or narrower ones, started from the teacher's own weights."""

from collections.abc import Mapping
from difflib import get_close_matches

from transformers import PreTrainedModel

from affinage.errors import InputError
from affinage.models.build import student_masked_lm
from affinage.models.layout import depth_of, layout_of, widths_of
from affinage.models.narrowing import narrow_
from affinage.models.structure import refuse_compressed
from affinage.models.transfer import copy_layers_, copy_outside_layers_, layer_map, transfer_
from affinage.recipe import StudentSpec

FRESH = ("embeddings", "random")
"""`student.init` with random layers."""


def student_depth(spec: StudentSpec, teacher_layers: int) -> int:
    """Layers of the student. Raises: InputError where the teacher's cannot start as many."""
    if spec.num_hidden_layers is not None:
        wanted = spec.num_hidden_layers
    elif isinstance(spec.layers, tuple):
        wanted = len(spec.layers)
    else:
        wanted = (teacher_layers + 1) // 2
    if spec.layers == "odd" and spec.num_hidden_layers is None:
        wanted = teacher_layers // 2
    if wanted < 1:
        raise InputError(f"student.layers {spec.layers!r} takes no layer of the teacher's {teacher_layers}")
    if wanted > teacher_layers and spec.init not in FRESH:
        raise InputError(f"student.num_hidden_layers {wanted} exceeds the teacher's {teacher_layers} layers")
    return wanted


def student_layers(spec: StudentSpec, teacher_layers: int) -> tuple[int, ...]:
    """For each student layer, the teacher layer it starts from; none where it starts at random.

    Raises: InputError where the map does not fit.
    """
    wanted = student_depth(spec, teacher_layers)
    return () if spec.init in FRESH else layer_map(spec.layers, teacher_layers, wanted)


def student_widths(spec: StudentSpec, teacher: Mapping[str, int]) -> dict[str, int]:
    """The student's hidden_size, num_attention_heads and intermediate_size; the teacher's where the spec names none.

    Raises: InputError where they do not fit together, or `spec.init` cannot make them of the teacher's.
    """
    widths = {key: getattr(spec, key) or theirs for key, theirs in teacher.items()}
    for key, theirs in teacher.items():
        if spec.init == "layers" and widths[key] != theirs:
            raise InputError(
                f"student.{key} {widths[key]} differs from the teacher's {theirs}; student.init 'layers' copies whole "
                f"layers and keeps their widths: leave student.{key} out, or set student.init to importance or svd, "
                "which cut the teacher's weights down, or to random"
            )
        if spec.init == "embeddings" and key == "hidden_size" and widths[key] != theirs:
            raise InputError(
                f"student.{key} {widths[key]} differs from the teacher's {theirs}; student.init 'embeddings' copies "
                f"embeddings and vocabulary head: leave student.{key} out, or set student.init=random"
            )
        if spec.init in ("importance", "svd") and widths[key] > theirs:
            raise InputError(
                f"student.{key} {widths[key]} exceeds the teacher's {theirs}; student.init '{spec.init}' cuts the "
                f"teacher's weights down: set at most {theirs}, or student.init=random"
            )
    width, heads = widths["hidden_size"], widths["num_attention_heads"]
    if width % heads:
        fitting = ", ".join(str(n) for n in range(1, teacher["num_attention_heads"] + 1) if width % n == 0)
        whose = "" if spec.num_attention_heads else " (the teacher's)"
        raise InputError(
            f"student.hidden_size {width} is not a multiple of student.num_attention_heads {heads}{whose}; "
            f"set student.num_attention_heads to one of {fitting}"
        )
    return widths


def check_student(spec: StudentSpec, teacher: PreTrainedModel) -> None:
    """Raises: InputError where the spec asks for more than `spec.init` can make of the teacher."""
    widths = widths_for(spec, teacher)
    layout, theirs = layout_of(teacher.config), teacher.config.model_type
    same = spec.architecture in (None, theirs)
    if layout.shares_layers and (same or spec.init != "random"):
        raise InputError(
            f"all layers of an {theirs} teacher share one layer's weights: with fewer a student is no smaller, and no "
            "other architecture can take them over; set student.architecture=bert and student.init=random"
        )
    if spec.init != "random" and not same and (theirs, spec.architecture) != ("bert", "distilbert"):
        raise InputError(
            f"student.architecture {spec.architecture} differs from the teacher's {theirs}: weights go from a model to "
            "its own architecture, and from bert to distilbert; leave it out, or set student.init=random"
        )
    apart = getattr(teacher.config, "embedding_size", teacher.config.hidden_size) != teacher.config.hidden_size
    if spec.init in ("importance", "svd") and widths != widths_of(teacher.config) and (apart or not layout.whole):
        what = "embeddings have a width of their own" if apart and layout.whole else "parts are not known one by one"
        raise InputError(
            f"student.init {spec.init} cannot cut the weights of a {theirs} down: its {what}; set student.init=random, "
            "or keep the teacher's widths"
        )
    _check_config(spec, teacher, same=same)
    for key in ("max_length", "tokenizer"):
        if getattr(spec, key) is not None:
            raise InputError(f"student.{key}: a student shares the teacher's; leave it out")


def _check_config(spec: StudentSpec, teacher: PreTrainedModel, *, same: bool) -> None:
    """Raises: InputError where `spec.config` names what the teacher's config has not, or layers are to be copied."""
    if not spec.config:
        return
    if spec.init not in FRESH or not same:
        raise InputError(
            "student.config changes what the layers are made of, so that they start at random: set student.init to "
            "embeddings or random and leave student.architecture out, or leave student.config out"
        )
    known = set(teacher.config.to_dict())
    for key in spec.config:
        if key not in known:
            near = get_close_matches(key, known, n=1)
            hint = f". Did you mean '{near[0]}'?" if near else ": leave it out, or take a teacher whose config has it"
            raise InputError(f"student.config: the config of a {teacher.config.model_type} has no '{key}'{hint}")
    within, heads = (spec.config.get(key) for key in ("intra_bottleneck_size", "num_attention_heads"))
    heads = heads or spec.num_attention_heads or widths_of(teacher.config)["num_attention_heads"]
    if isinstance(within, int) and isinstance(heads, int) and within % heads:
        raise InputError(f"student.config.intra_bottleneck_size {within} is not a multiple of {heads} heads")


def check_continued(spec: StudentSpec, earlier: PreTrainedModel) -> None:
    """Raises: InputError where the spec asks for another shape than that of the student to go on from."""
    theirs = widths_of(earlier.config) | {
        "num_hidden_layers": depth_of(earlier.config),
        "architecture": earlier.config.model_type,
    }
    for key, wanted in spec.config.items():
        if getattr(earlier.config, key, None) != wanted:
            raise InputError(
                f"student.config.{key} {wanted} differs from the {getattr(earlier.config, key, None)} of the model to "
                "go on from: leave it out, or leave --from out"
            )
    for key, value in theirs.items():
        if getattr(spec, key) not in (None, value):
            raise InputError(
                f"student.{key} {getattr(spec, key)} differs from the {value} of the model to go on from: leave it "
                "out, or leave --from out"
            )


def widths_for(spec: StudentSpec, teacher: PreTrainedModel) -> dict[str, int]:
    """`student_widths` for this teacher's architecture. Raises: InputError as it, and for a feed-forward network that
    the architecture does not have.
    """
    theirs = widths_of(teacher.config)
    same = spec.architecture in (None, teacher.config.model_type)
    if layout_of(teacher.config).intermediate_size or not same:
        return student_widths(spec, theirs)
    fixed = 4 * (spec.hidden_size or theirs["hidden_size"])
    if spec.intermediate_size not in (None, fixed):
        raise InputError(
            f"student.intermediate_size {spec.intermediate_size}: in a {teacher.config.model_type} it is 4 times the "
            f"hidden size, here {fixed}; leave it out"
        )
    return student_widths(spec.model_copy(update={"intermediate_size": fixed}), theirs)


def make_student(teacher: PreTrainedModel, spec: StudentSpec) -> tuple[PreTrainedModel, tuple[int, ...]]:
    """A student as `spec.init` starts it, and the teacher's layers it starts from, none of them where at random.

    A DistilBERT made of a BERT has its token type 0 added to the positions, and neither pooler nor token types.

    Raises: InputError where the map leaves the teacher or the shape cannot be made.
    """
    check_student(spec, teacher)
    refuse_compressed(teacher)
    theirs, widths = widths_of(teacher.config), widths_for(spec, teacher)
    depth = depth_of(teacher.config)
    layers, count = student_layers(spec, depth), student_depth(spec, depth)
    student = student_masked_lm(teacher, spec, depth=count, widths=widths, layers=layers)
    if spec.init == "embeddings":
        copy_outside_layers_(teacher, student)
        return student, ()
    if spec.init == "random":
        return student, ()
    if widths == theirs:
        _start_(student, teacher, layers)
        return student, layers
    as_wide = student_masked_lm(teacher, spec, depth=count, widths=theirs, layers=layers)
    _start_(as_wide, teacher, layers)
    narrow_(as_wide, student, how="importance" if spec.init == "importance" else "svd")
    return student, layers


def _start_(student: PreTrainedModel, teacher: PreTrainedModel, layers: tuple[int, ...]) -> None:
    if student.config.model_type == teacher.config.model_type:
        copy_layers_(teacher, student, layers=layers)
    else:
        transfer_(teacher, student, layers=layers)
