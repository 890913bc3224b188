"""`affinage demo`: the main job on real French, or English, from a teacher to a report, in minutes on two cores."""

import json
import logging
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from affinage.data.corpus import corpus_files, fingerprints
from affinage.data.examples import read_examples
from affinage.data.readers import find_parts
from affinage.data.task import load_task
from affinage.errors import InputError
from affinage.models.checkpoint import check_fit, load_masked_lm, load_tokenizer, max_length, weights_fingerprint
from affinage.models.english import english_teacher
from affinage.models.shipped import shipped_models
from affinage.report.report import Report
from affinage.training.run_folder import RunFolder, refuse_existing
from affinage.workflows.demo_plan import DISTIL_TOKENS, LEAST_STEPS, TUNING, kept_plan, plan
from affinage.workflows.demo_steps import SYSTEMS, Steps, corpus_of
from affinage.workflows.labelled_data import data_fingerprints
from affinage.workflows.predict import predict
from affinage.workflows.report import collect, write_report_files

log = logging.getLogger(__name__)

SHIPPED_TEACHER, SHIPPED_STUDENT = "shipped:teacher", "shipped:student"
TASKS = tuple(TUNING)
_MOST_MINUTES = 10_000

# Written for this demo; what the models say of them closes it.
ASKED: Mapping[str, tuple[Any, ...]] = {
    "sentiment": (
        "Service adorable et assiette généreuse, nous reviendrons dès le mois prochain.",
        "Deux heures d'attente pour un plat froid, et pas un mot d'excuse.",
    ),
    "ner": ("Hélène Carrier a quitté la mairie de Besançon pour diriger le festival des Eurockéennes.",),
    "nli": (
        {"premise": "Le train de nuit est arrivé avec une heure d'avance.", "hypothesis": "Le train était en retard."},
    ),
    "qa": (
        {
            "question": "Qui a restauré le moulin ?",
            "context": "Abandonné depuis 1952, le moulin de la Bruyère a été restauré par Odile Fernay, qui y moud de "
            "nouveau le blé de trois villages.",
        },
    ),
}
ASKED_IN_ENGLISH: Mapping[str, tuple[Any, ...]] = {
    "sentiment": (
        "Kind staff, generous plates, and we have already booked for next month.",
        "Two hours in the queue for a cold pie, and nobody so much as said sorry.",
    ),
    "ner": ("Helen Carrier has left the town hall of Ripon to run the Embsay Jazz Festival.",),
    "nli": ({"premise": "The night train came in an hour before it was due.", "hypothesis": "The train was late."},),
    "qa": (
        {
            "question": "Who restored the mill?",
            "context": "Abandoned in 1952, the mill at Heatherby was restored by Odile Farnley, who grinds the wheat "
            "of three villages there again.",
        },
    ),
}


def demo(
    *,
    out: str | Path = "affinage-demo",
    data: str | Path | None = None,
    teacher: str | Path | None = None,
    english: bool = False,
    quick: bool = True,
    minutes: float = 8.0,
    seed: int = 0,
    overwrite: bool = False,
    quiet: bool = False,
    command: str | None = None,
) -> Report:
    """Distil `teacher`, fine-tune it and its student on every task, measure both, and write the folder `out`.

    `data`: a folder with one folder a task (sentiment, ner, nli, qa; one is enough), each with a train and a test part,
    and `corpus` with raw text if there is any; None: the sets that come with affinage. Without a corpus the training
    texts are one. `teacher`: None takes the shipped one; with `english` all-MiniLM-L6-v2, which has no vocabulary head,
    so that one is trained first, and English sets and questions. `quick` goes on with the shipped student where the
    teacher is the shipped one; else the student starts from the teacher's layers. `minutes` is about what all of it
    takes.

    An interrupted demo is taken up by the same call: finished steps stay.

    Raises: InputError or DataError before any long work for whatever cannot be used.
    """
    refuse_existing(out, overwrite=overwrite)
    if not 0 < minutes <= _MOST_MINUTES:
        raise InputError(f"minutes {minutes:g}: expected more than 0, at most {_MOST_MINUTES:,}")
    root = shipped_data(english=english) if data is None else Path(data)
    sets = task_folders(root)
    if teacher is None:
        teacher = english_teacher() if english else SHIPPED_TEACHER
    model, has_head = load_masked_lm(teacher, allow_fresh_head=english)
    tokenizer = load_tokenizer(teacher)
    check_fit(tokenizer, model.config, where=teacher)
    start = SHIPPED_STUDENT if quick and teacher == SHIPPED_TEACHER and SHIPPED_STUDENT in shipped_models() else None
    identity = {
        "verb": "demo",
        "teacher": weights_fingerprint(teacher),
        "from": start and weights_fingerprint(start),
        "data": {task: data_fingerprints(find_parts(folder)) for task, folder in sets.items()},
        "corpus": fingerprints(corpus_files([root / "corpus"])) if (root / "corpus").is_dir() else None,
        "minutes": minutes,
        "seed": seed,
    }
    folder = RunFolder.open(out, identity=identity, overwrite=overwrite)
    work = folder.partial / "work"
    work.mkdir(exist_ok=True)
    with folder.preparing():
        corpus = corpus_of(sets, root / "corpus", aside=work / "corpus.txt")
        shares = kept_plan(
            work / "plan.json",
            lambda: plan(
                model,
                tokenizer,
                sets,
                minutes=minutes,
                distil_tokens=DISTIL_TOKENS,
                least_steps=LEAST_STEPS if english else 1,
                needs_head=not has_head,
            ),
        )
    log.info(shares.told(minutes))
    longest = max_length(model.config)
    Steps(work, str(teacher), start, sets, corpus, shares, longest, seed, quiet).run()
    asked = {task: (ASKED_IN_ENGLISH if english else ASKED)[task] for task in sets}
    return _finish(folder, work, asked, command=command or f"affinage demo{' --english' * english} --out {out}")


