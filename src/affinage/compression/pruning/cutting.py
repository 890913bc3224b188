"""Taking heads, neurons and layers out of a model's tensors for good.

Heads and neurons only of architectures whose layers' maps have names in `layout`: all but ALBERT, whose layers are one,
and MobileBERT. Layers of all but ALBERT.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from affinage.errors import InputError
from affinage.models.layout import layers_of, layout_of, size_of_heads

_HEADS = ("num_attention_heads", "n_heads")
_MAPS = ("query", "key", "value", "attention_output", "intermediate", "gate", "output")
_HEADS_WIDTH = ("all_head_size", "dim")
_NUMBERS = ("layer_idx", "layer_id")
_ONE_LAYER = "its layers share one set of weights"


def check_cuttable(model: PreTrainedModel, method: str, *, heads: bool = False, whole: bool = False) -> None:
    """`heads`: whether these are to be cut; `whole`: whether parts around the layers are, with them.

    Raises: InputError where the architecture has parts without a name, or what is to be cut is no plain matrix.
    """
    layout = layout_of(model.config)
    if not (layout.whole if whole else layout.cuttable):
        why = _ONE_LAYER if layout.shares_layers else "its parts are not known one by one"
        takes = "BERT, RoBERTa, CamemBERT, XLM-R, DistilBERT and ELECTRA" if whole else "all but ALBERT and MobileBERT"
        raise InputError(f"{method} does not fit architecture '{model.config.model_type}': {why}; it takes {takes}")
    served = getattr(model.config, "num_key_value_heads", None)
    if heads and served not in (None, model.config.num_attention_heads):
        raise InputError(
            f"{method}: {model.config.num_attention_heads} heads of this {model.config.model_type} share {served} of "
            "keys and values, and cannot be taken out one by one; prune-neurons and drop-layers can be used"
        )
    _check_plain(model, method)


def check_layers(model: PreTrainedModel, method: str, *, called: bool = False) -> None:
    """`called`: whether the method needs layers that the model calls as one.

    Raises: InputError where the architecture has no such layers, or what is in them is no plain matrix.
    """
    layout = layout_of(model.config)
    if layout.shares_layers or (called and layout.more_layers):
        why = _ONE_LAYER if layout.shares_layers else "its layers are no modules of their own"
        takes = "all but ALBERT" + (" and FlauBERT" if called else "")
        raise InputError(f"{method} does not fit architecture '{model.config.model_type}': {why}; it takes {takes}")
    if layout.cuttable:
        _check_plain(model, method)


def _check_plain(model: PreTrainedModel, method: str) -> None:
    layout, seen = layout_of(model.config), set[int]()
    for i, layer in enumerate(layers_of(model)):
        paths = {path: part for part in reversed(_MAPS) if (path := getattr(layout, part))}
        modules = {part: layer.get_submodule(path) for path, part in paths.items()}
        for part, module in modules.items():
            if type(module) is not nn.Linear or id(module) in seen:
                found = "shared with another layer" if id(module) in seen else f"a {type(module).__name__}"
                raise InputError(
                    f"{method}: the {part} of layer {i} is {found}; take heads, neurons, layers and width out first, "
                    "then share, factor, quantize or make sparse"
                )
        seen.update(map(id, modules.values()))


def linear_of(model: PreTrainedModel, layer: nn.Module, part: str) -> nn.Linear:
    """One of `_MAPS` in a layer."""
    module = layer.get_submodule(getattr(layout_of(model.config), part))
    assert isinstance(module, nn.Linear)
    return module


def first_has_to_stay(model: PreTrainedModel) -> bool:
    """Whether the first layer lacks what the others have, as ModernBERT's does, so that none of them can begin."""
    first, *others = ({name for name, _ in layer.named_parameters()} for layer in layers_of(model))
    return any(names != first for names in others)


def head_size(model: PreTrainedModel, layer: nn.Module) -> int:
    """D of this layer."""
    return size_of_heads(_attention(model, layer))


