"""What every registered compressor promises, whoever wrote it, and every kind of module that it puts into a model.

A method with its defaults is applied to tiny models: the argument is left alone, the result runs, is stored and read
back to the last bit, is as big as it says, leaves the forms that its traits name, and comes out the same twice.
"""

from collections.abc import Iterator
from dataclasses import FrozenInstanceError, fields
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.tiny import FAMILIES, SENTENCES, tiny_model, tiny_tokenizer
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel, PreTrainedTokenizerFast

import affinage.compression  # noqa: F401  (registers every compressor)
from affinage.compression.base import (
    NEEDS,
    ChangesTokenizer,
    Resources,
    TrainedCompressor,
    Traits,
    compressors,
    may_follow,
)
from affinage.errors import InputError
from affinage.evaluation.footprint import footprint, model_entry
from affinage.models.checkpoint import load_model
from affinage.models.layout import depth_of
from affinage.models.modules.base import Compressed, module_kinds, rebuilt
from affinage.models.replacing import linears, word_embedding_path
from affinage.models.storage import COMPRESSED, STOCK, STRUCTURE, held_tensors, read_weights, save_model
from affinage.models.structure import structure_of
from affinage.signals import Batch

NAMES = [entry.name for entry in compressors.entries()]
EVERYWHERE = ("bert", "camembert")
"""families that no method may refuse"""


def weights(model: PreTrainedModel) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in held_tensors(model).items()}


@lru_cache
def batches(architecture: str, head: str) -> tuple[Batch, ...]:
    """Five of four rows each, with labels."""
    tokenizer = tiny_tokenizer(architecture)
    made = []
    for number in range(5):
        texts = [SENTENCES[(4 * number + i) % len(SENTENCES)] for i in range(4)]
        found = tokenizer(texts, padding=True, truncation=True, max_length=24, return_tensors="pt")
        ids, mask = found["input_ids"], found["attention_mask"] > 0
        if head == "mlm":
            hidden = torch.zeros_like(mask)
            hidden[:, 2::4] = mask[:, 2::4]
            labels = ids.masked_fill(~hidden, -100)
            batch = Batch(ids.masked_fill(hidden, tokenizer.mask_token_id), mask, mask.long(), labels=labels)
        else:
            batch = Batch(ids, mask, labels=torch.tensor([0, 1, 1, 0]))
        made.append(batch)
    return tuple(made)


def logits(model: PreTrainedModel, batch: Batch) -> Tensor:
    found: Tensor = model(input_ids=batch.input_ids, attention_mask=batch.mask.long()).logits
    return found


def loss(model: PreTrainedModel, batch: Batch) -> Tensor:
    assert batch.labels is not None
    found = logits(model, batch)
    return cross_entropy(found.flatten(0, -2), batch.labels.flatten(), ignore_index=-100)


def score(model: PreTrainedModel) -> float:
    """Differs from model to model, and is as good as any."""
    architecture = model.config.model_type
    head = "sequence" if "Sequence" in type(model).__name__ else "mlm"
    with torch.no_grad():
        return 1 / (1 + float(loss(model, batches(architecture, head)[0])))


def resources(architecture: str, head: str, needs: frozenset[str]) -> Resources:
    """What a method asks for and nothing else."""
    return Resources(
        calibration=batches(architecture, head) if needs & {"calibration", "gradients"} else None,
        loss=loss if "gradients" in needs else None,
        score=score if "score" in needs else None,
        latency=(lambda model: 1.0 + 0.5 * depth_of(model.config)) if "latency" in needs else None,
        texts=SENTENCES[:6] if "texts" in needs else None,
    )


def begun(
    method: Any, model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, given: Resources
) -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
    """The compressed model; of a method that happens during training, the one to be trained."""
    if isinstance(method, ChangesTokenizer):
        return method.apply_with_tokenizer(model, tokenizer, given)
    if isinstance(method, TrainedCompressor):
        return method.prepare(model, given), tokenizer
    return method.apply(model, given), tokenizer


def applied(
    name: str, model: PreTrainedModel, architecture: str, head: str
) -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
    """The compressed model, trained for a few steps where the method asks for it."""
    method = compressors.build(name)
    given = resources(architecture, head, method.needs)
    prepared, tokenizer = begun(method, model, tiny_tokenizer(architecture), given)
    if not isinstance(method, TrainedCompressor):
        return prepared, tokenizer
    assert prepared is not model
    prepared.train()
    trained = [p for p in prepared.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=0.05)
    for step in range(4):
        method.on_step(prepared, step, 4)
        optimizer.zero_grad()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(step)
            loss(prepared, batches(architecture, head)[step]).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return method.finish(prepared), tokenizer


