"""What each recipe does with each family, tried on tiny models; `python tests/pairs.py` writes it down."""

import re
import string
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForMaskedLM, AutoModelForSequenceClassification, PreTrainedModel
from transformers.utils.logging import disable_progress_bar

from affinage.distillation.objective import Objective
from affinage.distillation.student import make_student
from affinage.distillation.task_objective import TaskObjective
from affinage.distillation.task_student import make_task_student
from affinage.errors import InputError
from affinage.models.packed import NoCache
from affinage.recipe import Component, Recipe, Stage, StudentSpec, packaged_recipes
from affinage.signals import IGNORED
from tiny import SENTENCES, tiny_model, tiny_tokenizer

PAGE = Path(__file__).parents[1] / "docs" / "families.md"
BEGIN, END = "<!-- made by `python tests/pairs.py` -->", "<!-- end of what is made -->"
YES = "yes"
STEPS = 6


@dataclass(frozen=True)
class Family:
    """A row of the table: a tiny teacher, and what is asked of its student beside the recipe."""

    architecture: str
    config: Mapping[str, Any] = field(default_factory=dict)
    asked: Mapping[str, Any] = field(default_factory=dict)


FAMILIES = {
    "BERT": Family("bert"),
    "RoBERTa": Family("roberta"),
    "CamemBERT": Family("camembert"),
    "XLM-RoBERTa": Family("xlm-roberta"),
    "DistilBERT": Family("distilbert"),
    "ELECTRA": Family("electra"),
    "FlauBERT": Family("flaubert"),
    "FlauBERT, `pre_norm`": Family("flaubert", {"pre_norm": True}),
    "ALBERT": Family("albert"),
    "ALBERT, student a BERT at random": Family("albert", asked={"architecture": "bert", "init": "random"}),
    "DeBERTa-v2": Family("deberta-v2"),
    "ModernBERT": Family("modernbert"),
    "EuroBERT": Family("eurobert"),
    "MobileBERT": Family("mobilebert", {"normalization_type": "layer_norm"}),
}


def recipes() -> list[str]:
    """The packaged recipes for distillation."""
    return [name for name in packaged_recipes() if Recipe.load(name).kind == "distil"]


def outcome(recipe: str, label: str, folder: Path) -> str:
    """`YES`, or why the recipe and the family do not go together.

    Raises: AssertionError where they should and do not: no smaller loss after a few steps, or a student that stock
    transformers does not load as it was saved.
    """
    family, plan = FAMILIES[label], Recipe.load(recipe)
    torch.manual_seed(3)
    try:
        for on in ("text", "task"):
            stages = [stage for stage in plan.stages if stage.on == on]
            if student := _taught(plan, stages[:2] + stages[2:][-1:], family, label):
                student.save_pretrained(folder / on)
                auto_class = {"text": AutoModelForMaskedLM, "task": AutoModelForSequenceClassification}[on]
                loaded = auto_class.from_pretrained(folder / on, dtype=torch.float32).eval()
                ids = _rows(family.architecture)["input_ids"][:, :10]
                assert torch.equal(_logits(loaded, ids), _logits(student, ids)), (
                    f"{label} is not loaded as it was saved"
                )
    except InputError as error:
        return re.sub(rf"(?<![\w-]){family.architecture}(?![\w-])", "…", str(error))
    return YES


def _taught(plan: Recipe, stages: Sequence[Stage], family: Family, label: str) -> PreTrainedModel | None:
    """The student after a few steps of each stage; None without stages. An assistant teaches the stages after its own.

    Raises: InputError where something does not fit, AssertionError where a loss does not fall.
    """
    student, on_task = None, any(stage.on == "task" for stage in stages)
    teacher = _teacher(family, "sequence" if on_task else "mlm")
    inputs = (_task_rows if on_task else _rows)(family.architecture)
    for stage in stages:
        made = student
        if stage.assistant is not None or student is None:
            spec = _tiny(stage.assistant or plan.student, family)
            made, _ = make_task_student(teacher, spec, "sequence") if on_task else make_student(teacher, spec)
            student = made if stage.assistant is None else None
        assert made is not None
        losses = [_smaller(loss) for loss in stage.losses]
        objective: Objective = (
            TaskObjective(made, losses, teachers=[teacher]) if on_task else Objective(made, losses, teacher=teacher)
        )
        found = _steps(objective.eval(), inputs)
        assert min(found[1:]) < found[0], f"{plan.name}, {stage.name}: a {label} student learns nothing: {found}"
        if stage.assistant is not None:
            teacher = made
    return student


def _steps(objective: Objective, inputs: dict[str, Tensor]) -> list[float]:
    """The loss before each step."""
    parameters = [p for p in objective.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=5e-4)
    scales = objective.weights / objective.counts(inputs).clamp(min=1)
    losses = []
    for _ in range(STEPS):
        optimizer.zero_grad()
        loss, _ = objective(**inputs, scales=scales)
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses


