"""The planner's arithmetic against numbers worked out by hand, torch's FLOP counter and the tensors autograd keeps."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, kl_div, log_softmax
from torch.utils.flop_counter import FlopCounterMode
from transformers import (
    AutoConfig,
    AutoModelForMaskedLM,
    BertConfig,
    BertForMaskedLM,
    CamembertConfig,
    CamembertForMaskedLM,
    DistilBertConfig,
    DistilBertForMaskedLM,
    PreTrainedModel,
)

from affinage.losses.vocabulary import CHUNK_ENTRIES
from affinage.training.hardware import MACHINES, machine
from affinage.training.plan import Shape, Workload, estimate, flops_per_token, layer_activation_bytes, memory
from affinage.training.shapes import SHAPES, shape

TEACHER = SHAPES["camembert-base"]
STUDENT = SHAPES["distilcamembert-base"]
DISTILCAMEMBERT = Workload(
    student=STUDENT,
    teacher=TEACHER,
    head_share=1.0,
    teacher_head=True,
    row_length=128,
    rows=48,
    accumulation=1,
    bf16=True,
    dropout=True,
    chunk_entries=CHUNK_ENTRIES,
)


def test_a_token_of_distilcamembert_by_hand() -> None:
    """12 layers of width 768 have 84,934,656 weights in matrix products; attention over 128 tokens adds 4,718,592."""
    flops = flops_per_token(DISTILCAMEMBERT)
    assert flops.teacher == 2 * 84_934_656 + 4_718_592 == 174_587_904
    assert flops.student == 3 * 87_293_952 == 261_881_856
    # the head: 2 x 768 x (768 + 32,005), once by the teacher, three times by the student
    assert flops.head == 4 * 50_339_328 == 201_357_312
    assert flops.total == 637_827_072


def test_pre_training_by_hand() -> None:
    """The six layers of width 384 that `mini-camembert` trains, logits at the 15 % that are masked."""
    small = shape("layers=6,hidden=384,vocab=16000,heads=12")
    work = replace(DISTILCAMEMBERT, student=small, teacher=None, teacher_head=False, head_share=0.15)
    assert small.linear_weights == 6 * 12 * 384**2 == 10_616_832
    flops = flops_per_token(work)
    assert flops.student == 3 * (2 * 10_616_832 + 4 * 6 * 128 * 384) == 67_239_936
    assert flops.head == pytest.approx(0.15 * 3 * 2 * 384 * (384 + 16_000))
    assert flops.teacher == 0


@pytest.mark.parametrize("name", SHAPES)
def test_parameters_are_those_of_the_stock_model(name: str) -> None:
    sizes = SHAPES[name]
    common = {"vocab_size": sizes.vocab_size, "max_position_embeddings": sizes.positions}
    if sizes.token_types == 0:
        names = ("n_layers", "dim", "n_heads", "hidden_dim")
        architecture = "distilbert"
    else:
        names = ("num_hidden_layers", "hidden_size", "num_attention_heads", "intermediate_size")
        architecture = "bert" if sizes.token_types == 2 else "camembert"
        common["type_vocab_size"] = sizes.token_types
    values = (sizes.layers, sizes.hidden_size, sizes.heads, sizes.intermediate_size)
    config = AutoConfig.for_model(architecture, **common, **dict(zip(names, values, strict=True)))
    with torch.device("meta"):
        model = AutoModelForMaskedLM.from_config(config)
    assert sizes.parameters == sum(p.numel() for p in model.parameters())


def test_the_article_s_models() -> None:
    """Delestre & Amar 2022: 110,030,592 and 67,503,360 by equation 9; then 768 for token types, and the head."""
    head = 768 * 768 + 3 * 768 + 32_005
    assert TEACHER.parameters == 110_030_592 + 768 + head
    assert STUDENT.parameters == 67_503_360 + 768 + head == 68_128_261


TINY = Shape(3, 24, 4, 40, 50, positions=34)
SIZES = {"num_hidden_layers": 3, "hidden_size": 24, "num_attention_heads": 4, "intermediate_size": 40}
PLAIN = {"vocab_size": 50, "attn_implementation": "eager"}


def stock(architecture: str, layers: int) -> PreTrainedModel:
    sizes = SIZES | {"num_hidden_layers": layers}
    if architecture == "bert":
        return BertForMaskedLM(BertConfig(**sizes, **PLAIN))
    if architecture == "camembert":
        return CamembertForMaskedLM(CamembertConfig(**sizes, **PLAIN, max_position_embeddings=34, type_vocab_size=1))
    values = sizes.values()
    names = ("n_layers", "dim", "n_heads", "hidden_dim")
    return DistilBertForMaskedLM(DistilBertConfig(**dict(zip(names, values, strict=True)), **PLAIN))


@pytest.mark.parametrize("architecture", ["bert", "camembert", "distilbert"])
def test_flops_are_what_torch_counts_in_a_plain_step(architecture: str) -> None:
    """Soft labels and masked language model of stock models on every token, as a script would write it."""
    teacher, student = stock(architecture, 5), stock(architecture, 3)
    ids = torch.randint(5, 50, (2, 17))
    with FlopCounterMode(display=False) as counter:
        with torch.no_grad():
            theirs = teacher(ids).logits
        ours = student(ids).logits
        loss = kl_div(log_softmax(ours, -1), log_softmax(theirs, -1), log_target=True, reduction="batchmean")
        (loss + cross_entropy(ours.flatten(0, 1), ids.flatten())).backward()
    work = replace(DISTILCAMEMBERT, student=TINY, teacher=replace(TINY, layers=5), row_length=17)
    assert flops_per_token(work).total * ids.numel() == counter.get_total_flops()


def test_flops_with_logits_at_masked_tokens_alone() -> None:
    student = stock("camembert", 3)
    ids = torch.randint(5, 50, (2, 20))
    masked = torch.arange(20)[None].expand(2, -1) % 4 == 0
    with FlopCounterMode(display=False) as counter:
        hidden = student.base_model(ids).last_hidden_state
        cross_entropy(student.lm_head(hidden[masked]), ids[masked]).backward()  # type: ignore[operator]
    work = replace(DISTILCAMEMBERT, student=TINY, teacher=None, teacher_head=False, head_share=0.25, row_length=20)
    assert flops_per_token(work).total * ids.numel() == counter.get_total_flops()


@pytest.mark.parametrize("dropout", [0.0, 0.1])
@pytest.mark.parametrize("bf16", [False, True])
def test_activations_are_the_tensors_that_autograd_keeps(bf16: bool, dropout: float) -> None:
    """On a CPU, where dropout has no fused attention: what a third layer adds to two."""
    tokens, linear = 2 * 24, 4 * 32**2 + 2 * 32 * 96
    added = kept_bytes(3, bf16, dropout) - kept_bytes(2, bf16, dropout)
    added -= 2 * linear if bf16 else 0  # autocast's copies of the weights are counted by themselves
    expected = layer_activation_bytes(
        Shape(1, 32, 4, 96, 50), row_length=24, bf16=bf16, dropout=bool(dropout), fused_dropout=False
    )
    assert added == tokens * expected


def kept_bytes(layers: int, bf16: bool, dropout: float) -> int:
    """Bytes that the encoder's graph holds, parameters not counted, in rows of two texts of 12 tokens."""
    config = CamembertConfig(
        num_hidden_layers=layers,
        hidden_size=32,
        num_attention_heads=4,
        intermediate_size=96,
        vocab_size=50,
        max_position_embeddings=64,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
        attn_implementation="sdpa",
    )
    model = CamembertForMaskedLM(config).train()
    parameters = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept.setdefault(tensor.untyped_storage().data_ptr(), tensor)
        return tensor

    segments = (torch.arange(24) // 12)[None].expand(2, -1)
    mask = (segments[:, :, None] == segments[:, None, :])[:, None]
    with (
        torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
        torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16),
    ):
        model.base_model(input_ids=torch.randint(5, 50, (2, 24)), attention_mask=mask)
    return sum(t.untyped_storage().nbytes() for at, t in kept.items() if at not in parameters)


