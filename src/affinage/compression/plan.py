"""A plan: methods in an order, training between them, and what a step may lose; checked before anything runs."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError, model_validator

import affinage.compression  # noqa: F401  (registers every compressor)
from affinage.compression.base import (
    ChangesTokenizer,
    Compressor,
    ReplacesParts,
    Side,
    TrainedCompressor,
    compressors,
    may_follow,
)
from affinage.errors import InputError, legible
from affinage.strict_yaml import parse, scalar

_MAX_PLAN_BYTES = 100_000

AnyCompressor = Compressor | ChangesTokenizer | TrainedCompressor
Steps = Annotated[int, Field(ge=0, le=10**9)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class PlanStep(_Part):
    """One method. `prune-heads: {keep: 0.5}` says the same as `method: prune-heads`, `params: {keep: 0.5}`."""

    method: str
    params: dict[str, JsonValue] = {}
    recover: Steps | None = None
    """optimizer steps of recovery training after this one; None: as many as the plan's `recover`, where gradients reach
    what the step leaves"""
    most_lost: Annotated[float, Field(ge=0)] | None = None
    """None: the plan's"""

    @model_validator(mode="before")
    @classmethod
    def _short(cls, given: Any) -> Any:
        if isinstance(given, str):
            return _named(given, "step") if ":" in given else {"method": given}
        if isinstance(given, dict) and "method" not in given:
            names = [key for key in given if key not in cls.model_fields]
            if len(names) == 1:
                rest = {key: value for key, value in given.items() if key != names[0]}
                return {"method": names[0], "params": {} if (own := given[names[0]]) is None else own, **rest}
        return given

    @property
    def title(self) -> str:
        """`prune-heads:keep=0.5`, as `--with` takes it."""
        said = ",".join(f"{key}={json.dumps(value)}" for key, value in self.params.items())
        return f"{self.method}:{said}" if said else self.method

    def build(self) -> AnyCompressor:
        """The compressor. Raises: InputError for an unknown name or parameter."""
        return compressors.build(self.method, self.params)


class Plan(_Part):
    """What `affinage compress` does to a model, step by step."""

    steps: tuple[PlanStep, ...] = Field(min_length=1)
    recover: Steps = 0
    """optimizer steps of recovery training after every step that can be trained: distillation from the model as it was
    before the plan; the best weights on the valid part are kept"""
    recipe: str | None = None
    """how recovery trains; None: task, or on text soft labels and hidden words"""
    settings: dict[str, JsonValue] = {}
    """overrides of that recipe, as training.learning_rate: 5e-5"""
    most_lost: Annotated[float, Field(ge=0)] | None = None
    """how much of the score a step may lose, 0.01 being one point of a hundred; one that loses more is undone. None:
    any"""
    calibration: Annotated[int, Field(gt=0, le=10**7)] = 256
    """rows of the training part that methods measure the model on"""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0

    @property
    def sha256(self) -> str:
        """Fingerprint of everything in the plan, 64 hex digits."""
        return hashlib.sha256(json.dumps(self.model_dump(mode="json"), sort_keys=True).encode()).hexdigest()

    @property
    def title(self) -> str:
        """The steps in one line."""
        return " + ".join(step.title for step in self.steps)

    def to_yaml(self) -> str:
        """The plan as YAML that `Plan.load` reads back to an equal plan."""
        return yaml.safe_dump(self.model_dump(mode="json", exclude_defaults=True), sort_keys=False, allow_unicode=True)

    @classmethod
    def load(cls, path: str | Path, changes: Mapping[str, Any] | None = None) -> Self:
        """From a YAML file; `changes` replace keys of the plan, of its settings one by one.

        Raises: InputError naming every problem of form.
        """
        data, changed = _read(Path(path)), dict(changes or {})
        if isinstance(own := data.get("settings"), dict) and "settings" in changed:
            changed["settings"] = {**own, **changed["settings"]}
        return cls.of({**data, **changed}, where=f"plan '{path}'")

    @classmethod
    def of(cls, data: Mapping[str, Any], *, where: str = "plan") -> Self:
        """From keys and values. Raises: InputError naming every problem of form."""
        try:
            return cls.model_validate(dict(data))
        except InputError as error:
            raise InputError(f"{where}: {error}") from None
        except ValidationError as error:
            # Steps that are none are left out before those that remain are counted: each is a problem of its own.
            found = [p for p in error.errors() if p["type"] != "too_short" or not p["input"]]
            problems = (f"{'.'.join(map(legible, p['loc'])) or 'plan'}: {p['msg']}" for p in found[:20])
            raise InputError(f"{where}:\n  " + "\n  ".join(problems)) from None

    def checked(self) -> list[AnyCompressor]:
        """The compressors, in order.

        Raises: InputError naming every unknown method, parameter out of range, and step that cannot follow another.
        """
        built, problems = [], []
        for number, step in enumerate(self.steps, start=1):
            try:
                built.append(step.build())
            except InputError as error:
                problems.append(f"step {number}: {error}")
        if not problems:
            problems = [
                *_wrong_orders(self.steps, built),
                *_nothing_left(self.steps, built),
                *_wrong_training(self, built),
            ]
        if problems:
            raise InputError("the plan cannot run:\n  " + "\n  ".join(problems))
        return built

    def recovery_of(self, number: int, built: AnyCompressor) -> int:
        """Optimizer steps of recovery after step `number`, from 0."""
        asked = self.steps[number].recover
        return asked if asked is not None else self.recover if trainable(built) else 0

    def allowed_loss(self, number: int) -> float | None:
        """What step `number`, from 0, may lose of the score."""
        own = self.steps[number].most_lost
        return self.most_lost if own is None else own


