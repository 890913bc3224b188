"""Which linear maps and which table a model has, and how another module is put in the place of one."""

from torch import nn
from transformers import PreTrainedModel

from affinage.errors import InputError
from affinage.models.layout import layout_of
from affinage.models.modules.base import Compressed
from affinage.models.modules.tied import TiedProjection


def linears(model: PreTrainedModel) -> list[str]:
    """Paths of the linear maps of the encoder's layers, layer by layer, those inside `Compressed` modules included.

    One that stands in several places (shared layers) is named once, by its first place.
    """
    layout = layout_of(model.config)
    first = {id(module): path for path, module in reversed(list(model.named_modules(remove_duplicate=False)))}
    found: dict[str, None] = {}
    for parts in zip(*(_listed(model, path) for path in (layout.layers, *layout.more_layers)), strict=True):
        found.update((first[id(m)], None) for part in parts for m in part.modules() if isinstance(m, nn.Linear))
    return list(found)


def word_embedding_path(model: PreTrainedModel) -> str:
    """Path of the word embedding table."""
    return layout_of(model.config).word_embeddings


def replace_module_(model: PreTrainedModel, path: str, module: nn.Module) -> None:
    """Put `module` where the one at `path` stands, in every place where that very one stands.

    For the word embeddings there is `replace_embedding_`.
    """
    old = model.get_submodule(path)
    module.train(old.training)
    places = [name for name, found in model.named_modules(remove_duplicate=False) if found is old]
    for place in places:
        parent, _, name = place.rpartition(".")
        setattr(model.get_submodule(parent), name, module)


def replace_embedding_(model: PreTrainedModel, module: Compressed | nn.Embedding) -> None:
    """Put `module`, of as many rows and columns, where the word embedding table stands.

    A vocabulary projection that was tied to the table is tied to the new one, and keeps its bias.

    Raises: InputError for the one head that has no projection of its own and reads a table's weight.
    """
    layout = layout_of(model.config)
    inside = layout.decoder == layout.word_embeddings
    if inside and isinstance(module, Compressed) and _has(model, layout.decoder_bias.rpartition(".")[0]):
        raise InputError(
            f"architecture '{model.config.model_type}' with legacy=False: its vocabulary head reads the embedding "
            "table itself, which has to stay as it is; compress the model of a task"
        )
    tied = is_tied(model)
    training = model.get_submodule(layout.word_embeddings).training
    replace_module_(model, layout.word_embeddings, module)
    if inside or not tied:
        return
    decoder = model.get_submodule(layout.decoder)
    bias = decoder.bias
    assert bias is None or isinstance(bias, nn.Parameter)
    projection: nn.Module
    if isinstance(module, Compressed):
        projection = TiedProjection(module, bias)
    else:
        projection = nn.Linear(module.embedding_dim, module.num_embeddings, bias=False, device="meta")
        projection.weight = module.weight
        projection.bias = bias
    projection.train(training)
    replace_module_(model, layout.decoder, projection)


def is_tied(model: PreTrainedModel) -> bool:
    """Whether the model has a vocabulary projection, and it uses the very tensors of the word embedding table."""
    layout = layout_of(model.config)
    if not _has(model, layout.decoder):
        return False
    table, decoder = model.get_submodule(layout.word_embeddings), model.get_submodule(layout.decoder)
    if isinstance(decoder, TiedProjection):
        return decoder.table is table
    return getattr(decoder, "weight", None) is getattr(table, "weight", table)


def _listed(model: PreTrainedModel, path: str) -> list[nn.Module]:
    """Every place of a list, also where one module stands in several of them (`children` names it once)."""
    found = model.get_submodule(path)
    assert isinstance(found, nn.ModuleList)
    return list(found)


def _has(model: PreTrainedModel, path: str) -> bool:
    return any(name == path for name, _ in model.named_modules(remove_duplicate=False))
