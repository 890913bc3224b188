"""Which plans a search draws from: in each slot one method at one strength, or none, in the order that works."""

from collections.abc import Collection, Mapping, Sequence

from affinage.compression.base import Form, TrainedCompressor, compressors
from affinage.compression.plan import Plan, PlanStep, step_of, trainable

NONE = "-"
"""of a slot: leave it out"""
INT4 = "int4:activations=dynamic"
Slots = Mapping[str, tuple[str, ...]]
"""slot, in the order of the steps -> its choices, each as `--with` takes it, the mildest first"""


def slots_for(*, layers: int, given: Collection[str], texts: bool, forms: Collection[Form] = ()) -> Slots:
    """The choices for a model of `layers` layers. `given`: of `NEEDS`, what the run has; what needs more is left out.

    `texts`: whether there is raw text like what the model will read; vocabularies are trimmed to nothing less. `forms`:
    in which its weights stand already; what does not take them is left out.
    """
    kept = sorted({max(1, round(layers * share)) for share in (0.75, 0.5, 0.34)} - {layers}, reverse=True)
    found = {
        "vocabulary": ["trim-vocabulary"] if texts else [],
        "layers": [f"drop-layers:keep={keep}" for keep in kept],
        "cuts": [
            "prune-fisher:keep=0.75",
            "prune-neurons-evenly:keep=0.5",
            "prune-fisher:keep=0.5",
            "prune-width:keep=0.75",
            "prune-fisher:keep=0.3",
            "prune-width:keep=0.5",
        ],
        "maps": ["activation-svd:keep=0.6,parts=linears", "activation-svd:keep=0.4,parts=linears"],
        "table": ["int8-embeddings", "svd:keep=0.5,parts=embeddings", "int4-embeddings", "pq-embeddings"],
        "numbers": ["int8", "int8-static", INT4, "k-means:bits=3,activations=dynamic"],
    }
    return {slot: (NONE, *(c for c in choices if _can(c, given, forms))) for slot, choices in found.items() if choices}


def plan_of(choices: Mapping[str, str], slots: Slots, base: Plan) -> Plan | None:
    """The plan with these choices, trained once, after the last step that can be; None where all are left out.

    Raises: InputError where one cannot follow another.
    """
    steps = [step_of(choices[slot]) for slot in slots if choices[slot] != NONE]
    if not steps:
        return None
    return trained_once(base, steps, recover=base.recover)


def trained_once(base: Plan, steps: Sequence[PlanStep], *, recover: int) -> Plan:
    """`base` with these steps, and its recovery after the last that can be trained; of none, before: not at all.

    Where maps are packed and only their scales can be trained, before that, so that all of what came earlier heals.
    """
    built = [step.build() for step in steps]
    can = [i for i, made in enumerate(built) if trainable(made)]
    whole = [i for i in can if isinstance(built[i], TrainedCompressor) or "packed" not in built[i].traits.leaves]
    last = max(whole or can, default=-1)
    dressed = [step.model_copy(update={"recover": recover if i == last else 0}) for i, step in enumerate(steps)]
    plan = base.model_copy(update={"steps": tuple(dressed), "recover": 0})
    plan.checked()
    return plan


def starts(slots: Slots) -> list[dict[str, str]]:
    """What a search looks at first: the strongest of all, which tells what can be reached, then each slot's mildest
    alone, and the numbers that are small and quick at once.
    """
    first = [(slot, choices[1]) for slot, choices in slots.items() if len(choices) > 1]
    first += [("numbers", INT4)] if INT4 in slots["numbers"] else []
    alone = [{slot: one if slot == own else NONE for slot in slots} for own, one in first]
    strongest = {slot: choices[-1] for slot, choices in slots.items()}
    quick = dict.fromkeys(slots, NONE) | {"numbers": "int8"}
    if "layers" in slots:
        quick["layers"] = slots["layers"][-1]
    return [strongest, quick, *alone]


def _can(choice: str, given: Collection[str], forms: Collection[Form]) -> bool:
    method = compressors.entry(step_of(choice).method).component
    return method.needs <= set(given) and method.traits.takes >= set(forms)
