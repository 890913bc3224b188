"""The head that says whether a second text follows the first, beside the vocabulary head."""

from transformers import AutoModelForPreTraining, PreTrainedModel

from affinage.errors import InputError
from affinage.models.layout import LAYOUTS, layout_of


def check_next_sentence(architecture: str) -> None:
    """Raises: InputError for an architecture without that head in transformers."""
    known = sorted(name for name, layout in LAYOUTS.items() if layout.next_sentence)
    if architecture not in known:
        raise InputError(
            f"loss 'nsp' needs a next-sentence head, which the architecture '{architecture}' has not; "
            f"those that have one: {', '.join(known)}"
        )


def with_next_sentence_head(model: PreTrainedModel) -> PreTrainedModel:
    """A masked language model's weights in the stock class that has both heads, pooler and second head at random.

    Raises: InputError for an architecture that has none.
    """
    check_next_sentence(model.config.model_type)
    whole: PreTrainedModel = AutoModelForPreTraining.from_config(model.config)
    missing, unexpected = whole.load_state_dict(model.state_dict(), strict=False)
    head, base = layout_of(model.config).next_sentence, layout_of(model.config).base
    assert not unexpected and all(name.startswith((f"{head}.", f"{base}.pooler.")) for name in missing)
    whole.tie_weights()
    whole.train(False)
    return whole
