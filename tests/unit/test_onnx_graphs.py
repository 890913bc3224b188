"""Graphs: the stock model's own logits for every family and head, few operators, every tensor once, int8 as written."""

from collections import Counter
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from affinage.compression.plan import step_of
from affinage.errors import InputError
from affinage.evaluation.footprint import tensor_bytes
from affinage.runtime.onnx.build import onnx_graph
from affinage.runtime.onnx.linear import Int8, int8_rows
from applied import resources
from onnx_graphs import graph_outputs, inputs_of, model_of, torch_outputs

VARIANTS: list[tuple[str, dict[str, Any]]] = [
    ("bert", {}),
    ("bert", {"hidden_act": "gelu_new", "type_vocab_size": 1}),
    ("roberta", {}),
    ("camembert", {"hidden_act": "relu"}),
    ("xlm-roberta", {}),
    ("distilbert", {}),
    ("electra", {}),
    ("electra", {"embedding_size": 16}),
    ("albert", {"num_hidden_groups": 2}),
    ("flaubert", {}),
    ("flaubert", {"pre_norm": True}),
]
NAMES = ["-".join([family, *config]) for family, config in VARIANTS]
HEADS = ("sequence", "token", "span", "mlm")
TRACED = ("deberta-v2", "modernbert", "eurobert", "mobilebert")


def differ(ours: list[Any], theirs: list[Any]) -> float:
    assert [a.shape for a in ours] == [b.shape for b in theirs]
    return max(float(np.abs(a - b).max()) for a, b in zip(ours, theirs, strict=True))


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize(("family", "config"), VARIANTS, ids=NAMES)
def test_a_built_graph_gives_the_models_logits(family: str, config: dict[str, Any], head: str) -> None:
    model = model_of(family, head, **config)
    graph = onnx_graph(model)
    for texts in (1, 3):  # batch and length vary
        inputs = inputs_of(family, texts)
        assert differ(graph_outputs(graph, inputs), torch_outputs(model, inputs)) < 5e-6


@pytest.mark.parametrize(
    ("family", "head"),
    [
        pytest.param(family, head, marks=[] if (family, head) == ("mobilebert", "token") else pytest.mark.slow)
        for family in TRACED
        for head in HEADS
        if (family, head) != ("eurobert", "span")  # transformers has no such class
    ],
)
def test_a_traced_graph_gives_the_models_logits(family: str, head: str) -> None:
    model = model_of(family, head)
    inputs = inputs_of(family)
    wanted = torch_outputs(model, inputs)
    assert differ(graph_outputs(onnx_graph(model), inputs), wanted) < 5e-6
    loose = differ(graph_outputs(onnx_graph(model, int8=Int8()), inputs), wanted)
    assert 1e-5 < loose < 0.2 * max(np.abs(a).max() for a in wanted)


@pytest.mark.parametrize(
    ("family", "head", "steps", "operator"),
    [
        ("mobilebert", "token", ("share-layers", "svd:keep=0.5", "int8"), "MatMulIntegerToFloat"),
        ("modernbert", "mlm", ("int4:activations=dynamic",), "MatMulIntegerToFloat"),
        *(
            pytest.param(*one, marks=pytest.mark.slow)
            for one in (
                ("mobilebert", "mlm", ("int8",), "MatMulIntegerToFloat"),
                ("modernbert", "mlm", ("share-layers", "svd:keep=0.5", "k-means"), "FusedMatMul"),
                ("modernbert", "token", ("int8-static",), "QuantizeLinear"),
                ("deberta-v2", "mlm", ("tucker:keep=0.5", "int4-embeddings"), "Einsum"),
                ("deberta-v2", "token", ("int4:activations=dynamic",), "MatMulIntegerToFloat"),
                ("eurobert", "token", ("share-layers:parts=feed-forward", "kronecker"), "MatMul"),
                ("eurobert", "mlm", ("tensor-train:parts=embeddings", "int4"), "MatMulNBits"),
            )
        ),
    ],
)
def test_compressed_modules_go_into_a_traced_graph_as_they_are_stored(
    family: str, head: str, steps: tuple[str, ...], operator: str
) -> None:
    """And once where they stand in several layers, or are tied."""
    made = model_of(family, head)
    for step in steps:
        method = step_of(step).build()
        made = method.apply(made, resources(family, "mlm" if head == "mlm" else "sequence", method.needs))
    graph, inputs = onnx_graph(made), inputs_of(family)
    assert differ(graph_outputs(graph, inputs), torch_outputs(made, inputs)) < 5e-6
    assert operator in {node.op_type for node in graph.graph.node}
    assert {node.domain for node in graph.graph.node} <= {"", "com.microsoft"}
    stored = sum(numpy_helper.to_array(one).nbytes for one in graph.graph.initializer)
    whole = model_of(family, head)  # MobileBERT's vocabulary head multiplies with its table's own numbers
    read = [n for n in ("word_embeddings", "predictions.dense") if (family, head) == ("mobilebert", "mlm")]
    spare = sum(4 * p.numel() for name, p in whole.named_parameters() if any(n in name for n in read))
    assert stored <= tensor_bytes(made) + spare + 3000 < tensor_bytes(whole)  # constants


