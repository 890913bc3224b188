"""MobileBERT: a thin student learns layer by layer from one with wide bottlenecks; stock shapes, small ones."""

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch.nn.functional import linear
from transformers import MobileBertConfig, MobileBertForMaskedLM, MobileBertModel, PreTrainedModel

from affinage.distillation.objective import Objective
from affinage.distillation.student import make_student
from affinage.errors import InputError
from affinage.evaluation.footprint import footprint
from affinage.models.build import student_masked_lm
from affinage.models.encoder import forward_masked_lm
from affinage.models.freezing import frozen_below
from affinage.models.layout import widths_of
from affinage.recipe import Recipe, StudentSpec, recipe_text
from affinage.signals import Batch
from affinage.workflows.distil import distil
from affinage.workflows.pretrain import pretrain
from tiny import save_tiny, tiny_model
from tiny_data import ON_TEXT, SHAPE, write_corpus

THIN = {"intra_bottleneck_size": 8, "num_feedforward_networks": 2}
SPEC = StudentSpec(num_hidden_layers=2, intermediate_size=20, init="embeddings", config=THIN)
IDS = torch.randint(5, 100, (3, 12), generator=torch.Generator().manual_seed(1))


def teacher_of(layers: int = 2) -> PreTrainedModel:
    return tiny_model("mobilebert", num_hidden_layers=layers, initializer_range=0.3)


def of_layer(name: str) -> int | None:
    """The layer a weight belongs to; None: none."""
    return int(name.split(".")[3]) if ".layer." in name else None


