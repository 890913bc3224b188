"""Which reports lie in some folders, and what was scored in each."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from affinage.errors import InputError
from affinage.evaluation.example_scores import PartScores, read_example_scores
from affinage.evaluation.metrics import metric
from affinage.models.shipped import PREFIX
from affinage.recipe import Recipe
from affinage.report.report import Report, Score

log = logging.getLogger(__name__)

TRAINED, SCORED, TIMED = ("pretrain", "distil"), ("finetune", "baseline"), "benchmark"
"""verbs whose reports are used: what they give"""
_USED = (*TRAINED, *SCORED, TIMED)
_FREE = ("seed", "logging_steps", "precision", "kernels", "description", "source")
"""keys of a recipe in which seeds of one system may differ"""


@dataclass(frozen=True)
class Found:
    """A report and the folder, or the file alone, that it was found in."""

    path: Path
    report: Report

    @property
    def command(self) -> str:
        """The verb that wrote it; what was distilled for a task, or compressed on its rows, counts as fine-tuned."""
        return "finetune" if self.for_task else self.report.command

    @property
    def for_task(self) -> bool:
        """Whether a distillation for a task wrote it, or a compression that was scored."""
        return self.report.command in ("distil", "compress") and bool(self.report.scores)

    @property
    def file(self) -> Path:
        """The JSON file."""
        return self.path / "report.json" if self.path.is_dir() else self.path

    @property
    def base(self) -> str:
        """What a fine-tuned folder, or a baseline's, was made from; distilled for a task: what its teacher had been
        made from, and by which recipe; compressed: what the compressed model had been made from, and by which steps.

        Raises: InputError where it is not said.
        """
        base = self.report.models[0].base if self.report.models else None
        if base is None:
            raise InputError(
                f"'{self.path}' does not say which model it was made from; an older affinage made it: run its command "
                "again"
            )
        if self.report.command == "compress":
            steps = [entry for entry in self.report.ledger[1:] if not entry.undone]
            trained = [f"{entry.title} ({entry.recovery_steps} steps)" if entry.recovery_steps else entry.title
                       for entry in steps]  # fmt: skip
            return f"{made_from(base) or base} with {' + '.join(trained) or 'nothing'}"
        if not self.for_task:
            return base
        teachers = self.report.models[1:]
        origin = (teachers[0].base if teachers else None) or base
        return f"{origin} by {Recipe.load(self.path / 'recipe.yaml').name}"


@dataclass(frozen=True)
class Scored:
    """One seed of one system on one part of one task; or of a baseline."""

    folder: Path
    system: str
    """the pre-trained model; of a baseline, the model whose embeddings were frozen"""
    task: str
    part: str
    seed: int | None
    examples: PartScores
    majority: Mapping[str, float]
    """metric -> score of the commonest label, where the folder's own report says it"""
    kind: str | None
    """of a baseline: majority, or frozen embeddings"""
    data: frozenset[str] = frozenset()
    """fingerprints of what it was trained and scored on"""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """of its recipe, those of a seed and a machine aside; empty where the folder has none"""


def system_name(model: str | Path) -> str:
    """`runs/teacher` -> teacher, `shipped:teacher` -> teacher, `owner/name` -> name."""
    return Path(str(model).removeprefix(PREFIX)).name


def find_reports(folders: Sequence[str | Path]) -> list[Found]:
    """The reports of these folders and files; of a folder without one, those one or two levels below it.

    Raises: InputError where a path does not exist, a report cannot be read, or there is none at all.
    """
    found: dict[Path, Found] = {}
    for folder in map(Path, folders):
        if not folder.exists():
            raise InputError(f"'{folder}' does not exist; name folders or files that affinage made")
        files = _files(folder)
        if not files:
            log.warning("'%s' holds no finished report and was left out", folder)
        for file in files:
            try:
                report = Report.from_json(file.read_text(encoding="utf-8"))
            except OSError as error:
                raise InputError(f"'{file}' cannot be read: {error.strerror}") from None
            except (InputError, UnicodeDecodeError) as error:
                raise InputError(f"'{file}' cannot be used: {error}") from None
            one = Found(file.parent if file.name == "report.json" else file, report)
            if one.command in _USED:
                found.setdefault(file.resolve(), one)
            else:
                log.warning("'%s' is of affinage %s and was left out", file, report.command)
    if not found:
        raise InputError(
            f"nothing to report on in {', '.join(map(str, folders)) or 'no folder'}: name folders that affinage "
            f"{', '.join(_USED[:-1])} or {_USED[-1]} made"
        )
    return list(found.values())


