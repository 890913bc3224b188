"""In which forms the weights of a model stand already, by what in it is not as in a stock one."""

import re
from collections.abc import Sequence

from transformers import PreTrainedModel

from affinage.compression.base import Form
from affinage.compression.plan import AnyCompressor, Plan
from affinage.errors import InputError
from affinage.models.layout import depth_of
from affinage.models.structure import Structure, structure_of

_OF_KINDS: dict[str, tuple[Form, ...]] = {
    "sparse": ("sparse",),
    "low-rank": ("factored",),
    "kronecker": ("factored",),
    "tensor-train": ("factored",),
    "tucker": ("factored",),
    "two-component": ("shared",),
    "coded": ("shared", "packed-table"),
}
"""kind of module, less what it stands for (-linear, -embedding) -> forms; of any other kind it holds integers"""


def forms_of(model: PreTrainedModel) -> dict[Form, str]:
    """Form -> where it is found first; empty of a stock model."""
    structure = structure_of(model)
    found: dict[Form, str] = {}
    for path, part in structure.parts.items():
        kind, _, place = part.kind.rpartition("-")
        if not kind:  # a plain one, of another size
            within = any(path.startswith(f"{other}.") for other in structure.parts)
            if not within and not _in_every_layer(path, structure, depth_of(model.config)):
                found.setdefault("uneven", path)
            continue
        for form in _OF_KINDS.get(kind, ("packed-table" if place == "embedding" else "packed",)):
            found.setdefault(form, path)
    if structure.attributes:
        found.setdefault("uneven", next(iter(structure.attributes)))
    if structure.shared:
        found.setdefault("shared", next(iter(structure.shared)))
    return found


def _in_every_layer(path: str, structure: Structure, depth: int) -> bool:
    """Whether all layers have a part like this one there: FlauBERT's config has no entry for their width."""
    peers = [re.sub(r"\.\d+\.", f".{i}.", path, count=1) for i in range(depth)]
    return path in peers and all(structure.parts.get(peer) == structure.parts[path] for peer in peers)


def check_forms(plan: Plan, built: Sequence[AnyCompressor], model: PreTrainedModel) -> None:
    """Raises: InputError where the model is compressed already, and steps do not take weights as they stand in it."""
    forms, problems = forms_of(model), []
    for number, (step, made) in enumerate(zip(plan.steps, built, strict=True), start=1):
        if misfits := sorted(forms.keys() - made.traits.takes):
            left = ", ".join(f"{form} ('{forms[form]}')" for form in misfits)
            problems.append(
                f"step {number}, '{step.method}', takes weights {', '.join(sorted(made.traits.takes))}, and the model, "
                f"which is compressed already, has some {left}: give the model that it was made of, and all steps in "
                "one plan"
            )
    if problems:
        raise InputError("the plan cannot run:\n  " + "\n  ".join(problems))
