"""Figures, hardware and shapes as people write them."""

import pytest

from affinage.errors import InputError
from affinage.training.hardware import machine, published
from affinage.training.quantities import count_of, shown_bytes, shown_flops, shown_hours
from affinage.training.shapes import SHAPES, shape


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("500000", 500_000),
        ("1,000,000", 1e6),
        ("10M", 10e6),
        ("32.7B", 32.7e9),
        ("1e10", 1e10),
        ("2t", 2e12),
        ("138GB", 138e9),
        ("24 GiB", 24 * 2**30),
        ("16b", 16e9),
    ],
)
def test_counts(text: str, value: float) -> None:
    assert count_of(text, name="--tokens") == pytest.approx(value)


@pytest.mark.parametrize("text", ["", "0", "-3", "ten", "1e999", "10X", "B", "1.2.3", "nan"])
def test_what_is_no_count(text: str) -> None:
    with pytest.raises(InputError, match=r"--tokens '.*': expected a number above 0"):
        count_of(text, name="--tokens")


@pytest.mark.parametrize(
    ("hours", "said"),
    [(0.001, "4 seconds"), (0.5, "30.0 minutes"), (5.75, "5.8 hours"), (36, "36.0 hours"), (432, "18.0 days")],
)
def test_hours(hours: float, said: str) -> None:
    assert shown_hours(hours) == said


def test_bytes_and_operations() -> None:
    assert (shown_bytes(17.16e9), shown_bytes(903e6)) == ("17.2 GB", "903 MB")
    assert (shown_flops(637.83e6), shown_flops(2.1e19), shown_flops(0)) == ("637.8 MFLOP", "2.10e+19 FLOP", "0 FLOP")


def test_hardware() -> None:
    assert (machine("8xA100").devices, machine("8xA100").name) == (8, "8 × NVIDIA A100 SXM 80 GB")
    own = machine("flops=300e12, memory=80GB, devices=4")
    assert (own.peak("auto"), own.memory_bytes, own.devices) == (1.2e15, 80e9, 4)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("a10O", "unknown hardware 'a10O'. Did you mean 'a100'?"),
        ("0xa100", "expected 1 to"),
        ("flops=1e12", "missing: memory"),
        ("flops=1e12,memory=much", "--hardware memory 'much'"),
        ("flops=1e12,memory=1e9,device=3", "Did you mean 'devices'?"),
        ("flops=1e12,", "expected key=value"),
    ],
)
def test_hardware_that_cannot_be(given: str, said: str) -> None:
    with pytest.raises(InputError) as caught:
        machine(given)
    assert said in str(caught.value)


def test_bf16_is_refused_where_there_is_none() -> None:
    with pytest.raises(InputError, match=r"training\.precision bf16: NVIDIA T4 does not compute in bfloat16"):
        machine("t4").peak("bf16")


@pytest.mark.parametrize(
    ("driver", "known"),
    [
        ("NVIDIA A100-SXM4-80GB", "a100"),
        ("NVIDIA H100 80GB HBM3", "h100"),
        ("NVIDIA H200", "h200"),
        ("Tesla T4", "t4"),
        ("Tesla V100-SXM2-32GB", "v100"),
        ("NVIDIA TITAN RTX", "titan-rtx"),
        ("NVIDIA H100 PCIe", None),
        ("NVIDIA H200 NVL", None),
        ("NVIDIA GeForce RTX 4090", None),
    ],
)
def test_the_driver_s_name(driver: str, known: str | None) -> None:
    assert published(driver) == (None if known is None else machine(known))


def test_shapes() -> None:
    assert shape("CamemBERT-base") == SHAPES["camembert-base"]
    assert shape("layers=12,hidden=768,intermediate=3072,heads=12,vocab=32005") == SHAPES["camembert-base"]
    assert shape("layers=6,hidden=768,vocab=30522,positions=512,types=0") == SHAPES["distilbert-base"]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("camembert-bas", "Did you mean 'camembert-base'?"),
        ("layers=12,hidden=768", "missing: vocab"),
        ("layers=12,hidden=768,vocabulary=5", "Did you mean 'vocab'?"),
        ("layers=1.5,hidden=768,vocab=9", "expected a whole number"),
        ("layers=0,hidden=768,vocab=9", "expected a number above 0"),
        ("layers=2,hidden=100,heads=3,vocab=9", "not a multiple of heads 3"),
    ],
)
def test_shapes_that_cannot_be(given: str, said: str) -> None:
    with pytest.raises(InputError) as caught:
        shape(given)
    assert said in str(caught.value)
