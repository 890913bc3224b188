"""What a run is, declared: a strict model that reads and writes YAML."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from importlib import resources
from pathlib import Path
from reprlib import Repr
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, JsonValue, ValidationError, model_validator

from affinage.errors import InputError, legible, unknown
from affinage.strict_yaml import parse, put, scalar

Fraction = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0, le=1e12)]
Count = Annotated[int, Field(gt=0, le=10**12)]
_Words = BeforeValidator(lambda value: "off" if value is False else value)
"""YAML 1.1 reads `off` as a truth value; people mean the word."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Component(_Part):
    """A registered component, its weight in a sum, and its parameters."""

    name: str
    weight: float = 1.0
    params: dict[str, JsonValue] = {}


class TokenizerSpec(_Part):
    """The vocabulary that pre-training learns from its corpus."""

    vocab_size: Count = 16_000
    training_bytes: Count = 20_000_000
    """UTF-8 bytes of corpus, sampled evenly, that the vocabulary is learned from"""


class StudentSpec(_Part):
    """The shape of the model a run makes. What is None is the teacher's (or, in pre-training, must be given)."""

    architecture: Literal["camembert", "roberta", "bert", "distilbert"] | None = None
    num_hidden_layers: Count | None = None
    """None when distilling: half the teacher's, rounded up"""
    layers: Literal["spread", "even", "odd", "last", "first"] | tuple[int, ...] = "spread"
    """which teacher layers the student starts from: a named map, or their indices from 0"""
    init: Literal["layers", "importance", "svd", "embeddings", "random"] = "layers"
    """how a student starts: from whole layers of the teacher, of equal widths; from their most important units, or
    along the singular directions of the embeddings, where it is narrower; or with random layers between the teacher's
    embeddings and vocabulary head; or at random"""
    hidden_size: Count | None = None
    num_attention_heads: Count | None = None
    intermediate_size: Count | None = None
    max_length: Count | None = None
    """tokens a row may have, special tokens included"""
    dropout: Annotated[float, Field(ge=0, lt=1)] | None = None
    """of hidden states and attention, while training"""
    config: dict[str, JsonValue] = {}
    """when distilling with random layers: more entries of the student's config, as its architecture calls them"""
    tokenizer: TokenizerSpec | None = None


class Masking(_Part):
    """Which tokens the masked language model must predict (Devlin et al. 2019, section 3.1)."""

    probability: Annotated[float, Field(gt=0, le=1)] = 0.15
    mask: Fraction = 0.8
    """share of the chosen tokens replaced by the mask token"""
    random: Fraction = 0.1
    """share replaced by a random token; the rest is left as it was"""
    whole_words: bool = False
    smoothing: Annotated[float, Field(ge=0, le=10)] | None = None
    """tokens are chosen in proportion to their count in the training text to the power -smoothing; None: all alike"""
    variants: Count | None = None
    """how many different masks a row gets, taken in turn, epoch by epoch; None: other ones in every epoch"""

    @model_validator(mode="after")
    def _tokens_or_words(self) -> Self:
        if self.whole_words and self.smoothing is not None:
            raise ValueError("smoothing weighs single tokens and whole_words hides words: leave one of them out")
        if self.mask + self.random > 1:
            raise ValueError(
                f"mask {self.mask:g} and random {self.random:g} are shares of the same tokens: at most 1 together"
            )
        return self


class Training(_Part):
    """How a stage is optimised. Unless a unit is named, sizes are in tokens, rows or optimizer steps."""

    learning_rate: Positive = 5e-4
    warmup: Fraction = 0.05
    """share of the steps over which the learning rate rises"""
    schedule: Literal["linear", "cosine", "constant", "constant_with_warmup"] = "linear"
    weight_decay: Annotated[float, Field(ge=0, le=1e12)] = 0.01
    adam_beta1: Fraction = 0.9
    adam_beta2: Fraction = 0.98
    adam_epsilon: Positive = 1e-6
    max_grad_norm: Positive = 1.0
    batch_size: Count = 16
    """rows in one forward pass on one device"""
    row_length: Count = 128
    """tokens in a packed row (pre-training, distillation) or the longest input (fine-tuning)"""
    gradient_accumulation_steps: Count = 1
    epochs: Positive = 1.0
    max_steps: Count | None = None
    """optimizer steps; wins over `epochs`"""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """auto: bf16 where this CPU or GPU computes in it, and faster than in fp32"""
    kernels: Literal["auto", "torch", "compiled", "liger"] = "auto"
    """compiled: `soft_kl` over a vocabulary by a kernel that torch.compile makes; auto: that on a CPU, where it pays
    back within the run and a C++ compiler is there; liger: on a CUDA GPU, layer norms and a lone `mlm` loss by the
    kernels of the package liger-kernel"""
    logging_steps: Count = 20
    evaluations: Count = 10
    """how many times, spread evenly, the held-out score is measured and a checkpoint written"""