def test_a_layer_has_twelve_operators_and_no_batch_or_length_of_its_own() -> None:
    graph = onnx_graph(model_of("bert", "token")).graph
    found = Counter(node.op_type for node in graph.node)
    layers = 4
    assert found["MultiHeadAttention"] == found["BiasGelu"] == layers
    assert found["LayerNormalization"] == found["Sum"] == 2 * layers + 1
    assert found["FusedMatMul"] == 6 * layers + 1
    assert len(graph.node) <= 12 * layers + 11
    assert [[d.dim_param for d in one.type.tensor_type.shape.dim] for one in graph.input] == [["batch", "length"]] * 3


def test_only_the_first_token_goes_through_the_last_layer_of_a_classifier() -> None:
    """Its feed-forward network reads what was gathered, the others what the norm before them gave."""
    graph = onnx_graph(model_of("bert", "sequence")).graph
    gathers = {node.output[0] for node in graph.node if node.op_type == "Gather" and node.attribute}
    assert len(gathers) == 1
    attention = [node for node in graph.node if node.op_type == "MultiHeadAttention"]
    makers = {node.output[0]: node for node in graph.node}
    queries = [makers[node.input[0]].input[0] for node in attention]
    assert [query in gathers for query in queries] == [False, False, False, True]


def test_every_tensor_is_stored_once_under_its_own_name() -> None:
    model = model_of("albert", "mlm")
    graph = onnx_graph(model).graph
    stored = {one.name for one in graph.initializer}
    names = {name for name, _ in model.named_parameters()}  # shared and tied ones once
    joined = {name for name in names if name.endswith(("query.bias", "key.bias", "value.bias"))}
    assert stored & names == names - joined
    floats = sum(numpy_helper.to_array(one).size for one in graph.initializer if one.data_type == 1)
    assert floats == sum(p.numel() for p in model.parameters())


def test_int8_weights_and_tables_are_a_quarter_and_computed_as_written() -> None:
    """One linear map and one row of the table, from the integers in the file, in float64."""
    model = model_of("camembert", "mlm")
    graph = onnx_graph(model, int8=Int8())
    held = {one.name: numpy_helper.to_array(one) for one in graph.graph.initializer}
    name = "roberta.encoder.layer.0.intermediate.dense.weight"
    weight = model.get_parameter(name).detach().double().numpy()
    scale = np.abs(weight).max(axis=1) / 127
    assert held[f"{name}.int8"].dtype == np.int8
    np.testing.assert_allclose(held[f"{name}.scale"], scale, rtol=1e-6)
    np.testing.assert_array_equal(held[f"{name}.int8"], np.rint(weight / scale[:, None]).T)
    big = [key for key, array in held.items() if array.dtype == np.float32 and array.ndim == 2 and array.size > 64 * 16]
    assert big == ["roberta.embeddings.position_embeddings.weight.with_type"]
    tables = [key for key, array in held.items() if array.dtype == np.int8 and len(array) == model.config.vocab_size]
    assert len(tables) == 1  # the tied projection uses it too

    first = next(node for node in graph.graph.node if f"{name}.int8" in node.input)
    source = next(n for n in graph.graph.node if n.op_type == "DynamicQuantizeLinear" and n.output[0] == first.input[0])
    for value in (source.input[0], first.output[0]):
        graph.graph.output.append(onnx.helper.make_tensor_value_info(value, onnx.TensorProto.FLOAT, None))
    _, x, y = graph_outputs(graph, inputs_of("camembert"))
    low, high = min(0.0, float(x.min())), max(0.0, float(x.max()))
    step = (high - low) / 255
    zero = np.rint(-low / step)
    integers = np.clip(np.rint(x.astype(np.float64) / step) + zero, 0, 255) - zero
    bias = model.get_parameter(name.replace("weight", "bias")).detach().double().numpy()
    wanted = integers @ np.rint(weight / scale[:, None]).T * (step * scale) + bias
    # ORT computes the step in float32: a value on the edge of a step may fall on the other side.
    np.testing.assert_allclose(y, wanted, atol=2 * step * float(scale.max()) * 127)
    assert np.median(np.abs(y - wanted)) < 1e-5


