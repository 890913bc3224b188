"""Reports of earlier runs, sorted into systems: a pre-trained model, and what was fine-tuned from it, seed by seed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from affinage.errors import InputError, unknown
from affinage.evaluation.weight_files import stored_as, stored_bytes
from affinage.report.report import ModelEntry
from affinage.workflows.found import (
    SCORED,
    TIMED,
    TRAINED,
    Found,
    Scored,
    find_reports,
    refuse_other_making,
    refuse_unpaired,
    scored,
    system_name,
)

Seeds = tuple[Scored, ...]

_TASKS = ("sentiment", "ner", "nli", "qa")
"""in the article's order; others follow as they are named"""


@dataclass(frozen=True)
class Systems:
    """What some folders hold."""

    reference: str
    models: tuple[ModelEntry, ...]
    """one a system, named after it, the reference first"""
    scored: Mapping[str, Mapping[str, Seeds]]
    """task -> system -> seeds, all on the same examples"""
    baselines: Mapping[str, Mapping[str, Seeds]]
    """task -> model whose embeddings were frozen -> seeds, on those examples too"""
    found: tuple[tuple[Found, str], ...]
    """every report, and the system it is about"""
    timed: Mapping[str, str]
    """model as a benchmark calls it -> its system"""


def gather(folders: Sequence[str | Path], *, reference: str | None = None) -> Systems:
    """Sort the reports of these folders into systems.

    `reference`: the system that the others are compared with; None takes the teacher where a distilled folder says who
    taught whom, else the system named first.

    Raises: InputError where folders cannot be used, or do not go together: both are named.
    """
    found = find_reports(folders)
    bases = _bases(found)
    names = [_owner(one, bases) for one in found]
    tuned, baselines = _Groups(), _Groups()
    for one in found:
        if one.command in SCORED:
            seed = scored(one)
            (baselines if seed.kind else tuned).add(seed)
    for task, systems in tuned.by_task.items():
        everyone = [*_flat(systems), *_flat(baselines.by_task.get(task, {}))]
        for other in everyone[1:]:
            refuse_unpaired(everyone[0], other)
    for name in names:
        if name == "majority" or name.startswith("frozen embeddings"):
            raise InputError(f"a model is called '{name}', as a baseline is in reports; rename its folder")
    models = _models(found, names)
    timed = _timed(found, names, models)
    if not models:
        raise InputError(f"nothing but baselines in {', '.join(map(str, folders))}: name the models' folders too")
    first = _reference(found, names, list(models), tuned.names) if reference is None else reference
    if first not in models:
        raise InputError(f"--reference: {unknown('system', first, models)}")
    order = sorted(models, key=lambda name: name != first)
    tasks = sorted(tuned.by_task, key=lambda task: _TASKS.index(task) if task in _TASKS else len(_TASKS))
    return Systems(
        reference=first,
        models=tuple(models[name] for name in order),
        scored={task: {s: tuple(tuned.by_task[task][s]) for s in order if s in tuned.by_task[task]} for task in tasks},
        baselines={task: {b: tuple(s) for b, s in group.items()} for task, group in baselines.by_task.items()},
        found=tuple(zip(found, names, strict=True)),
        timed=timed,
    )


def _bases(found: Sequence[Found]) -> dict[str, str]:
    """System -> its model, as fine-tuned folders say. Raises: InputError where two models have one name."""
    bases: dict[str, str] = {}
    for one in found:
        if one.command in SCORED:
            before = bases.setdefault(system_name(one.base), one.base)
            # The same folder may be called runs/teacher, ../runs/teacher and /home/me/runs/teacher.
            ours, theirs = ([p for p in Path(base).parts if p not in ("..", "/")] for base in (one.base, before))
            if ours[-len(theirs) :] != theirs and theirs[-len(ours) :] != ours:
                raise InputError(
                    f"two models are called '{system_name(one.base)}': '{before}' and '{one.base}' (of '{one.path}'); "
                    "report on them apart, or fine-tune from a folder of another name"
                )
    return bases