def shipped_data(*, english: bool = False) -> Path:
    """The labelled sets that come with affinage, French or English, one folder a task."""
    return Path(str(resources.files("affinage.assets"))) / ("english" if english else "data")


def task_folders(root: Path) -> dict[str, Path]:
    """Task -> its folder, every row of which has been read once.

    Raises: InputError or DataError where there is none, or one lacks a part or holds a row that cannot be used.
    """
    if not root.is_dir():
        raise InputError(f"data '{root}': there is no such folder; it holds one folder a task: {', '.join(TASKS)}")
    found = {task: root / task for task in TASKS if (root / task).is_dir()}
    if not found:
        raise InputError(f"data '{root}' has none of the folders {', '.join(TASKS)}; one is enough")
    for task, folder in found.items():
        parts = find_parts(folder)
        if missing := {"train", "test"} - set(parts):
            raise InputError(
                f"data '{folder}' has no {' and no '.join(sorted(missing))} part, as train.jsonl, test.csv"
            )
        for source in parts.values():
            read_examples(load_task(task), source)
    return found


def _finish(folder: RunFolder, work: Path, asked: Mapping[str, tuple[Any, ...]], *, command: str) -> Report:
    """Predict, report, and move everything to its place. `asked`: task -> what the models are asked."""
    answers = {
        (task, system): predict(work / "tasks" / f"{system}-{task}", list(inputs))
        for task, inputs in asked.items()
        for system in SYSTEMS
    }

    def write(aside: Path) -> None:
        for name in (*SYSTEMS, "tasks", "benchmark"):
            (work / name).rename(aside / name)
        _rename_in_texts(aside, work, folder.out)
        (aside / "predictions.md").write_text(predictions_page(answers, asked), encoding="utf-8")
        write_report_files(collect([aside], reference="teacher", command=command), aside)
        _rename_in_texts(aside, aside, folder.out)

    folder.finish(write)
    return Report.from_json((folder.out / "report.json").read_text(encoding="utf-8"))


def _rename_in_texts(root: Path, before: Path, after: Path) -> None:
    """Let reports and cards name the folder where they will lie."""
    for path in root.rglob("*"):
        if path.suffix in {".json", ".md", ".html"} and str(before) in (said := path.read_text("utf-8")):
            path.write_text(said.replace(str(before), str(after)), encoding="utf-8")


def predictions_page(
    answers: Mapping[tuple[str, str], Sequence[Mapping[str, Any]]], asked: Mapping[str, tuple[Any, ...]]
) -> str:
    """What both models say of the sentences, as Markdown."""
    lines = ["# What the models say", ""]
    for task in dict.fromkeys(task for task, _ in answers):
        lines += [f"## {task}", ""]
        for number, given in enumerate(asked[task]):
            lines += [f"> {' | '.join(given.values()) if isinstance(given, Mapping) else given}", ""]
            for system in SYSTEMS:
                said = json.dumps(answers[task, system][number], ensure_ascii=False)
                lines.append(f"- {system}: `{said}`")
            lines.append("")
    return "\n".join(lines)
