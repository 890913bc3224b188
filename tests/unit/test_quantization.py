"""Quantized models: what is replaced, what is refused, ranges from real tokens, training that ends packed."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from affinage.compression.base import Resources, TrainedCompressor, compressors
from affinage.compression.quantization import mixed
from affinage.compression.quantization.calibration import input_ranges, inputs_seen
from affinage.compression.quantization.mixed import MixedBits
from affinage.compression.quantization.places import Parts
from affinage.errors import InputError
from affinage.models.checkpoint import load_model
from affinage.models.modules.base import Compressed
from affinage.models.modules.groups import GroupLinear
from affinage.models.modules.int8 import Int8Linear, StaticInt8Linear
from affinage.models.modules.matrix import MatrixLinear
from affinage.models.replacing import linears, word_embedding_path
from affinage.models.storage import save_model
from affinage.runtime.onnx.build import integers_in
from affinage.signals import Batch
from tiny import FAMILIES, SENTENCES, tiny_model, tiny_tokenizer

WHOLE = ["int8", "int8-static", "int4", "k-means", "mixed-bits", "ternary", "binary"]
TABLES = ["int8-embeddings", "int4-embeddings", "pq-embeddings"]
TRAINED = ["qat-int8", "qat-int4", "qat-ternary", "qat-binary"]


def batches(architecture: str = "bert", count: int = 2) -> list[Batch]:
    tokenizer = tiny_tokenizer(architecture)
    rows = tokenizer(list(SENTENCES), padding=True, truncation=True, max_length=60, return_tensors="pt")
    whole = Batch(rows.input_ids, rows.attention_mask.bool(), labels=torch.arange(len(SENTENCES)) % 2)
    return [whole] * count


def loss(model: PreTrainedModel, batch: Batch) -> Tensor:
    labels = batch.labels if hasattr(model, "classifier") else batch.input_ids
    found: Tensor = model(input_ids=batch.input_ids, attention_mask=batch.mask.long(), labels=labels).loss
    return found


def resources(architecture: str = "bert") -> Resources:
    return Resources(calibration=batches(architecture), loss=loss)


def logits(model: PreTrainedModel, batch: Batch) -> Tensor:
    with torch.no_grad():
        found: Tensor = model(input_ids=batch.input_ids, attention_mask=batch.mask.long()).logits
    return found


def compressed(model: PreTrainedModel, name: str, given: Resources, **params: Any) -> PreTrainedModel:
    method = compressors.build(name, params)
    if isinstance(method, TrainedCompressor):
        return method.finish(method.prepare(model, given))
    return method.apply(model, given)  # type: ignore[union-attr]


def replaced(model: PreTrainedModel) -> set[str]:
    return {path for path, module in model.named_modules() if isinstance(module, Compressed)}


@pytest.mark.parametrize("name", [*WHOLE, *TABLES, *TRAINED])
def test_maps_and_tables_are_replaced_and_the_model_runs(name: str) -> None:
    model, batch = tiny_model("bert", "sequence"), batches()[0]
    before = copy.deepcopy(model.state_dict())
    made = compressed(model, name, resources())
    tables = {"bert.embeddings.word_embeddings", "bert.embeddings.position_embeddings"}
    maps = {*linears(model), "bert.pooler.dense"} if name not in TABLES else set()
    assert replaced(made) == tables | maps
    assert all(torch.equal(tensor, before[key]) for key, tensor in model.state_dict().items())
    assert not made.training and bool(torch.isfinite(logits(made, batch)).all())
    with pytest.raises(InputError, match="quantized already"):
        compressed(made, name, resources())


@pytest.mark.parametrize("architecture", FAMILIES)
def test_every_family_takes_measured_int8_and_says_nearly_the_same(architecture: str) -> None:
    model, batch = tiny_model(architecture), batches(architecture)[0]
    made = compressed(model, "int8-static", resources(architecture), ranges="min-max")
    assert isinstance(made.get_submodule(word_embedding_path(model)), Compressed)
    assert not [path for path in linears(made) if isinstance(made.get_submodule(path), nn.Linear)]
    before, after = logits(model, batch), logits(made, batch)
    assert float((before - after).abs().max()) < 0.1 * float(before.abs().max())


def test_the_vocabulary_projection_follows_its_table() -> None:
    model = tiny_model("bert")
    made = compressed(model, "int4-embeddings", resources())
    table = made.get_submodule("bert.embeddings.word_embeddings")
    assert isinstance(table, Compressed)
    hidden = torch.randn(3, 16)
    bias = model.cls.predictions.decoder.bias
    assert torch.equal(made.cls.predictions.decoder(hidden), hidden @ table.dense().t() + bias)


@pytest.mark.parametrize(("off", "kind"), [("encoder", "maps"), ("embeddings", "tables"), ("heads", "pooler")])
def test_parts_that_are_switched_off_stay(off: str, kind: str) -> None:
    model = tiny_model("bert", "sequence")
    everything = replaced(compressed(model, "int8", resources()))
    rest = replaced(compressed(model, "int8", resources(), **{off: False}))
    left = {
        "maps": set(linears(model)),
        "tables": {p for p in everything if "embeddings" in p},
        "pooler": {"bert.pooler.dense"},
    }[kind]
    assert rest == everything - left and left


def test_a_table_that_is_packed_stays_and_maps_follow() -> None:
    model = tiny_model("bert", "sequence")
    tables = compressed(model, "pq-embeddings", resources())
    both = compressed(tables, "int8", resources())
    kind = type(tables.get_submodule("bert.embeddings.word_embeddings"))
    assert type(both.get_submodule("bert.embeddings.word_embeddings")) is kind
    assert isinstance(both.get_submodule("bert.pooler.dense"), Int8Linear)


def test_narrow_weights_stay_within_seven_bits() -> None:
    made = compressed(tiny_model("bert"), "int8", resources(), reduce_range=True)
    codes = [module.codes for module in made.modules() if isinstance(module, Int8Linear)]
    assert max(int(each.abs().max()) for each in codes) == 63


@pytest.mark.parametrize(
    ("name", "params", "says"),
    [
        ("int4", {"group": 24}, "power of two"),
        ("int4-embeddings", {"group": 8}, "power of two"),
        ("k-means", {"bits": 9}, "1 to 8"),
        ("int4", {"activations": "static"}, "float"),
        ("pq-embeddings", {"width": 0}, "width is at least 1"),
        ("pq-embeddings", {"entries": 1}, "2 to 256"),
        ("int8-static", {"outside": 0.5}, "share of the values"),
        ("int8-static", {"ranges": "mean"}, "min-max"),
        ("mixed-bits", {"bits": 9}, "cannot be reached"),
        ("mixed-bits", {"choices": (1, 4)}, "are 2 to 8"),
        ("int8", {"encoder": False, "embeddings": False, "heads": False}, "switched off"),
        ("mixed-bits", {"encoder": False, "heads": False}, "no linear map"),
    ],
)
def test_what_makes_no_sense_is_refused(name: str, params: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says):
        compressed(tiny_model("bert"), name, resources(), **params)


@pytest.mark.parametrize("name", ["int8-static", "ternary", "binary", "mixed-bits", "qat-int8"])
def test_missing_calibration_is_said(name: str) -> None:
    short = Batch(torch.ones(1, 9, dtype=torch.long), torch.ones(1, 9, dtype=torch.bool))
    for given in (None, [], [short]):
        with pytest.raises(InputError, match="at least 64"):
            compressed(tiny_model("bert"), name, Resources(calibration=given, loss=loss))


@pytest.mark.parametrize("name", ["ternary", "mixed-bits"])
def test_a_missing_loss_is_said(name: str) -> None:
    with pytest.raises(InputError, match="a loss is needed"):
        compressed(tiny_model("bert"), name, Resources(calibration=batches()))


def test_ranges_are_those_of_real_tokens() -> None:
    model, paths = tiny_model("bert"), ["bert.encoder.layer.1.output.dense", "cls.predictions.transform.dense"]
    heard: dict[str, list[Tensor]] = {path: [] for path in paths}
    clean = batches()
    inputs_seen(model, paths, clean, lambda path, x: heard[path].append(x))
    assert {len(x) for found in heard.values() for x in found} == {int(clean[0].mask.sum())}
    noise = torch.where(clean[0].mask, clean[0].input_ids, torch.randint(5, 200, clean[0].mask.shape))
    noisy = [Batch(noise, clean[0].mask)] * 2
    for ranges, outside in (("min-max", 0.0), ("percentile", 0.01), ("entropy", 0.0)):
        found = input_ranges(model, paths, clean, ranges, outside=outside)  # type: ignore[arg-type]
        assert found == input_ranges(model, paths, noisy, ranges, outside=outside)  # type: ignore[arg-type]
        for path in paths:
            values = torch.cat(heard[path]).flatten()
            low, high = found[path]
            if ranges == "min-max":
                assert (low, high) == (float(values.min()), float(values.max()))
            elif ranges == "percentile":
                bin_width = float(values.max() - values.min()) / 2048
                edges = torch.quantile(values, torch.tensor([0.005, 0.995]))
                assert [low, high] == pytest.approx(edges.tolist(), abs=3 * bin_width)
            else:
                assert float(values.min()) <= low < 0 < high <= float(values.max())


def test_a_measured_range_is_kept_in_the_module() -> None:
    model = tiny_model("bert")
    found = input_ranges(model, Parts().linears(model), batches(), "min-max")
    made = compressed(model, "int8-static", resources(), ranges="min-max")
    for path, (low, high) in found.items():
        module = made.get_submodule(path)
        assert isinstance(module, StaticInt8Linear)
        assert float(module.input_scale) == pytest.approx((high - low) / 255, rel=1e-6)
        assert int(module.input_zero_point) == round(-low / float(module.input_scale))


@pytest.mark.parametrize("mean", [2.0, 3.5, 8.0])
def test_mixed_bits_keep_to_their_mean(mean: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        mixed, "top_eigenvalues", lambda _, weights, batches, *__, **___: torch.rand(len(batches), len(weights))
    )
    torch.manual_seed(0)
    model = tiny_model("bert", "sequence")
    method = MixedBits(bits=mean)
    bits = method.allotted(model, resources())
    sizes = {path: model.get_parameter(f"{path}.weight").numel() for path in bits}
    spent = sum(bits[path] * size for path, size in sizes.items())
    assert spent <= mean * sum(sizes.values()) and set(bits.values()) <= set(method.choices)
    assert spent > (mean - 1) * sum(sizes.values())


def test_mixed_bits_are_what_the_maps_get(monkeypatch: pytest.MonkeyPatch) -> None:
    """And a map that the loss minds a thousand times more gets most."""

    def found(_: Any, weights: list[Tensor], batches: list[Batch], *__: Any, **___: Any) -> Tensor:
        return torch.ones(len(batches), len(weights)).index_fill_(1, torch.tensor([5]), 1000.0)

    monkeypatch.setattr(mixed, "top_eigenvalues", found)
    model = tiny_model("bert", "sequence")
    method = MixedBits()
    bits = method.allotted(model, resources())
    made = method.apply(model, resources())
    assert bits[list(bits)[5]] == 8 > min(bits.values())
    for path, each in bits.items():
        module = made.get_submodule(path)
        assert isinstance(module, GroupLinear) and module.settings()["bits"] == each


@pytest.mark.parametrize("name", TRAINED)
@pytest.mark.parametrize("head", ["mlm", "sequence"])
def test_training_lowers_the_loss_and_ends_packed(name: str, head: str) -> None:
    method = compressors.build(name)
    assert isinstance(method, TrainedCompressor)
    batch = batches()[0]
    training = method.prepare(tiny_model("bert", head), resources())
    optimizer = torch.optim.Adam(training.parameters(), lr=1e-2)
    before = float(loss(training, batch).detach())
    for step in range(12):
        method.on_step(training, step, 12)
        training.train()
        optimizer.zero_grad()
        loss(training, batch).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    training.eval()
    assert float(loss(training, batch).detach()) < before
    # A checkpoint of the training, read into a fresh start, is the same training.
    fresh = method.prepare(tiny_model("bert", head), resources())
    fresh.load_state_dict(training.state_dict())
    kept, trained = method.finish(fresh), logits(training, batch)
    assert float((logits(kept, batch) - trained).abs().max()) < 1e-4 * float(trained.abs().max())
    assert not any("qat" in type(module).__name__.lower() for module in kept.modules())
    assert torch.equal(logits(training, batch), trained)


FEW_BITS = ["int4", "k-means", "mixed-bits", "ternary", "binary", "qat-int4", "qat-ternary", "qat-binary"]


@pytest.mark.parametrize("name", FEW_BITS)
def test_few_bits_are_multiplied_as_integers_where_inputs_are_rounded(name: str, tmp_path: Path) -> None:
    model, batch = tiny_model("bert", "sequence"), batches()[0]
    rounded = compressed(model, name, resources(), activations="dynamic")
    plain = compressed(model, name, resources())
    maps = [module for module in rounded.modules() if isinstance(module, MatrixLinear)]
    assert maps and {module.inputs for module in maps} == {"dynamic"} and integers_in(rounded) == "dynamic"
    assert integers_in(plain) == "none"
    difference = float((logits(rounded, batch) - logits(plain, batch)).abs().max())
    assert 0 < difference < 0.05 * float(logits(plain, batch).abs().max())
    # As small as before: packed the same, the bytes on disk too.
    for key, tensor in plain.state_dict().items():
        assert torch.equal(rounded.state_dict()[key], tensor), key
    save_model(rounded, tmp_path)
    again = load_model(tmp_path)
    assert torch.equal(logits(again, batch), logits(rounded, batch))


@pytest.mark.parametrize("name", ["qat-int4", "qat-ternary", "qat-binary"])
def test_training_rounds_inputs_as_the_packed_model_does(name: str) -> None:
    method = compressors.build(name, {"activations": "dynamic"})
    assert isinstance(method, TrainedCompressor)
    training, batch = method.prepare(tiny_model("bert", "sequence"), resources()).eval(), batches()[0]
    trained, kept = logits(training, batch), logits(method.finish(training), batch)
    # The packed weights are rounded once more, to 7 bits, where integers are multiplied: signs lose nothing by it.
    loose = 2e-2 if name == "qat-int4" else 1e-4
    assert float((kept - trained).abs().max()) < loose * float(trained.abs().max())


@pytest.mark.parametrize("activations", ["float", "dynamic"])
def test_scales_and_books_learn_in_recovery(activations: str) -> None:
    for name in ("ternary", "binary", "k-means", "pq-embeddings"):
        params = {} if name == "pq-embeddings" else {"activations": activations}
        made = compressed(tiny_model("bert", "sequence"), name, resources(), **params)
        loss(made, batches()[0]).backward()  # type: ignore[no-untyped-call]
        learned = [p for key, p in made.named_parameters() if key.endswith(("matrix.scale", "matrix.book"))]
        assert learned and all(p.grad is not None and bool(p.grad.any()) for p in learned)
