"""`affinage unanswerable`: answerable questions -> a data set for `squad2`, a share of it without an answer."""

import json
import logging
import shutil
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from affinage.data.examples import SpanExample, read_examples
from affinage.data.readers import find_parts, read_rows
from affinage.data.task import load_task
from affinage.data.unanswerable import Question, moved_questions
from affinage.errors import InputError
from affinage.training.run_folder import refuse_existing, written_aside

log = logging.getLogger(__name__)

SHARE = 1 / 3
"""As in SQuAD 2.0's training set: 43,498 of 130,319."""


def unanswerable(
    data: str | Path,
    *,
    out: str | Path,
    dev: str | Path | None = None,
    share: float = SHARE,
    seed: int = 0,
    columns: Mapping[str, str] | None = None,
    overwrite: bool = False,
) -> dict[str, int]:
    """Write to the folder `out` a train part: the questions of `data` and some of them moved (`moved_questions`).

    `data`: a file in SQuAD's form, a hub name, or a folder, whose train part is taken. `dev`: a file copied beside it
    as the dev part. Gives how many questions have an answer, and how many none.

    Raises: InputError or DataError for what cannot be used, or where no question can be moved.
    """
    out = Path(out)
    refuse_existing(out, overwrite=overwrite)
    if not 0 < share < 1:
        raise InputError(f"--share {share}: must lie between 0 and 1")
    parts = find_parts(data)
    source = parts.get("train", parts.get("all"))
    if source is None:
        raise InputError(f"{data}: has no train part, only {', '.join(parts)}")
    task = load_task("squad")
    if dev is not None:
        if not Path(dev).is_file():
            raise InputError(f"--dev '{dev}': there is no such file")
        read_examples(task, dev, limit=1)  # it is copied as it is, and read by the task's own names
    examples = [e for e in read_examples(task, source, columns=columns) if isinstance(e, SpanExample)]
    titles = [row.values.get("title") for row in read_rows(source, columns={"title": "title"}, optional={"title"})]
    asked = [
        Question(e.id, e.question, e.context, e.answers, title if isinstance(title, str) and title else None)
        for e, title in zip(examples, titles, strict=True)
    ]
    answerable = [question for question in asked if question.answers]
    moved = list(moved_questions(answerable, share=share, seed=seed))
    if not moved:
        raise InputError(f"{source}: no question can be moved; several paragraphs of an article are needed")
    _tell_duplicates(asked, source)
    with written_aside(out, overwrite=overwrite) as aside:
        lines = (json.dumps(_row(question), ensure_ascii=False) for question in (*asked, *moved))
        (aside / "train.jsonl").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        if dev is not None:
            shutil.copyfile(dev, aside / ("dev" + "".join(Path(dev).suffixes[-2:])))
            find_parts(aside)
    return {"answerable": len(answerable), "unanswerable": len(asked) - len(answerable) + len(moved)}


def _row(question: Question) -> dict[str, object]:
    texts, starts = [text for text, _ in question.answers], [start for _, start in question.answers]
    return {
        "id": question.id,
        "title": question.title,
        "context": question.context,
        "question": question.question,
        "answers": {"text": texts, "answer_start": starts},
    }


def _tell_duplicates(questions: list[Question], source: str) -> None:
    if twice := sum(times > 1 for times in Counter(question.id for question in questions).values()):
        log.warning("%s: %d ids stand there several times", source, twice)