def test_korthikanti_s_34_bytes() -> None:
    """arXiv:2205.05198: 34 h a token in 16 bits. Ours: both norms' inputs in 32 bits, two more casts of the input."""
    width = 64
    wide = Shape(1, width, 0, 4 * width, 50)
    ours = layer_activation_bytes(wide, row_length=0, bf16=True, dropout=True) - 16
    assert ours == 34 * width + 2 * 2 * width + 2 * 2 * width


def test_memory_by_hand() -> None:
    """The states of AdamW in float32 are 16 bytes a parameter; a frozen teacher 4."""
    found = memory(DISTILCAMEMBERT)
    assert found.weights + found.gradients + found.optimizer == 16 * 68_128_261
    assert found.teacher == 4 * 110_655_493
    projection = 768 * 32_005
    assert found.copies == 4 * projection + 2 * (42_467_328 + projection)
    assert memory(DISTILCAMEMBERT, devices=8).copies - found.copies == 4 * 68_128_261
    assert found.logits == 6 * 4 * 8_000_000
    layer = 24 * 768 + 4 * 3072 + 16 + 4 * 12 + 2 * 128 + 2 * 768
    teacher = 8 * 768 + 2 * (4 * 768 + 2 * 3072)
    assert found.activations == 6144 * (6 * layer + 24 * 768 + teacher)
    few = memory(replace(DISTILCAMEMBERT, rows=1, head_share=0.25))
    assert few.logits == 6 * 4 * 32 * 32_005
    assert memory(replace(DISTILCAMEMBERT, teacher=None)).teacher == 0


def test_hours_by_hand() -> None:
    """1e18 operations on 8 devices of 300e12 at a half: 833.3 seconds."""
    eight = machine("flops=300e12,memory=80GB,devices=8")
    tokens = 1e18 / 637_827_072
    found = estimate(DISTILCAMEMBERT, eight, tokens=tokens, utilisation=0.5)
    assert found.hours == pytest.approx(1e18 / 1.2e15 / 3600)
    assert found.flops == pytest.approx(1e18)
    assert found.tokens_per_second == pytest.approx(1.2e15 / 637_827_072)
    assert found.steps == round(tokens / (48 * 128 * 8))
    assert found.fits
    assert not estimate(DISTILCAMEMBERT, replace(eight, memory_bytes=1e9), tokens=1).fits


def test_every_machine_says_where_its_figures_come_from() -> None:
    for known in MACHINES.values():
        assert known.source
        assert known.bf16_flops is None or known.bf16_flops > known.fp32_flops
    assert machine("8xA100").peak("auto") == 8 * 312e12
    assert machine("v100").peak("auto") == 15.7e12, "it has no bfloat16"
    assert machine("a100").peak("fp32") == 19.5e12


def test_speed_md_s_step_is_planned_within_a_fifth() -> None:
    """Measured with the levers put together on two cores: 2,318 tokens/s at 430 GFLOP/s, which is 46 % of the peak."""
    small: Any = shape("layers=12,hidden=256,vocab=16000")
    work = replace(DISTILCAMEMBERT, teacher=small, student=replace(small, layers=6))
    planned = estimate(work, MACHINES["cpu-2-cores"], tokens=1)
    assert planned.tokens_per_second == pytest.approx(2318, rel=0.2)