class Guards(_Part):
    """What is done when training goes wrong by itself. What a guard finds is logged, and stands in the report.

    `stop` ends the run; its last checkpoint stays. `skip` leaves out the update of that step.
    """

    non_finite: Literal["skip", "stop"] = "skip"
    """the loss or the gradient norm is NaN or infinite; where the held-out figure is, the run always stops"""
    exploding_gradient: Annotated[Literal["skip", "stop", "off"], _Words] = "skip"
    """the norm before clipping is more than `gradient_ratio` times both its running median and `max_grad_norm`"""
    gradient_ratio: Annotated[float, Field(gt=1, le=1e12)] = 50.0
    max_skips: Count = 10
    """updates left out in a row, after which the run stops"""
    no_progress: Annotated[Literal["warn", "stop", "off"], _Words] = "warn"
    """the held-out loss (fine-tuning: the score) is no better than before training when `progress_by` is reached"""
    progress_by: Fraction = 0.3
    """share of the steps, 20 of them at least"""
    bad_teacher: Annotated[Literal["warn", "stop", "off"], _Words] = "stop"
    """on held-out text the teacher predicts hidden tokens worse than one who only knows how frequent each is"""


class Stage(_Part):
    """One training run within a recipe."""

    @model_validator(mode="before")
    @classmethod
    def _on_is_a_word(cls, given: Any) -> Any:
        """YAML 1.1 reads the key `on` as a truth value."""
        return {"on" if key is True else key: value for key, value in given.items()} if type(given) is dict else given

    name: str
    on: Literal["text", "task"] = "text"
    """what a stage of a distillation learns from: raw text, or the rows of a task, which may be without labels"""
    assistant: StudentSpec | None = None
    """on text: the stage trains a model of this shape, which is the teacher of the stages after it (Wang et al. 2020,
    MiniLM, section 3.3)"""
    losses: tuple[Component, ...] = ()
    masking: Masking = Masking()
    held_out: Annotated[float, Field(gt=0, lt=1)] = 0.002
    """share of the corpus lines kept for the held-out loss"""
    streaming: bool | None = None
    """read the corpus piece by piece instead of tokenising it whole; None: where it is in tables or elsewhere"""
    block_tokens: Count = 8_000_000
    """tokens of a streamed corpus that are kept on disk and shuffled together, 4 bytes each"""
    teacher_cache: Annotated[Literal["off", "float16", "float32"], _Words] = "off"
    """keep the teacher's last hidden states on disk: a row that comes again with the same masks is not computed anew"""
    freeze: Literal["encoder"] | Annotated[int, Field(ge=0)] | None = None
    """what is left as it is. encoder, in pre-training: it and its embeddings, the vocabulary head alone is trained; a
    number, in a distillation on text: the embeddings and so many of the student's first layers"""
    training: Training = Training()
    guards: Guards = Guards()


