"""`affinage predict`: texts from arguments, a file or standard input -> what the model says about each."""

import io
import json
import logging
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from affinage.cli.answers import show_answers
from affinage.cli.console import write
from affinage.cli.options import Model, Quiet
from affinage.errors import DataError, InputError

log = logging.getLogger(__name__)

MAX_BYTES = 256 * 2**20
"""Of a file or of standard input: all of it is read before the first answer."""


def predict(
    model: Model,
    texts: Annotated[
        list[str] | None, typer.Argument(metavar="TEXT", help="Texts; none: --file or standard input.")
    ] = None,
    file: Annotated[
        Path | None, typer.Option("--file", metavar="FILE", help="One text a line; .jsonl: one text or object a line.")
    ] = None,
    question: Annotated[
        str | None, typer.Option("--question", metavar="TEXT", help="Question answering; the texts are contexts.")
    ] = None,
    context: Annotated[
        str | None, typer.Option("--context", metavar="TEXT", help="Text that holds the answer.")
    ] = None,
    hypothesis: Annotated[
        str | None, typer.Option("--hypothesis", metavar="TEXT", help="NLI; the texts are premises.")
    ] = None,
    labels: Annotated[
        str | None, typer.Option("--labels", metavar="A,B,C", help="Zero-shot classification by an NLI model.")
    ] = None,
    template: Annotated[
        str | None,
        typer.Option("--template", metavar="TEXT", help="Hypothesis of a label. Default: 'Ce texte parle de {}.'"),
    ] = None,
    method: Annotated[
        str | None,
        typer.Option(
            "--method",
            metavar="NAME",
            help="Zero-shot: entailment_logits (default), entailment_probability_softmax, multi_label.",
        ),
    ] = None,
    top_k: Annotated[int | None, typer.Option("--top-k", metavar="K", min=1, help="Give the K best answers.")] = None,
    task: Annotated[
        str | None, typer.Option("--task", metavar="TASK", help="Default: found in the model's config.")
    ] = None,
    engine: Annotated[
        str | None,
        typer.Option(
            "--engine", metavar="NAME", help="torch, onnx, openvino. Default: torch; of exported folders onnx."
        ),
    ] = None,
    threads: Annotated[int | None, typer.Option("--threads", metavar="N", min=1, help="Default: the cores.")] = None,
    batch_size: Annotated[
        int, typer.Option("--batch-size", metavar="N", min=1, help="Rows computed at once, at most.")
    ] = 64,
    as_json: Annotated[bool, typer.Option("--json", help="Write JSON lines, one an input.")] = False,
    quiet: Quiet = False,
) -> None:
    """Model and texts -> labels, entities, answers.

    The task is found in the model: classes, named entities, entailment, answers, zero-shot labels, masked words.

    \b
    affinage predict runs/sentiment "Un film magnifique." "Quel ennui."
    affinage predict runs/ner --json < texts.txt
    affinage predict runs/nli "Il pleut sur Brest." --hypothesis "Le sol est sec."
    affinage predict runs/nli "Le match reprend." --labels sport,politique,cuisine
    affinage predict runs/qa --question "Où est née Claire ?" --context "Claire est née à Lyon."
    affinage predict runs/teacher "Le train est arrivé en <mask>."
    """
    inputs = _inputs(texts, file, answered=question is not None and context is not None)
    if hypothesis is not None:
        inputs = [{"premise": text, "hypothesis": hypothesis} for text in inputs or ()]
    names = None if labels is None else [name.strip() for name in labels.split(",") if name.strip()]
    if labels is not None and not names:
        raise InputError(f"--labels '{labels}': expected labels with commas between them, as sport,politique")
    from affinage.workflows.predict import predict as run

    results = run(
        model,
        inputs,
        task=task,
        question=question,
        context=context,
        labels=names,
        template=template,
        method=method,
        top_k=top_k,
        engine=engine,  # type: ignore[arg-type]
        threads=threads,
        batch_size=batch_size,
    )
    if as_json:
        write("".join(json.dumps(result, ensure_ascii=False) + "\n" for result in results))
    else:
        show_answers(inputs or [{"question": question, "context": context}], results)


def _inputs(texts: list[str] | None, file: Path | None, *, answered: bool) -> list[Any] | None:
    """The inputs, from one source; None where `--question` and `--context` are all there is."""
    if texts and file is not None:
        raise InputError("give texts or --file, not both")
    if texts:
        return list(texts)
    if file is not None:
        return _lines(_read(file), str(file), objects=file.suffix == ".jsonl")
    if answered:
        return None
    if sys.stdin is None or sys.stdin.isatty():
        raise InputError("nothing to predict: give texts, --file FILE, or lines on standard input")
    return _lines(sys.stdin.buffer.read(MAX_BYTES + 1), "standard input", objects=False)


def _read(file: Path) -> bytes:
    try:
        with file.open("rb") as stream:
            return stream.read(MAX_BYTES + 1)
    except OSError as error:
        raise InputError(f"file '{file}' cannot be read: {error.strerror}") from None


def _lines(data: bytes, where: str, *, objects: bool) -> list[Any]:
    """The lines that are not blank. Raises: InputError or DataError where there is none, or one is no UTF-8 or JSON."""
    if len(data) > MAX_BYTES:
        raise InputError(f"{where} has more than {MAX_BYTES:,} bytes; give it in parts")
    found: list[Any] = []
    blank = 0
    for number, raw in enumerate(io.BytesIO(data.removeprefix(b"\xef\xbb\xbf")), 1):
        try:
            line = raw.decode("utf-8").strip()
            if line:
                found.append(json.loads(line) if objects else line)
        except UnicodeDecodeError as error:
            raise DataError(
                f"{where}:{number}: not UTF-8 (byte {error.start + 1} of the line); convert it first"
            ) from None
        except json.JSONDecodeError as error:
            raise DataError(
                f"{where}:{number}: not JSON: {error.msg.removesuffix(' at')} at character {error.pos + 1}"
            ) from None
        except (ValueError, RecursionError) as error:  # an integer of more than 4,300 digits, brackets without end
            raise DataError(f"{where}:{number}: not JSON that can be read: {str(error)[:100]}") from None
        blank += not line
    if not found:
        raise InputError(f"{where} is empty: expected one text a line")
    if blank:
        log.info("%s: blank lines skipped", where)
    return found
