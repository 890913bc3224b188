"""The papers' recipes on a tiny teacher: what comes out, what it starts from, and that stock transformers loads it."""

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForMaskedLM, DistilBertForMaskedLM, PreTrainedModel

from affinage.errors import InputError
from affinage.models.checkpoint import load_masked_lm
from affinage.recipe import Recipe
from affinage.workflows.distil import distil
from tiny import save_tiny
from tiny_data import ON_TEXT, write_corpus

NARROW = {"student.hidden_size": "8", "student.num_attention_heads": "2", "student.intermediate_size": "12"}
RELATION_HEADS = {f"losses.{i}.params.heads": "4" for i in range(3)}
# recipe, teacher, overrides -> class, layers, width, does it start from the teacher's layers
CASES = {
    "distilbert": ("bert", {}, "DistilBertForMaskedLM", 2, 16),
    "distilroberta": ("roberta", {}, "RobertaForMaskedLM", 2, 16),
    "tinybert-4": ("bert", NARROW, "BertForMaskedLM", 4, 8),
    "tinybert-6": ("camembert", {}, "CamembertForMaskedLM", 2, 16),
    "minilm": ("xlm-roberta", {}, "XLMRobertaForMaskedLM", 2, 16),
    "minilmv2": (
        "bert",
        {**RELATION_HEADS, **NARROW, "student.num_attention_heads": "1", "student.init": "svd"},
        "BertForMaskedLM",
        2,
        8,
    ),
}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("text") / "corpus", lines=120)


@pytest.mark.parametrize("name", CASES)
def test_a_student_of_the_papers_shape_in_stock_classes(name: str, corpus: Path, tmp_path: Path) -> None:
    family, overrides, expected, layers, width = CASES[name]
    teacher = save_tiny(tmp_path, family)
    asked = {**ON_TEXT, "training.gradient_accumulation_steps": "1", **overrides}
    report = distil(teacher, corpus=[corpus], out=tmp_path / "out", recipe=name, overrides=asked, quiet=True)
    student: PreTrainedModel = AutoModelForMaskedLM.from_pretrained(tmp_path / "out")
    assert type(student).__name__ == expected
    assert (student.config.num_hidden_layers, student.config.hidden_size) == (layers, width)
    assert not any("map" in key for key in student.state_dict())  # what the losses train stays with them
    assert report.training is not None
    assert {loss.name for loss in Recipe.load(name).stages[0].losses} < set(report.training.losses)
    ours, theirs = (model.get_input_embeddings().weight for model in (student, load_masked_lm(teacher)[0]))
    alike = ours.shape == theirs.shape and bool(torch.cosine_similarity(ours, theirs, dim=-1).mean() > 0.9)
    assert alike == (width == 16)


def test_tinyberts_general_stage_as_printed_and_on_text_without_masks(corpus: Path, tmp_path: Path) -> None:
    """Random layers, as the paper starts; every token as it was, as in the second release."""
    teacher = save_tiny(tmp_path, "bert")
    asked = {**ON_TEXT, "training.gradient_accumulation_steps": "1", "training.warmup": "0"}
    variants = {
        "random": {"student.init": "random"},
        "unmasked": {"masking.mask": "0", "masking.random": "0"},
        "plain": {},
    }
    for name, given in variants.items():
        distil(teacher, corpus=[corpus], out=tmp_path / name, recipe="tinybert-6", overrides={**asked, **given})
    random, unmasked, plain = (
        AutoModelForMaskedLM.from_pretrained(tmp_path / name).get_input_embeddings().weight for name in variants
    )
    theirs = load_masked_lm(teacher)[0].get_input_embeddings().weight
    assert torch.cosine_similarity(plain, theirs, dim=-1).mean() > 0.9
    assert torch.cosine_similarity(random, theirs, dim=-1).mean().abs() < 0.5
    assert not torch.equal(unmasked, plain)


def test_distilbert_has_no_token_types_and_no_pooler(corpus: Path, tmp_path: Path) -> None:
    asked = {**ON_TEXT, "training.gradient_accumulation_steps": "1"}
    distil(save_tiny(tmp_path, "bert"), corpus=[corpus], out=tmp_path / "out", recipe="distilbert", overrides=asked)
    student = DistilBertForMaskedLM.from_pretrained(tmp_path / "out")
    assert not any("token_type" in key or "pooler" in key for key in student.state_dict())


@pytest.mark.parametrize(
    ("name", "family", "overrides", "says"),
    [
        ("distilbert", "roberta", {}, "student.architecture distilbert differs from the teacher's roberta"),
        ("tinybert-4", "bert", {}, "the student has 12, the teacher 2"),
        ("tinybert-4", "bert", {**NARROW, "student.num_hidden_layers": "3"}, "no multiple of the student's 3"),
        ("minilm", "bert", {**NARROW, "student.num_attention_heads": "1", "student.init": "svd"}, "minilmv2"),
        ("minilmv2", "bert", {}, "the student's width 16 is no multiple of 48"),
    ],
)
def test_what_does_not_fit_is_refused_before_training(
    name: str, family: str, overrides: dict[str, str], says: str, corpus: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=says):
        distil(
            save_tiny(tmp_path, family),
            corpus=[corpus],
            out=tmp_path / "out",
            recipe=name,
            overrides={**ON_TEXT, **overrides},
        )
    assert not (tmp_path / "out").exists()