def head_counts(model: PreTrainedModel) -> list[int]:
    """A of each layer, as its tensors say."""
    layers = layers_of(model)
    return [linear_of(model, layer, "attention_output").in_features // head_size(model, layer) for layer in layers]


def neuron_counts(model: PreTrainedModel) -> list[int]:
    """Width of each layer's feed-forward network."""
    return [linear_of(model, layer, "output").in_features for layer in layers_of(model)]


def cut_heads_(model: PreTrainedModel, kept: Sequence[Tensor]) -> None:
    """Leave in layer i the heads `kept[i]`, indices in rising order, at least one."""
    layout = layout_of(model.config)
    for layer, heads in zip(layers_of(model), kept, strict=True):
        size = head_size(model, layer)
        rows = (heads[:, None] * size + torch.arange(size, device=heads.device)).flatten()
        width = linear_of(model, layer, "attention_output").in_features
        joint = [part * width + rows for part in range(3)] if layout.query == layout.key else [rows]
        modules = dict(layer.named_modules())
        for path in {layout.query, layout.key, layout.value, *layout.more_positions} & modules.keys():
            keep_rows_(modules[path], torch.cat(joint))
        keep_columns_(linear_of(model, layer, "attention_output"), rows)
        attention = _attention(model, layer)
        for names, value in ((_HEADS, len(heads)), (_HEADS_WIDTH, len(rows))):
            for name in names:
                if hasattr(attention, name):
                    setattr(attention, name, value)


def cut_neurons_(model: PreTrainedModel, kept: Sequence[Tensor]) -> None:
    """Leave in layer i the neurons `kept[i]`, indices in rising order; the config says so where widths are equal."""
    layout = layout_of(model.config)
    for layer, neurons in zip(layers_of(model), kept, strict=True):
        output = linear_of(model, layer, "output")
        rows = neurons
        if layout.gated and not layout.gate:
            rows = torch.cat([neurons, output.in_features + neurons])
        for path in filter(None, (layout.intermediate, layout.gate)):
            keep_rows_(layer.get_submodule(path), rows)
        keep_columns_(output, neurons)
        around = layer.get_submodule(layout.output.rpartition(".")[0])
        if hasattr(around, "intermediate_size"):
            around.intermediate_size = len(neurons)  # type: ignore[assignment]
    _settle_(model)


def cut_layers_(model: PreTrainedModel, kept: Sequence[int]) -> None:
    """Leave the layers `kept`, indices in rising order, at least one.

    Raises: InputError where the first has to stay and is not among them.
    """
    layout = layout_of(model.config)
    if kept[0] and first_has_to_stay(model):
        raise InputError(
            f"the first layer of a {model.config.model_type} lacks what the others have, so that none of them can come "
            "first: it has to stay"
        )
    if kinds := getattr(model.config, "layer_types", None):
        model.config.layer_types = [kinds[i] for i in kept]
    for path in (layout.layers, *layout.more_layers):
        parent, _, name = path.rpartition(".")
        layers = list(model.get_submodule(path).children())
        setattr(model.get_submodule(parent), name, nn.ModuleList(layers[i] for i in kept))
    for place, layer in enumerate(layers_of(model)):
        for module in layer.modules():
            for number in _NUMBERS:
                if hasattr(module, number):
                    setattr(module, number, place)
    encoder = model.get_submodule(layout.layers.rpartition(".")[0])
    if isinstance(getattr(encoder, layout.num_hidden_layers, None), int):
        setattr(encoder, layout.num_hidden_layers, len(kept))
    setattr(model.config, layout.num_hidden_layers, len(kept))
    _settle_(model)


def keep_rows_(linear: nn.Module, rows: Tensor) -> None:
    """Leave these outputs of a linear map."""
    assert isinstance(linear, nn.Linear)
    _set_(linear, "weight", linear.weight[rows])
    if linear.bias is not None:
        _set_(linear, "bias", linear.bias[rows])
    linear.out_features = len(rows)


def keep_columns_(linear: nn.Linear, columns: Tensor) -> None:
    """Leave these inputs of a linear map."""
    _set_(linear, "weight", linear.weight[:, columns])
    linear.in_features = len(columns)


def _set_(module: nn.Module, name: str, value: Tensor) -> None:
    trains = getattr(module, name).requires_grad
    setattr(module, name, nn.Parameter(value.detach().clone(), requires_grad=trains))


def _settle_(model: PreTrainedModel) -> None:
    """Where all feed-forward networks are of one width, the config says which, if it can: the model is stock again."""
    layout = layout_of(model.config)
    if layout.cuttable and layout.intermediate_size and len(widths := set(neuron_counts(model))) == 1:
        setattr(model.config, layout.intermediate_size, widths.pop())


def _attention(model: PreTrainedModel, layer: nn.Module) -> nn.Module:
    return layer.get_submodule(layout_of(model.config).query.rpartition(".")[0])
