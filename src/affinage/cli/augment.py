"""`affinage augment`: arguments of the workflow of that name."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from affinage.cli.console import say, write, write_table
from affinage.cli.options import Columns, Data, Json, Model, Out, Overwrite, Quiet, Task, columns_of


def augment(
    ctx: typer.Context,
    model: Model,
    task: Task,
    data: Data,
    out: Out,
    copies: Annotated[
        str, typer.Option("--copies", metavar="N", help="Copies of a text; 'paper': 20; 'code': 30, 20 or 10, by size.")
    ] = "paper",
    teacher: Annotated[
        str | None, typer.Option("--teacher", metavar="MODEL", help="Fine-tuned model that labels the copies.")
    ] = None,
    vectors: Annotated[
        Path | None, typer.Option("--vectors", metavar="FILE", help="Word vectors as text (.vec, GloVe), plain or .gz.")
    ] = None,
    corpus: Annotated[
        list[str] | None,
        typer.Option(
            "--corpus", metavar="PATH", help="Text to train word vectors on. Default: the data's. Repeatable."
        ),
    ] = None,
    language: Annotated[
        str | None, typer.Option("--language", metavar="fr|en", help="Whose function words stay. Default: found.")
    ] = None,
    probability: Annotated[
        float, typer.Option("--probability", metavar="P", min=0.01, max=1, help="With which a word is replaced.")
    ] = 0.4,
    candidates: Annotated[
        int, typer.Option("--candidates", metavar="K", min=1, max=1000, help="Words that one is drawn from.")
    ] = 15,
    pairs: Annotated[
        bool | None,
        typer.Option("--pairs/--no-pairs", help="Show the model the unmasked text too. Default: if it reads pairs."),
    ] = None,
    row_length: Annotated[
        int, typer.Option("--row-length", metavar="N", min=8, help="Tokens around a masked word that the model sees.")
    ] = 128,
    columns: Columns = None,
    seed: Annotated[int, typer.Option("--seed", metavar="N", min=0, help="Of all draws.")] = 0,
    overwrite: Overwrite = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Labelled data -> the same, with changed copies of its texts.

    TinyBERT's augmentation, in French and English: words of one piece are replaced by what the masked language model
    MODEL finds likely, words of several pieces by neighbours among word vectors. Function words stay.

    An interrupted run resumes when the same command is given again.

    \b
    affinage augment runs/teacher --task sentiment --data reviews/ --teacher runs/teacher-sentiment --out more/
    affinage augment runs/teacher --task nli --data xnli/ --copies 2 --vectors cc.fr.300.vec.gz --out more/
    affinage augment bert-base-cased --task sentiment --data r.csv --column text=review --language en --out more/
    """
    from affinage.workflows.augment import augment as run

    made = run(
        model,
        task=task,
        data=data,
        out=out,
        copies=copies,
        probability=probability,
        candidates=candidates,
        vectors=vectors,
        corpus=corpus or (),
        language=language,
        teacher=teacher,
        pairs=pairs,
        row_length=row_length,
        columns=columns_of(columns),
        seed=seed,
        overwrite=overwrite,
        quiet=quiet,
        command=ctx.obj,
    )
    if as_json:
        write(json.dumps(asdict(made), ensure_ascii=False, indent=1))
    else:
        sources = [(f"words by {source}", f"{count:,}") for source, count in made.words.items()]
        rows = [("originals", f"{made.originals:,}"), ("copies", f"{made.copies:,}"), *sources]
        write_table(("augmentation", ">"), [*rows, ("labelled by", made.teacher or "nobody")])
    if not quiet:
        say(f"saved in {out}")
