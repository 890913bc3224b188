"""What a finished model folder holds: a model, its tokenizer, recipe, report and card."""

from pathlib import Path

from transformers import PreTrainedModel, PreTrainedTokenizerFast

from affinage.models.layout import usual_class_name
from affinage.models.storage import save_model
from affinage.recipe import Recipe
from affinage.report.card import model_card
from affinage.report.report import Report


def write_model_folder(
    folder: Path,
    *,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    recipe: Recipe,
    report: Report,
    base: str | None = None,
) -> None:
    """Write model, as transformers loads it where it is stock, and tokenizer, recipe, report and card."""
    save_model(model, folder)
    tokenizer.save_pretrained(folder)
    (folder / "recipe.yaml").write_text(recipe.to_yaml(), encoding="utf-8")
    (folder / "report.json").write_text(report.to_json(), encoding="utf-8")
    card = model_card(report, base=base, architecture=usual_class_name(type(model).__name__), recipe=recipe.name)
    (folder / "README.md").write_text(card, encoding="utf-8")