class Recipe(_Part):
    """What a run is. `source` names the paper it follows, or "original"."""

    name: str
    source: str
    description: str = ""
    kind: Literal["pretrain", "distil", "finetune"]
    teachers: tuple[str, ...] = ()
    student: StudentSpec = StudentSpec()
    stages: tuple[Stage, ...] = Field(min_length=1)
    task: str | None = None

    @property
    def sha256(self) -> str:
        """Fingerprint of everything in the recipe, 64 hex digits."""
        text = json.dumps(self.model_dump(mode="json"), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def to_yaml(self) -> str:
        """The recipe as YAML that `Recipe.load` reads back to an equal recipe."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=100)

    def only_stage(self, kind: Literal["pretrain", "distil", "finetune"]) -> Stage:
        """The one stage of a recipe for this verb. Raises: InputError where it is for another, or has more stages."""
        if self.kind != kind or len(self.stages) != 1:
            raise InputError(
                f"recipe '{self.name}' is for {self.kind} with {len(self.stages)} stages; {kind} takes one stage"
            )
        return self.stages[0]

    def with_stages_on(self, what: Literal["text", "task"]) -> Self:
        """The recipe with these stages alone. Raises: InputError where it distils nothing of the kind."""
        if self.kind != "distil":
            raise InputError(f"recipe '{self.name}' is for {self.kind}; distil takes one for distil")
        stages = tuple(stage for stage in self.stages if stage.on == what)
        if not stages:
            need = {"text": "--corpus", "task": "--task and --data"}
            other = need["task" if what == "text" else "text"]
            raise InputError(
                f"recipe '{self.name}' has no stage on {what}, which {need[what]} would feed; give {other}, or another "
                "--recipe"
            )
        return self.model_copy(update={"stages": stages})

    @classmethod
    def load(cls, name_or_path: str | Path, overrides: Mapping[str, str] | None = None) -> Self:
        """A packaged recipe by name, or a YAML file by path, with `key=value` overrides.

        A key is a dotted path (`student.num_hidden_layers`, `stages.0.training.epochs`); a key of a stage alone
        (`training.epochs`) applies to every stage. Values are read as YAML.

        Raises: InputError naming every problem of form at once.
        """
        data = _read(name_or_path)
        problems = [p for key, value in (overrides or {}).items() if (p := _override(data, key, value))]
        try:
            recipe = cls.model_validate(data)
        except ValidationError as error:
            found = [p for p in error.errors() if p["type"] != "too_short" or p["input"] == []]
            problems += [_explain(p, cls) for p in found[:_MAX_PROBLEMS]]
            if len(found) > _MAX_PROBLEMS:
                problems.append(f"… and {len(found) - _MAX_PROBLEMS:,} more problems")
        if problems:
            raise InputError(f"recipe '{name_or_path}':\n  " + "\n  ".join(problems))
        return recipe


def packaged_recipes() -> list[str]:
    """Names of the recipes that come with affinage, sorted."""
    return sorted(p.name[:-5] for p in resources.files("affinage.recipes").iterdir() if p.name.endswith(".yaml"))


def recipe_text(name: str) -> str:
    """The YAML text of a packaged recipe. Raises: InputError with the nearest name if there is none."""
    if name not in packaged_recipes():
        raise InputError(unknown("recipe", name, packaged_recipes()))
    return (resources.files("affinage.recipes") / f"{name}.yaml").read_text(encoding="utf-8")


def parse_overrides(settings: Iterable[str]) -> dict[str, str]:
    """`["a.b=1", …]` as given to `--set` -> {"a.b": "1"}. Raises: InputError where there is no `=`."""
    pairs = {}
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not equals or not key.strip():
            raise InputError(f"--set '{setting}': expected key=value, for example training.learning_rate=1e-4")
        pairs[key.strip()] = value.strip()
    return pairs


_MAX_RECIPE_BYTES = 100_000
_MAX_PROBLEMS = 20
"""Named in one error."""
_MAX_PARTS = 20
"""Of a dotted key."""
_BRIEF = Repr()  # what came may be long, and lists within lists
_BRIEF.maxlevel, _BRIEF.maxstring = 2, 80


def _read(name_or_path: str | Path) -> dict[str, Any]:
    path = Path(name_or_path)
    if path.suffix in {".yaml", ".yml"} or len(path.parts) > 1:
        text = _file_text(path)
    else:
        text = recipe_text(str(name_or_path))
    try:
        data = parse(text)
    except yaml.YAMLError as error:
        raise InputError(f"recipe '{name_or_path}' is not valid YAML: {error}") from None
    if not isinstance(data, dict):
        raise InputError(f"recipe '{name_or_path}': expected keys such as name, stages; got {type(data).__name__}")
    return data


def _file_text(path: Path) -> str:
    try:
        if not path.is_file():  # opening a pipe or a device might never end
            what = "is no file" if path.exists() else "does not exist"
            raise InputError(f"recipe file '{path}' {what}; packaged recipes: {', '.join(packaged_recipes())}")
        with path.open("rb") as stream:
            content = stream.read(_MAX_RECIPE_BYTES + 1)
        if len(content) > _MAX_RECIPE_BYTES:
            raise InputError(f"recipe file '{path}' has more than {_MAX_RECIPE_BYTES:,} bytes: that is no recipe")
        return content.decode("utf-8")
    except (OSError, ValueError) as error:  # ValueError: not UTF-8, or a NUL in the name
        raise InputError(f"recipe file '{path}' cannot be read: {getattr(error, 'strerror', None) or error}") from None


def _override(data: dict[str, Any], key: str, text: str) -> str | None:
    """Write one override into `data`; the problem in words, or None."""
    parts, key = key.split("."), legible(key)
    if len(parts) > _MAX_PARTS:
        return f"{key}…: a key has at most {_MAX_PARTS} parts"
    try:
        value = scalar(text)
    except yaml.YAMLError:
        return f"{key}: the value '{legible(text)}' is not valid YAML"
    stages = data.get("stages")
    if parts[0] in Stage.model_fields and parts[0] not in Recipe.model_fields and isinstance(stages, list):
        return next((p for stage in stages if (p := put(stage, parts, value, key))), None)
    return put(data, parts, value, key)


def _explain(problem: Any, model: type[BaseModel]) -> str:
    """One pydantic problem as `where: what is wrong`, with the nearest key for a misspelt one."""
    where = ".".join(map(legible, problem["loc"]))
    if problem["type"] != "extra_forbidden":
        got = "" if problem["type"] == "missing" else f" (got {_BRIEF.repr(problem['input']):.80})"
        return f"{where}: {problem['msg'][0].lower()}{problem['msg'][1:]}{got}"
    owner: Any = model
    for part in problem["loc"][:-1]:
        if isinstance(part, str) and hasattr(owner, "model_fields") and part in owner.model_fields:
            owner = _model_in(owner.model_fields[part].annotation)
    known = getattr(owner, "model_fields", {})
    return f"{where}: " + unknown("key", legible(problem["loc"][-1]), known)


def _model_in(annotation: Any) -> Any:
    """The recipe part inside an annotation such as `tuple[Stage, ...]` or `X | None`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    found = (_model_in(a) for a in getattr(annotation, "__args__", ()) if a is not Ellipsis)
    return next((f for f in found if f is not None), None)
