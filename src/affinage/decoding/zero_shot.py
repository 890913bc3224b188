"""How likely labels that a model never saw are, from an entailment model's logits (Yin et al. 2019, arXiv:1909.00161).

The text is the premise; each candidate label, put into a template, is a hypothesis. Letters: K candidate labels, C
classes of the entailment model.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from affinage.decoding.labels import Floats, softmax
from affinage.errors import InputError, unknown

DEFAULT_TEMPLATE = "Ce texte parle de {}."
DEFAULT_METHOD = "entailment_logits"


class NliClasses(NamedTuple):
    """Where the entailment model's classes stand among its logits."""

    entailment: int
    contradiction: int | None


def nli_classes(names: Sequence[str]) -> NliClasses:
    """The classes by name: one begins with "entail", another with "contra", in any case.

    Raises: InputError where no class, or more than one, is called entailment.
    """
    found = [i for i, name in enumerate(names) if name.lower().startswith("entail")]
    if len(found) != 1:
        raise InputError(
            f"zero-shot classification needs a model with one label called entailment; this one has: {', '.join(names)}"
        )
    contradiction = [i for i, name in enumerate(names) if name.lower().startswith("contra")]
    return NliClasses(found[0], contradiction[0] if len(contradiction) == 1 else None)


def fill_template(template: str, label: str) -> str:
    """The hypothesis for a label. Raises: InputError unless the template has exactly one {}."""
    if template.count("{}") != 1:
        raise InputError(f"template '{template}': expected exactly one {{}}, for example '{DEFAULT_TEMPLATE}'")
    return template.replace("{}", label)


def entailment_logits(logits: NDArray[np.floating], classes: NliClasses) -> Floats:
    """(K, C) -> (K,) softmax over the candidates' entailment logits. The labels exclude one another; sums to 1."""
    return softmax(np.asarray(logits)[:, classes.entailment])


def entailment_probability_softmax(logits: NDArray[np.floating], classes: NliClasses) -> Floats:
    """(K, C) -> (K,) equation 15 of the DistilCamemBERT article as printed: softmax over P(entailment | label).

    A probability lies in [0, 1], so no candidate can be more than e = 2.72 times as likely as another: the order is
    that of the probabilities, the scores are nearly flat. For comparison with the article only.
    """
    return softmax(softmax(logits)[:, classes.entailment])


def multi_label(logits: NDArray[np.floating], classes: NliClasses) -> Floats:
    """(K, C) -> (K,) each label on its own: softmax of entailment against contradiction. Does not sum to 1.

    Raises: InputError where the model has no contradiction class.
    """
    if classes.contradiction is None:
        raise InputError("method 'multi_label' needs a model with a label called contradiction")
    return softmax(np.asarray(logits)[:, [classes.entailment, classes.contradiction]])[:, 0]


METHODS: dict[str, Callable[[NDArray[np.floating], NliClasses], Floats]] = {
    "entailment_logits": entailment_logits,
    "entailment_probability_softmax": entailment_probability_softmax,
    "multi_label": multi_label,
}


def zero_shot_method(name: str) -> Callable[[NDArray[np.floating], NliClasses], Floats]:
    """The function called `name`. Raises: InputError with the nearest name if there is none."""
    if name not in METHODS:
        raise InputError(unknown("zero-shot method", name, METHODS))
    return METHODS[name]