def table(cells: Mapping[tuple[str, str], str]) -> str:
    """Markdown: a row a family, a column a recipe; reasons below, each once."""
    columns = list(dict.fromkeys(recipe for recipe, _ in cells))
    reasons = {why: f"({string.ascii_lowercase[i]})" for i, why in enumerate(dict.fromkeys(_reasons(cells)))}
    lines = [f"| | {' | '.join(f'`{name}`' for name in columns)} |", "|---|" + "---|" * len(columns)]
    for label in FAMILIES:
        shown = [reasons.get(cells[recipe, label], YES) for recipe in columns]
        lines.append(f"| {label} | {' | '.join(shown)} |")
    notes = [f"- {mark} {why}" for why, mark in reasons.items()]
    return "\n".join([*lines, "", *notes])


def in_page() -> str:
    """The table as the docs have it."""
    return PAGE.read_text(encoding="utf-8").partition(BEGIN)[2].partition(END)[0].strip()


def _reasons(cells: Mapping[tuple[str, str], str]) -> Iterator[str]:
    columns = dict.fromkeys(recipe for recipe, _ in cells)
    yield from (why for label in FAMILIES for recipe in columns if (why := cells[recipe, label]) != YES)


def _teacher(family: Family, head: str) -> PreTrainedModel:
    model = tiny_model(family.architecture, head, **family.config)
    random = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=random))
    return model


def _tiny(spec: StudentSpec, family: Family) -> StudentSpec:
    """The recipe's student on the scale of teachers with 4 layers, width 16 and 2 heads instead of 12, 768 and 12."""
    asked: dict[str, Any] = dict(family.asked)
    if spec.num_hidden_layers is not None:
        asked["num_hidden_layers"] = min(4, max(1, spec.num_hidden_layers // 3))
    if spec.hidden_size is not None:
        asked["hidden_size"] = 8
    if spec.num_attention_heads is not None:
        asked["num_attention_heads"] = 2
    if spec.intermediate_size is not None:
        asked["intermediate_size"] = spec.intermediate_size * 8 // spec.hidden_size if spec.hidden_size else 32
    if "intra_bottleneck_size" in spec.config:
        asked["config"] = {**spec.config, "intra_bottleneck_size": 8}
    return spec.model_copy(update=asked)


def _smaller(loss: Component) -> Component:
    """The loss with relation heads and layers that tiny models have."""
    most = {"heads": 4, "teacher_layer": 2, "student_layer": 2, "layer": 2}
    params: dict[str, Any] = dict(loss.params)
    for key in params.keys() & most.keys():
        params[key] = min(params[key], most[key])
    return loss.model_copy(update={"params": params})


def _task_rows(architecture: str) -> dict[str, Tensor]:
    """Four short texts with labels, as `to_task_batch` takes them."""
    tokenizer = tiny_tokenizer(architecture)
    texts = [tokenizer(text).input_ids[: 8 + i] for i, text in enumerate(SENTENCES[:4])]
    ids = torch.full((4, 12), int(tokenizer.pad_token_id))
    for i, text in enumerate(texts):
        ids[i, : len(text)] = torch.tensor(text)
    mask = torch.arange(12) < torch.tensor([[len(text)] for text in texts])
    return {"input_ids": ids, "attention_mask": mask.long(), "labels": torch.tensor([0, 1, 1, 0])}


def _rows(architecture: str) -> dict[str, Tensor]:
    """Two packed rows of several texts, every fifth token to be guessed."""
    tokenizer = tiny_tokenizer(architecture)
    rows = []
    for start in (0, 5):
        texts = [tokenizer(text).input_ids[:15] for text in SENTENCES[start : start + 3]]
        ids = torch.tensor([piece for text in texts for piece in text])
        segments = torch.tensor([number for number, text in enumerate(texts, 1) for _ in text])
        rows.append((ids, segments))
    length = max(len(ids) for ids, _ in rows) + 2
    input_ids = torch.full((2, length), int(tokenizer.pad_token_id))
    segments = torch.zeros(2, length, dtype=torch.long)
    for row, (ids, numbers) in enumerate(rows):
        input_ids[row, : len(ids)], segments[row, : len(ids)] = ids, numbers
    guessed = (segments > 0) & (torch.arange(length) % 5 == 2)
    labels = torch.where(guessed, input_ids, IGNORED)
    return {
        "input_ids": torch.where(guessed, int(tokenizer.mask_token_id), input_ids),
        "segments": segments,
        "labels": labels,
    }


@torch.no_grad()
def _logits(model: PreTrainedModel, ids: Tensor) -> Tensor:
    more = {"cache": NoCache()} if getattr(model.config, "pre_norm", False) else {}
    found: Tensor = model.eval()(ids, **more).logits
    return found


def main() -> None:
    disable_progress_bar()
    cells = {}
    for recipe in recipes():
        for label in FAMILIES:
            with tempfile.TemporaryDirectory() as folder:
                cells[recipe, label] = outcome(recipe, label, Path(folder))
            sys.stderr.write(f"{recipe}, {label}: {cells[recipe, label]}\n")
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    PAGE.write_text(f"{before}{BEGIN}\n\n{table(cells)}\n\n{END}{rest.partition(END)[2]}", encoding="utf-8")


if __name__ == "__main__":
    main()