def _owner(one: Found, bases: Mapping[str, str]) -> str:
    """The system that a report is about; of a benchmark, what it is called."""
    if one.command in SCORED:
        return system_name(one.base)
    own = one.path.resolve().name if one.path.is_dir() else one.path.stem
    if one.command == TIMED or not one.report.models:
        return own
    # A folder may have been renamed since it was made: the name that fine-tuned folders know it by counts.
    made = system_name(one.report.models[0].path)
    names = [own, made] if one.path.is_dir() else [made, own]
    return next((name for name in names if name in bases), names[0])


def _models(found: Sequence[Found], names: Sequence[str]) -> dict[str, ModelEntry]:
    """System -> its model, as the run that made it counts it, else as others do. Named as found: in that order."""
    own: dict[str, ModelEntry] = {}
    told: dict[str, ModelEntry] = {}
    for one, name in zip(found, names, strict=True):
        entries = one.report.models
        if one.command in TRAINED and entries:
            if name in own:
                raise InputError(f"'{own[name].path}' and '{one.path}' are both called '{name}'; report on them apart")
            own[name] = _as_stored(entries[0], one.path).model_copy(update={"path": str(one.path)})
            told.setdefault(name, own[name])
            for teacher in entries[1:]:
                told.setdefault(system_name(teacher.path), teacher)
        elif one.command == "finetune":
            stored = _as_stored(entries[0], one.path)
            told.setdefault(name, stored.model_copy(update={"path": one.base, "base": None}))
    return {name: own.get(name, entry).model_copy(update={"name": name}) for name, entry in told.items()}


def _as_stored(entry: ModelEntry, folder: Path) -> ModelEntry:
    """Size and precision of the weights that lie in the folder; as the run noted them where none do."""
    size = stored_bytes(folder)
    return entry.model_copy(update={"size_bytes": size, "stored_as": stored_as(folder)}) if size else entry


def _timed(found: Sequence[Found], names: Sequence[str], models: dict[str, ModelEntry]) -> dict[str, str]:
    """Model as a benchmark calls it -> its system: the model itself, or the first of its task models that was timed.

    What belongs to no system is added to `models`.
    """
    tasks = {one.path.name: name for one, name in zip(found, names, strict=True) if one.command == "finetune"}
    timed: dict[str, str] = {}
    for one in found:
        if one.command != TIMED:
            continue
        if strangers := {row.model for row in one.report.latency} - {entry.name for entry in one.report.models}:
            raise InputError(f"'{one.path}' times '{min(strangers)}' and does not say what that is")
        for entry in one.report.models:
            made = system_name(entry.path)
            candidates = (made, system_name(entry.base or ""), tasks.get(made, ""))
            free = [name for name in candidates if name in models and name not in timed.values()]
            timed.setdefault(entry.name, free[0] if free else made)
            models.setdefault(timed[entry.name], entry.model_copy(update={"name": timed[entry.name]}))
    return timed


def _reference(found: Sequence[Found], names: Sequence[str], known: Sequence[str], tuned: set[str]) -> str:
    """The teacher that nobody taught, else the system named first; one with scores, where several have some."""
    distilled = [(one, name) for one, name in zip(found, names, strict=True) if one.command == "distil"]
    teachers = {system_name(entry.path) for one, _ in distilled for entry in one.report.models[1:]}
    taught = {name for _, name in distilled}
    candidates = [name for name in known if len(tuned) < 2 or name in tuned]
    return min(candidates, key=lambda name: (name not in teachers, name in taught and name in teachers))


def _flat(systems: Mapping[str, Sequence[Scored]]) -> list[Scored]:
    return [seed for seeds in systems.values() for seed in seeds]


class _Groups:
    """Scored folders by task and system."""

    def __init__(self) -> None:
        self.by_task: dict[str, dict[str, list[Scored]]] = {}

    @property
    def names(self) -> set[str]:
        """Every system."""
        return {name for systems in self.by_task.values() for name in systems}

    def add(self, one: Scored) -> None:
        """Raises: InputError where this seed is there already, or the others are not seeds of the same."""
        seeds = self.by_task.setdefault(one.task, {}).setdefault(one.system, [])
        for other in seeds:
            if other.seed == one.seed:
                raise InputError(
                    f"'{other.folder}' and '{one.folder}' are both {one.system} on {one.task} with seed {one.seed}: "
                    "name one of them"
                )
            refuse_other_making(other, one)
        seeds.append(one)
        seeds.sort(key=lambda s: -1 if s.seed is None else s.seed)
