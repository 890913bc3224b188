"""What each recipe for raw text does with each family, tried on tiny models; `python tests/pairs.py` writes it down."""

import re
import string
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForMaskedLM, PreTrainedModel
from transformers.utils.logging import disable_progress_bar

from affinage.distillation.objective import Objective
from affinage.distillation.student import make_student
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
    "MobileBERT": Family("mobilebert", {"num_hidden_layers": 2}),
}


def text_recipes() -> list[str]:
    """Packaged recipes with a stage of general distillation."""
    plans = {name: Recipe.load(name) for name in packaged_recipes()}
    return [name for name, plan in plans.items() if plan.kind == "distil" and _text_stage(plan) is not None]


def outcome(recipe: str, label: str, folder: Path) -> str:
    """`YES`, or why the recipe and the family do not go together.

    Raises: AssertionError where they should and do not: no smaller loss after a few steps, or a student that stock
    transformers does not load as it was saved.
    """
    family, plan = FAMILIES[label], Recipe.load(recipe)
    stage = _text_stage(plan)
    assert stage is not None
    teacher = _teacher(family)
    torch.manual_seed(3)
    try:
        student, _ = make_student(teacher, _tiny(plan.student, family))
        objective = Objective(student, [_smaller(loss) for loss in stage.losses], teacher=teacher).eval()
    except InputError as error:
        return re.sub(rf"(?<![\w-]){family.architecture}(?![\w-])", "…", str(error))
    inputs = _rows(family.architecture)
    optimizer = torch.optim.AdamW([*student.parameters(), *objective.loss_parameters().values()], lr=2e-3)
    scales = objective.weights / objective.counts(inputs).clamp(min=1)
    losses = []
    for _ in range(STEPS):
        optimizer.zero_grad()
        loss, _ = objective(**inputs, scales=scales)
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0], f"{recipe} does not teach a {label} student: {losses}"
    student.save_pretrained(folder)
    loaded = AutoModelForMaskedLM.from_pretrained(folder, dtype=torch.float32).eval()
    ids = inputs["input_ids"][:, :10]
    assert torch.equal(_logits(loaded, ids), _logits(student.eval(), ids)), f"{label} is not loaded as it was saved"
    return YES


def table(cells: Mapping[tuple[str, str], str]) -> str:
    """Markdown: a row a family, a column a recipe; reasons below, each once."""
    recipes = list(dict.fromkeys(recipe for recipe, _ in cells))
    reasons = {why: f"({string.ascii_lowercase[i]})" for i, why in enumerate(dict.fromkeys(_reasons(cells)))}
    lines = [f"| | {' | '.join(f'`{name}`' for name in recipes)} |", "|---|" + "---|" * len(recipes)]
    for label in FAMILIES:
        shown = [reasons.get(cells[recipe, label], YES) for recipe in recipes]
        lines.append(f"| {label} | {' | '.join(shown)} |")
    notes = [f"- {mark} {why}" for why, mark in reasons.items()]
    return "\n".join([*lines, "", *notes])


def in_page() -> str:
    """The table as the docs have it."""
    return PAGE.read_text(encoding="utf-8").partition(BEGIN)[2].partition(END)[0].strip()


def _reasons(cells: Mapping[tuple[str, str], str]) -> Iterator[str]:
    recipes = dict.fromkeys(recipe for recipe, _ in cells)
    yield from (why for label in FAMILIES for recipe in recipes if (why := cells[recipe, label]) != YES)


def _text_stage(plan: Recipe) -> Stage | None:
    return next((stage for stage in plan.stages if getattr(stage, "on", "text") == "text"), None)


def _teacher(family: Family) -> PreTrainedModel:
    model = tiny_model(family.architecture, **family.config)
    random = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=random))
    return model


def _tiny(spec: StudentSpec, family: Family) -> StudentSpec:
    """The recipe's student on the scale of teachers with 4 layers, width 16 and 2 heads."""
    sizes = {"num_hidden_layers": 2, "hidden_size": 8, "num_attention_heads": 2, "intermediate_size": 32}
    asked = {key: size for key, size in sizes.items() if getattr(spec, key) is not None}
    return spec.model_copy(update={**asked, **family.asked})


def _smaller(loss: Component) -> Component:
    """The loss with relation heads and layers that tiny models have."""
    least = {"heads": 4, "teacher_layer": 2}
    params = {key: min(value, least[key]) if key in least else value for key, value in loss.params.items()}  # type: ignore[type-var]
    return loss.model_copy(update={"params": params})


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
    found: Tensor = model(ids, **({"cache": NoCache()} if getattr(model.config, "pre_norm", False) else {})).logits
    return found


def main() -> None:
    disable_progress_bar()
    cells = {}
    for recipe in text_recipes():
        for label in FAMILIES:
            with tempfile.TemporaryDirectory() as folder:
                cells[recipe, label] = outcome(recipe, label, Path(folder))
            sys.stderr.write(f"{recipe}, {label}: {cells[recipe, label]}\n")
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    PAGE.write_text(f"{before}{BEGIN}\n\n{table(cells)}\n\n{END}{rest.partition(END)[2]}", encoding="utf-8")


if __name__ == "__main__":
    main()