def scored(one: Found) -> Scored:
    """The rows of a fine-tuned folder, or a baseline's: of its test part, or of the last there is.

    Raises: InputError where they are missing, or not those of the report beside them.
    """
    if not one.path.is_dir():
        raise InputError(f"'{one.path}' is of affinage {one.command}: name its folder, which holds examples.json too")
    kept, report = read_example_scores(one.path), one.report
    if not kept.parts:
        raise InputError(f"'{one.path}': its examples.json has no part")
    part = "test" if "test" in kept.parts else list(kept.parts)[-1]
    examples = kept.parts[part]
    owners = [
        {s.model for s in report.scores if (s.split, s.metric) == (part, name) and _agrees(s, examples)}
        for name in examples.rows
    ]
    if not all(owners):
        raise InputError(f"'{one.path}': the scores in report.json are not those of the rows in examples.json")
    return Scored(
        folder=one.path,
        system=system_name(one.base),
        task=kept.task,
        part=part,
        seed=report.provenance.seed,
        examples=examples,
        majority={s.metric: s.baseline for s in report.scores if s.split == part and s.baseline is not None},
        kind=None
        if one.command == "finetune"
        else "majority"
        if "majority" in set.intersection(*owners)
        else "frozen embeddings",
        data=frozenset(report.provenance.data.values()),
        settings=_settings(one.path),
    )


def refuse_other_making(first: Scored, second: Scored) -> None:
    """Raises: InputError where two folders of one system differ in more than the seed: no mean is of them."""
    both = f"'{first.folder}' and '{second.folder}' are both {first.system} on {first.task}"
    if first.data and second.data and first.data != second.data:
        raise InputError(f"{both}, made from different data: they are no seeds of one system; report on them apart")
    if first.settings and second.settings:
        for key in sorted(first.settings.keys() | second.settings.keys()):
            ours, theirs = first.settings.get(key), second.settings.get(key)
            if ours != theirs:
                raise InputError(
                    f"{both}, with {key} {ours} and {theirs}: they are no seeds of one system; report on them apart"
                )


def _settings(folder: Path) -> dict[str, Any]:
    try:
        whole = Recipe.load(folder / "recipe.yaml").model_dump(mode="json")
    except InputError:
        return {}
    return {key: value for key, value in _flat("", whole) if key.rpartition(".")[2] not in _FREE}


def _flat(prefix: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Key with dots -> value, of mappings and lists within one another."""
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else None
    if not inside:
        yield prefix, value
        return
    for key, inner in inside:
        yield from _flat(f"{prefix}.{key}" if prefix else str(key), inner)


def refuse_unpaired(first: Scored, second: Scored) -> None:
    """Raises: InputError where two folders were not scored on the same examples, by the same metrics."""
    # A dev part that is reported on is a test part to whoever reads an augmented folder.
    parts = {"test" if one.part == "dev" else one.part for one in (first, second)}
    if len(parts) > 1 or first.examples.fingerprint != second.examples.fingerprint:
        raise InputError(
            f"'{first.folder}' ({first.part} part) and '{second.folder}' ({second.part} part) were scored on different "
            f"examples of {first.task}: such scores are not compared; use the same data for both"
        )
    if set(first.examples.rows) != set(second.examples.rows):
        raise InputError(
            f"'{first.folder}' has {', '.join(first.examples.rows)} and '{second.folder}' "
            f"{', '.join(second.examples.rows)}: different metrics are not compared; run both with one affinage"
        )


def made_from(tuned: str | Path) -> str | None:
    """What a fine-tuned model was made from, which is the same over tasks and seeds; None where no report says it."""
    try:
        report = Report.from_json((Path(tuned) / "report.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, InputError):
        return None
    return report.models[0].base if report.models else None


def _files(folder: Path) -> list[Path]:
    """The report files that an argument stands for. What an unfinished run left aside is none."""
    if folder.is_file():
        return [folder] if folder.suffix == ".json" else []
    if (folder / "report.json").is_file():
        return [folder / "report.json"]
    near = sorted(folder.glob("*/report.json"))
    whole = {file.parent for file in near}
    below = [file for file in sorted(folder.glob("*/*/report.json")) if file.parent.parent not in whole]
    return [
        file
        for file in (*near, *below)
        if not any(part.endswith(".partial") for part in (folder.name, *file.relative_to(folder).parts))
    ]


def _agrees(score: Score, examples: PartScores) -> bool:
    rows = examples.rows[score.metric]
    return len(rows) == score.n and abs(float(metric(score.metric).aggregate(rows.sum(axis=0))) - score.value) < 1e-9