def step_of(text: str) -> PlanStep:
    """`--with NAME[:KEY=VALUE,…]` as a step. Raises: InputError where it is none."""
    return Plan.of({"steps": [_named(text, "--with")]}, where=f"--with '{legible(text)}'").steps[0]


def _named(text: str, where: str) -> dict[str, Any]:
    """Method and parameters of `NAME:KEY=VALUE,…`, which a plan may also say in a line. Raises: InputError."""
    name, _, rest = text.partition(":")
    params: dict[str, Any] = {}
    for pair in _pairs(rest):
        key, equals, value = pair.partition("=")
        if not equals or not key.strip():
            raise InputError(f"{where} '{legible(text)}': expected NAME or NAME:KEY=VALUE,…, as prune-heads:keep=0.5")
        if key.strip() in params:
            raise InputError(f"{where} '{legible(text)}': '{legible(key.strip())}' stands there twice")
        try:
            params[key.strip()] = scalar(value.strip())
        except yaml.YAMLError:
            raise InputError(f"{where} '{legible(text)}': the value '{legible(value)}' is not valid YAML") from None
    if not name.strip():
        raise InputError(f"{where} '{legible(text)}': names no method; see: affinage list compressors")
    return {"method": name.strip(), "params": params}


def trainable(built: AnyCompressor) -> bool:
    """Whether recovery training can follow: gradients reach the weights that the method leaves."""
    return isinstance(built, TrainedCompressor) or built.traits.trains


def _pairs(text: str) -> Iterable[str]:
    """Parts between commas that stand in no brackets."""
    depth, part = 0, ""
    for character in text:
        depth += (character in "[{") - (character in "]}")
        if character == "," and depth == 0:
            yield part
            part = ""
        else:
            part += character
    if part:
        yield part


def _wrong_orders(steps: tuple[PlanStep, ...], built: list[AnyCompressor]) -> Iterable[str]:
    for late, second in enumerate(built):
        for early, first in enumerate(built[:late]):
            if may_follow(first.traits, second.traits):
                continue
            left = ", ".join(sorted(first.traits.leaves - second.traits.takes))
            ours, theirs = steps[late].method, steps[early].method
            cure = (
                f"put '{ours}' before '{theirs}'"
                if may_follow(second.traits, first.traits)
                else "leave one of the two out"
            )
            yield (
                f"step {late + 1}, '{ours}', cannot come after step {early + 1}, '{theirs}', which leaves weights "
                f"{left}: '{ours}' takes {', '.join(sorted(second.traits.takes))}; {cure}"
            )


def _nothing_left(steps: tuple[PlanStep, ...], built: list[AnyCompressor]) -> Iterable[str]:
    used_up: dict[Side, int] = {}
    for late, made in enumerate(built):
        if not isinstance(made, ReplacesParts):
            continue
        if made.works_on <= used_up.keys():
            ours, by = steps[late].method, sorted({used_up[side] for side in made.works_on})
            theirs = " and ".join(f"step {early + 1}, '{steps[early].method}'," for early in by)
            yield (
                f"step {late + 1}, '{ours}', cannot come after {theirs} which leaves nothing whole of what '{ours}' "
                f"works on ({', '.join(sorted(made.works_on))}): give each parts of its own (parts=linears, attention, "
                "feed-forward or embeddings), or leave one of the two out"
            )
        for side in made.uses_up:
            used_up.setdefault(side, late)


def _wrong_training(plan: Plan, built: list[AnyCompressor]) -> Iterable[str]:
    for number, (step, made) in enumerate(zip(plan.steps, built, strict=True)):
        if isinstance(made, TrainedCompressor) and not plan.recovery_of(number, made):
            yield (
                f"step {number + 1}, '{step.method}', happens during training: say how many optimizer steps with "
                "recover (--recover N)"
            )
        if step.recover and not trainable(made):
            yield (
                f"step {number + 1}, '{step.method}', leaves packed integers, which no gradient reaches: leave recover "
                "out, train before it, or take a quantization-aware method"
            )


def _read(path: Path) -> dict[str, Any]:
    try:
        if not path.is_file():
            raise InputError(f"plan file '{path}' {'is no file' if path.exists() else 'does not exist'}")
        with path.open("rb") as stream:
            content = stream.read(_MAX_PLAN_BYTES + 1)
        if len(content) > _MAX_PLAN_BYTES:
            raise InputError(f"plan file '{path}' has more than {_MAX_PLAN_BYTES:,} bytes: that is no plan")
        data = parse(content.decode("utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"plan file '{path}' cannot be read: {getattr(error, 'strerror', None) or error}") from None
    except yaml.YAMLError as error:
        raise InputError(f"plan '{path}' is not valid YAML: {error}") from None
    if not isinstance(data, dict):
        raise InputError(f"plan '{path}': expected keys such as steps, recover; got {type(data).__name__}")
    return data
