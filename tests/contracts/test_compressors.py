"""What every registered compressor promises, whoever wrote it, and every kind of module that it puts into a model.

A method with its defaults is applied to tiny models: the argument is left alone, the result runs, is stored and read
back to the last bit, is as big as it says, leaves the forms that its traits name, and comes out the same twice.
"""

from collections.abc import Iterator
from dataclasses import FrozenInstanceError, fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from affinage.compression.base import NEEDS, Resources, Traits, compressors, may_follow
from affinage.errors import InputError
from affinage.evaluation.footprint import footprint, model_entry
from affinage.models.checkpoint import load_model
from affinage.models.modules.base import Compressed, module_kinds, rebuilt
from affinage.models.replacing import word_embedding_path
from affinage.models.storage import COMPRESSED, STOCK, STRUCTURE, held_tensors, read_weights, save_model
from affinage.models.structure import structure_of
from affinage.runtime.onnx.build import integers_in, onnx_graph
from affinage.signals import Batch
from applied import NAMES, applied, batches, begun, forms, logits, once
from onnx_graphs import graph_outputs, inputs_of, torch_outputs
from tiny import FAMILIES, SENTENCES, tiny_model, tiny_tokenizer

EVERYWHERE = ("bert", "camembert")
"""families that no method may refuse"""
NOT_STOCK = {("flaubert", "prune-neurons-evenly"), ("flaubert", "prune-neurons-onorm")}
"""layers of one width, which the config of the family cannot say"""


def weights(model: PreTrainedModel) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in held_tensors(model).items()}


@pytest.mark.parametrize("name", NAMES)
def test_the_promises_hold(name: str, tmp_path: Path) -> None:
    check(name, "bert", "sequence", tmp_path)


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
    model, made, tokenizer = once(name, architecture, head)
    as_it_was = tiny_model(architecture, head)
    before, config = weights(as_it_was), as_it_was.config.to_dict()

    # The argument is untouched.
    assert made is not model and not made.training
    assert structure_of(model).empty and model.config.to_dict() == config and not model.training
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
        assert (stock or (architecture, name) in NOT_STOCK) and not seen

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
        for module in once(name, "bert", "sequence")[1].modules():
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
    elsewhere = {"masked-linear", "scored-linear", "sparse-embedding"}  # in training only; where asked for
    unseen = sorted(set(module_kinds) - set(seen) - elsewhere)
    assert not unseen or set(unseen) <= {kind for kind in module_kinds if "qat" in kind or "static" in kind}, unseen


def test_the_tied_projection_follows_in_every_method() -> None:
    for name in NAMES:
        _, made, tokenizer = once(name, "camembert", "mlm")
        table = made.get_submodule(word_embedding_path(made))
        ids = torch.tensor([tokenizer("le petit pain").input_ids])
        assert made(ids).logits.shape[-1] == table.num_embeddings, name


@pytest.mark.parametrize("name", NAMES)
def test_a_graph_for_onnx_runtime_answers_alike(name: str) -> None:
    _, made, tokenizer = once(name, "bert", "sequence")
    inputs = inputs_of("bert")
    if compressors.entry(name).component.traits.paradigm == "vocabulary":
        encoded = tokenizer(list(SENTENCES[:3]), padding=True, return_tensors="np")
        inputs = {key: np.asarray(encoded[key], np.int64) for key in ("input_ids", "attention_mask")}
        inputs["token_type_ids"] = np.zeros_like(inputs["input_ids"])
    (ours,), (theirs,) = graph_outputs(onnx_graph(made), inputs), torch_outputs(made, inputs)
    loose = 1e-5 if integers_in(made) == "none" else 0.1 * float(np.abs(theirs).max())
    np.testing.assert_allclose(ours, theirs, atol=loose)