def test_without_vnni_no_sum_of_two_products_exceeds_16_bits() -> None:
    graph = onnx_graph(model_of("camembert", "token"), int8=Int8(bits=7)).graph
    rows = [numpy_helper.to_array(one) for one in graph.initializer if one.data_type == onnx.TensorProto.INT8]
    assert max(int(np.abs(array.astype(int)).max()) for array in rows) * 255 * 2 < 2**15


def test_attention_of_integer_graphs_has_a_branch_for_real_tokens_alone() -> None:
    """One text, or several of one length, take the branch without a mask; what it gives does not depend on padding."""
    model = model_of("camembert", "token")
    graph = onnx_graph(model, int8=Int8())
    assert Counter(node.op_type for node in graph.graph.node)["If"] == 4
    assert not any(node.op_type == "If" for node in onnx_graph(model).graph.node)
    inputs = {name: array[:1, :8] for name, array in inputs_of("camembert").items()}
    wider = {
        name: np.pad(array, ((0, 0), (0, 3)), constant_values=1 if name == "input_ids" else 0)
        for name, array in inputs.items()
    }
    alone, padded = (graph_outputs(graph, given)[0] for given in (inputs, wider))
    np.testing.assert_allclose(padded[:, :8], alone, atol=0.02 * float(np.abs(alone).max()))


def test_queries_keys_and_values_are_one_product_of_integers() -> None:
    model = model_of("camembert", "token")
    graph = onnx_graph(model, int8=Int8()).graph
    assert Counter(node.op_type for node in graph.node)["Split"] == 4
    joined = [numpy_helper.to_array(one) for one in graph.initializer if one.name.endswith("int8_joined")]
    assert [array.shape for array in joined] == [(16, 48)] * 4
    names = ("query", "key", "value")
    rows = [model.roberta.encoder.layer[0].attention.self.get_submodule(name).weight.detach().numpy() for name in names]
    np.testing.assert_array_equal(joined[0].T, np.concatenate([int8_rows(one) for one in rows]))


@pytest.mark.parametrize("head", HEADS)
def test_int8_logits_are_near(head: str) -> None:
    model = model_of("camembert", head)
    inputs = inputs_of("camembert")
    wanted = torch_outputs(model, inputs)
    found = differ(graph_outputs(onnx_graph(model, int8=Int8()), inputs), wanted)
    assert 1e-5 < found < 0.1 * max(np.abs(a).max() for a in wanted)


def test_what_cannot_be_exported_is_said() -> None:
    with pytest.raises(InputError, match="activation 'mish' is not exported; known: gelu, "):
        onnx_graph(model_of("bert", "token", hidden_act="mish"))
    with pytest.raises(InputError, match="a BertModel has no head that can be exported"):
        onnx_graph(model_of("bert", "base"))
    with pytest.raises(InputError, match="summary_type last is not exported"):
        onnx_graph(model_of("flaubert", "sequence", summary_type="last"))
    model = model_of("bert", "token")
    model.bert.encoder.layer[0].output.LayerNorm = torch.nn.RMSNorm(16)
    with pytest.raises(InputError, match="is a RMSNorm: no graph"):
        onnx_graph(model)