def forms(model: PreTrainedModel, original: PreTrainedModel) -> set[str]:
    """The forms in which weights stand, as far as they can be seen; "factored or shared" where it is one of them."""
    structure, found = structure_of(model), set[str]()
    for path in structure.parts:
        module = model.get_submodule(path)
        if not isinstance(module, Compressed):
            found.add("uneven")
        elif any(not tensor.is_floating_point() for tensor in module.held()):
            found.add("packed" if hasattr(module, "in_features") else "packed-table")
        elif not any(isinstance(inner, Compressed) for inner in module.children()):
            found.add("factored or shared")
    if structure.attributes:
        found.add("uneven")
    if structure.shared:
        found.add("shared")
    if model.config.model_type == "albert" != original.config.model_type:
        found.add("stock-albert")
    maps = [model.get_submodule(path) for path in linears(model)]
    zeros = sum(float((m.weight == 0).sum()) for m in maps if isinstance(m, nn.Linear))
    if zeros > 0.01 * sum(m.weight.numel() for m in maps if isinstance(m, nn.Linear)):
        found.add("sparse")
    return found


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("architecture", "head"), [("bert", "sequence"), ("camembert", "mlm")])
def test_the_promises_hold(name: str, architecture: str, head: str, tmp_path: Path) -> None:
    check(name, architecture, head, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("head", ["mlm", "sequence"])
@pytest.mark.parametrize("architecture", FAMILIES)
def test_they_hold_for_every_family(name: str, architecture: str, head: str, tmp_path: Path) -> None:
    try:
        check(name, architecture, head, tmp_path)
    except InputError as error:
        if architecture in EVERYWHERE:
            raise
        said = str(error)
        assert architecture in said or "head" in said or "already" in said, f"does not say what is wrong: {said}"


def check(name: str, architecture: str, head: str, folder: Path) -> None:
    model = tiny_model(architecture, head)
    before, structure = weights(model), structure_of(model)
    config = model.config.to_dict()
    made, tokenizer = applied(name, model, architecture, head)

    # The argument is untouched.
    assert made is not model and not made.training
    assert structure_of(model) == structure and model.config.to_dict() == config and not model.training
    assert all(torch.equal(tensor, before[key]) for key, tensor in weights(model).items())
    assert all(p.grad is None for p in model.parameters())
    ours = {tensor.data_ptr() for tensor in held_tensors(model).values() if tensor.numel()}
    assert not any(tensor.data_ptr() in ours for tensor in held_tensors(made).values() if tensor.numel())

    # The result runs, and answers are finite.
    batch = batches(architecture, head)[0]
    if compressors.entry(name).component.traits.paradigm == "vocabulary":
        found = tokenizer(list(SENTENCES[:4]), padding=True, truncation=True, max_length=24, return_tensors="pt")
        batch = Batch(found["input_ids"], found["attention_mask"] > 0)
    with torch.no_grad():
        said = logits(made, batch)
    assert bool(said.isfinite().all())

    # It is stored, and read back to the last bit, whatever its form.
    save_model(made, folder)
    tokenizer.save_pretrained(folder)
    loaded = load_model(folder)
    with torch.no_grad():
        assert torch.equal(logits(loaded, batch), said)
    assert structure_of(loaded) == structure_of(made)

    # It is as big as it says.
    stock = structure_of(made).empty
    file = folder / (STOCK if stock else COMPRESSED)
    assert (folder / STRUCTURE).is_file() == (folder / COMPRESSED).is_file() != (folder / STOCK).is_file()
    held = file.stat().st_size - 8 - int.from_bytes(file.read_bytes()[:8], "little")
    assert held == sum(t.nbytes for t in read_weights(folder).values())
    assert held == model_entry(made, name="m", path="m").size_bytes == footprint(loaded).size_bytes
    assert 0 < footprint(loaded).parameters == footprint(made).parameters

    # Its traits are true.
    traits = compressors.entry(name).component.traits
    seen = forms(made, model)
    if "factored or shared" in seen:
        assert traits.leaves & {"factored", "shared"}, "a part of floating-point numbers, and traits name none"
        seen.remove("factored or shared")
    assert seen <= traits.leaves, f"leaves {sorted(seen)}, and traits say {sorted(traits.leaves)}"
    if traits.leaves == {"dense"}:
        assert stock and not seen

    # It comes out the same twice.
    again, _ = applied(name, model, architecture, head)
    both = weights(made), weights(again)
    assert both[0].keys() == both[1].keys()
    assert all(torch.equal(tensor, both[1][key]) for key, tensor in both[0].items())


@pytest.mark.parametrize("name", NAMES)
def test_a_method_is_a_frozen_dataclass_that_says_what_it_is(name: str) -> None:
    entry = compressors.entry(name)
    method = compressors.build(name)
    assert name == name.lower() and " " not in name and "_" not in name
    assert entry.summary.endswith(".") and len(entry.summary) < 120
    assert method.needs <= NEEDS
    assert isinstance(method.traits, Traits) and method.traits.leaves
    assert "dense" in method.traits.takes, "it takes no stock model"
    for field in fields(entry.component):  # type: ignore[arg-type]
        with pytest.raises(FrozenInstanceError):
            setattr(method, field.name, None)
        break


@pytest.mark.parametrize("name", NAMES)
def test_what_a_method_needs_and_does_not_get_is_said(name: str) -> None:
    method = compressors.build(name)
    if not method.needs & {"calibration", "gradients", "texts"}:
        pytest.skip("it needs nothing that could be missing")
    model, none = tiny_model("bert", "sequence"), Resources()
    with pytest.raises(InputError):
        begun(method, model, tiny_tokenizer("bert"), none)


def test_methods_that_pack_come_last() -> None:
    """The order that undoes a step: whatever changes whole weights cannot follow what packed all of them."""
    traits = {name: compressors.build(name).traits for name in NAMES}
    packs = [name for name in NAMES if "packed" in traits[name].leaves]
    changes = [name for name in NAMES if traits[name].paradigm in ("pruning", "decomposition", "sharing")]
    wrong = [(first, then) for first in packs for then in changes if may_follow(traits[first], traits[then])]
    assert not wrong


def compressed_parts() -> Iterator[tuple[str, Compressed]]:
    for name in NAMES:
        try:
            made, _ = applied(name, tiny_model("bert", "sequence"), "bert", "sequence")
        except InputError:
            continue
        for module in made.modules():
            if isinstance(module, Compressed):
                yield name, module


def test_every_kind_of_module_is_rebuilt_from_its_settings() -> None:
    """Same shapes from settings alone; and what it stands for is what it computes."""
    seen: dict[str, Compressed] = {}
    for _, module in compressed_parts():
        seen.setdefault(module.kind, module)
    for kind, module in seen.items():
        again = rebuilt(kind, module.settings())
        shapes: list[dict[str, Any]] = [
            {key: (t.shape, t.dtype) for key, t in m.state_dict().items()} for m in (module, again)
        ]
        assert shapes[0] == shapes[1], kind
        dense = module.dense()
        assert dense.dtype == torch.float32, kind
        with torch.no_grad():
            if hasattr(module, "num_embeddings"):
                assert dense.shape == (module.num_embeddings, module.embedding_dim), kind
                ids = torch.arange(int(module.num_embeddings))
                torch.testing.assert_close(module(ids), dense, msg=kind)
            else:
                assert dense.shape == (module.out_features, module.in_features), kind
                x = torch.randn(7, int(module.in_features), generator=torch.Generator().manual_seed(0))
                exact = x @ dense.T + (0 if module.bias is None else module.bias)
                error = (module(x) - exact).norm() / exact.norm()
                assert error < 0.1, f"{kind}: {error}"  # those with activations in 8 bits are not exact
    unseen = sorted(set(module_kinds) - set(seen))
    assert not unseen or set(unseen) <= {kind for kind in module_kinds if "qat" in kind or "static" in kind}, unseen


def test_the_tied_projection_follows_in_every_method() -> None:
    for name in NAMES:
        model = tiny_model("camembert", "mlm")
        made, tokenizer = applied(name, model, "camembert", "mlm")
        table = made.get_submodule(word_embedding_path(made))
        ids = torch.tensor([tokenizer("le petit pain").input_ids])
        assert made(ids).logits.shape[-1] == table.num_embeddings, name