def test_signals_are_the_stock_models() -> None:
    for model in (teacher_of(), make_student(teacher_of(), SPEC)[0].eval()):
        batch = Batch(input_ids=IDS, mask=torch.ones_like(IDS, dtype=torch.bool))
        found = forward_masked_lm(model, batch, frozenset({"head", "hidden_states", "queries", "keys", "values"}))
        stock = model(IDS, output_hidden_states=True)
        assert found.head_input is not None and found.head_weight is not None and found.hidden_states is not None
        logits = linear(found.head_input, found.head_weight, found.head_bias)
        torch.testing.assert_close(logits, stock.logits.flatten(0, 1))
        assert len(found.hidden_states) == 3
        torch.testing.assert_close(found.hidden_states, tuple(stock.hidden_states))
        assert found.queries is not None and len(found.queries) == 2
        assert found.queries[0].shape == (3, 2, 12, model.config.intra_bottleneck_size // 2)


def test_a_thin_student_has_the_teachers_embeddings_and_head_and_layers_of_its_own() -> None:
    teacher = teacher_of()
    student, layers = make_student(teacher, SPEC)
    assert layers == () and isinstance(student, MobileBertForMaskedLM)
    assert student.config.true_hidden_size == 8 and teacher.config.true_hidden_size == 24
    assert student.num_parameters() < teacher.num_parameters()
    theirs = teacher.state_dict()
    for name, value in student.state_dict().items():
        if of_layer(name) is None:
            assert torch.equal(value, theirs[name]), name
        elif name.endswith("query.weight"):
            assert value.shape == (8, 8)


def test_the_recipes_student_counts_as_published() -> None:
    """24,844,544 parameters with the pooler, 512 * 512 + 512, which a masked language model has not."""
    wide = MobileBertConfig(
        intra_bottleneck_size=1024, num_feedforward_networks=1, intermediate_size=4096, normalization_type="layer_norm"
    )
    spec = Recipe.load("mobilebert").student
    with torch.device("meta"):
        teacher = MobileBertForMaskedLM(wide)
        student = student_masked_lm(teacher, spec, depth=24, widths={**widths_of(wide), "intermediate_size": 512})
        assert MobileBertModel(MobileBertConfig()).num_parameters() == 24_844_544
    assert student.base_model.num_parameters() == 24_844_544 - 512 * 513
    assert student.config.to_dict().items() >= {"normalization_type": "no_norm", "true_hidden_size": 128}.items()


@pytest.mark.parametrize("freeze", [None, 0, 1])
def test_below_a_layer_nothing_changes_and_above_it_nothing_is_asked(freeze: int | None) -> None:
    teacher = teacher_of()
    student, _ = make_student(teacher, SPEC)
    layer = freeze or 0
    stage = Recipe.load("mobilebert").stages[layer]
    objective = Objective(student, stage.losses, teacher=teacher)
    before = {name: value.clone() for name, value in student.state_dict().items()}
    values = []
    with frozen_below(student, freeze):
        optimizer = torch.optim.AdamW([p for p in student.parameters() if p.requires_grad], lr=0.01)
        for _ in range(12):
            value, _ = objective(IDS, torch.ones_like(IDS), torch.full_like(IDS, -100))
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
            values.append(value.item())
    assert values[-1] < 0.9 * values[0]
    assert all(parameter.requires_grad for parameter in student.parameters())
    changed = {of_layer(name) for name, value in student.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == ({None, 0} if freeze is None else {freeze})


def test_the_recipe_goes_through_the_layers_and_then_distils(tmp_path: Path) -> None:
    recipe: dict[str, Any] = yaml.safe_load(recipe_text("mobilebert"))
    assert [stage.get("freeze", 0) for stage in recipe["stages"][:24]] == list(range(24))
    recipe["stages"] = [*recipe["stages"][:2], recipe["stages"][-1]]
    recipe["student"] = SPEC.model_dump(mode="json")
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")
    teacher = save_tiny(tmp_path, "mobilebert", num_hidden_layers=2)
    asked = {**ON_TEXT, "training.gradient_accumulation_steps": "1"}
    corpus = write_corpus(tmp_path / "corpus", lines=120)
    report = distil(
        teacher, corpus=[corpus], out=tmp_path / "out", recipe=tmp_path / "small.yaml", overrides=asked, quiet=True
    )
    student = MobileBertForMaskedLM.from_pretrained(tmp_path / "out")
    assert student.config.intra_bottleneck_size == 8 and report.models[0].layers == 2
    assert report.training is not None and report.training.steps == 6


def test_operations_are_those_of_every_matrix() -> None:
    student, _ = make_student(teacher_of(), SPEC)
    # in 16 -> 8 twice, q and k 8 x 8, v 16 x 8, out 8 x 8, two networks 8 -> 20 -> 8, back 8 -> 16
    matrices = 2 * (16 * 8) + 2 * 64 + 128 + 64 + 2 * (2 * 160) + 128
    # and, before the layers, three neighbouring embeddings of 4 side by side -> 16
    assert footprint(student, length=10).flops == 2 * (2 * 10 * matrices + 4 * 100 * 8) + 2 * 10 * 3 * 4 * 16


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ({"init": "layers", "config": THIN}, "start at random: set student.init to embeddings or random"),
        ({"init": "embeddings", "config": {"intra_bottleneck": 8}}, "id you mean 'intra_bottleneck_size'"),
        ({"init": "embeddings", "config": {"intra_bottleneck_size": 9}}, "9 is not a multiple of 2 heads"),
        ({"init": "embeddings", "hidden_size": 8}, "student.hidden_size 8 differs from the teacher's 16"),
        ({"init": "importance", "intermediate_size": 8}, "cannot cut the weights of a mobilebert"),
    ],
)
def test_what_cannot_be_made_is_refused(spec: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says):
        make_student(teacher_of(), StudentSpec.model_validate(spec))


@pytest.mark.parametrize("freeze", ["2", "24"])
def test_a_stage_must_leave_a_layer_to_train(freeze: str, tmp_path: Path) -> None:
    teacher, corpus = save_tiny(tmp_path, "camembert"), write_corpus(tmp_path / "corpus", lines=120)
    with pytest.raises(InputError, match=f"freeze: {freeze} of the student's 2 layers would leave none to train"):
        distil(teacher, corpus=[corpus], out=tmp_path / "out", overrides={**ON_TEXT, "freeze": freeze}, quiet=True)


def test_a_number_of_layers_is_for_distillation_and_the_encoder_for_pretraining(tmp_path: Path) -> None:
    teacher, corpus = save_tiny(tmp_path, "camembert"), write_corpus(tmp_path / "corpus", lines=120)
    with pytest.raises(InputError, match="freeze: 'encoder' is for pre-training"):
        distil(teacher, corpus=[corpus], out=tmp_path / "out", overrides={**ON_TEXT, "freeze": "encoder"}, quiet=True)
    with pytest.raises(InputError, match=r"stages\.0\.freeze: a number of layers is for distillation"):
        pretrain([corpus], out=tmp_path / "out", overrides={**ON_TEXT, **SHAPE, "freeze": "1"}, quiet=True)
